#!/usr/bin/env python3
"""Draw the three bitmap pictures of this site: tree.png, pages.webp, lives.jpg.

    python draw.py DIRECTORY        needs Pillow

They show ideas, not measurements. The dice are seeded, so each run draws the same.
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

NIGHT = (17, 21, 29)
TEAL = (92, 200, 189)
AMBER = (240, 170, 90)
RED = (239, 90, 82)
PAPER = (232, 230, 222)
SCALE = 3  # drawn so many times too large, then made smaller: smooth edges


def mix(a, b, share):
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def canvas(width, height):
    image = Image.new("RGB", (width * SCALE, height * SCALE), NIGHT)
    return image, ImageDraw.Draw(image)


def smooth(image):
    size = image.width // SCALE, image.height // SCALE
    return image.resize(size, Image.Resampling.LANCZOS)


def dot(draw, centre, radius, colour):
    draw.circle(scaled(centre), radius * SCALE, fill=colour)


def ring(draw, centre, radius, colour):
    draw.circle(scaled(centre), radius * SCALE, outline=colour, width=round(1.5 * SCALE))


def scaled(point):
    return point[0] * SCALE, point[1] * SCALE


def curve(draw, way, colours, width):
    """A quadratic Bezier curve that changes its colour on the way: start, pull, end."""
    start, pull, end = way
    steps = 60
    points = []
    for step in range(steps + 1):
        t = step / steps
        x = (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * pull[0] + t * t * end[0]
        y = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * pull[1] + t * t * end[1]
        points.append(scaled((x, y)))
    for step in range(steps):
        colour = mix(*colours, step / steps)
        draw.line(points[step : step + 2], fill=colour, width=round(width * SCALE))


def tree():
    """One supervisor, one master, many children; one of them has crashed and nobody minds."""
    dice = random.Random(2009)
    width, height = 1200, 640
    image, draw = canvas(width, height)
    master, supervisor = (600, 470), (600, 585)
    children = []
    for row, (radius, count) in enumerate(((190, 27), (260, 39), (330, 51), (400, 63))):
        for place in range(count):
            angle = math.pi * (0.035 + 0.93 * (place + 0.5 * (row % 2) + 0.25) / count)
            reach = radius + dice.uniform(-14, 14)
            x = master[0] - math.cos(angle) * reach * 1.32
            y = master[1] - math.sin(angle) * reach
            children.append((reach, angle, (x, y)))
    crashed = min(children, key=lambda child: math.dist(child[2], (905, 235)))
    for child in sorted(children, reverse=True):
        reach, angle, place = child
        colour = RED if child is crashed else mix(TEAL, AMBER, angle / math.pi)
        far = mix(NIGHT, colour, 0.8 if child is crashed else 0.38)
        pull = (master[0] - math.cos(angle) * reach * 0.35, master[1] - reach * 0.55)
        curve(draw, (master, pull, place), (mix(NIGHT, colour, 0.12), far), 1.2)
    for child in children:
        _, angle, place = child
        colour = mix(TEAL, AMBER, angle / math.pi)
        if child is crashed:
            ring(draw, place, 11, mix(NIGHT, RED, 0.6))
            dot(draw, place, 5.5, RED)
        elif dice.random() < 0.22:
            ring(draw, place, 4.2, mix(NIGHT, colour, 0.65))  # it has answered and is gone
        else:
            dot(draw, place, dice.choice((3.2, 4.0, 4.8)), colour)
    curve(draw, (supervisor, supervisor, master), (PAPER, PAPER), 3)
    dot(draw, master, 13, PAPER)
    dot(draw, supervisor, 10, PAPER)
    dot(draw, supervisor, 7, NIGHT)
    return smooth(image)


def pages():
    """A child's memory after a fork: most pages are its parent's, what it wrote to is its own."""
    dice = random.Random(4096)
    columns, rows, cell = 60, 28, 20
    image, draw = canvas(columns * cell, rows * cell)
    # Where a child writes: column, row, how far around.
    touched = ((11, 6, 2.2), (24, 19, 3.4), (41, 9, 4.2), (52, 21, 2.0), (33, 24, 1.6), (4, 22, 1))
    for row in range(rows):
        for column in range(columns):
            heat = max(
                math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * spread**2))
                for x, y, spread in touched
            )
            copied = dice.random() < heat * 1.1
            waves = math.sin(column * 0.21 + row * 0.13) + math.sin(row * 0.37 - column * 0.08)
            shade = 0.17 + 0.055 * waves + dice.uniform(-0.03, 0.03)
            colour = mix(NIGHT, TEAL, shade)
            if copied:
                colour = mix(AMBER, PAPER, dice.uniform(0, 0.45) * heat)
                colour = mix(NIGHT, colour, 0.62 + 0.38 * heat)
            left, top = column * cell * SCALE, row * cell * SCALE
            gap, side = 2 * SCALE, (cell - 2) * SCALE
            box = (left + gap, top + gap, left + side, top + side)
            draw.rounded_rectangle(box, radius=3 * SCALE, fill=colour)
    return smooth(image)


def lives():
    """Time runs to the right; each stroke is the life of one process, from fork to exit."""
    dice = random.Random(8000)
    width, height, lanes = 1200, 640, 64
    image, draw = canvas(width, height)
    free = [0.0] * lanes
    now, strokes = 40.0, []
    while now < width - 60:
        now += dice.expovariate(0.62 + 0.5 * math.sin(now / 150) ** 2)
        lane = next((n for n in range(lanes) if free[n] < now), None)
        if lane is None:
            continue  # as many as there may be: this one waits
        life = min(dice.lognormvariate(3.5, 0.75), 420)
        free[lane] = now + life + 8
        strokes.append((now, lane, life))
    glow = Image.new("RGB", image.size, NIGHT)
    light = ImageDraw.Draw(glow)
    for start, lane, life in strokes:
        y = 46 + lane * 8.7
        warm = min(1.0, life / 150)
        for brush, strength, thick in ((light, 0.55, 7), (draw, 0.95, 3.4)):
            ends = (start, y), (start + life / 2, y), (start + life, y)
            colours = mix(NIGHT, mix(TEAL, AMBER, warm), strength), NIGHT
            curve(brush, ends, colours, thick)
        dot(draw, (start, y), 2.6, mix(mix(TEAL, AMBER, warm), PAPER, 0.5))
    glow = glow.filter(ImageFilter.GaussianBlur(9 * SCALE))
    picture = Image.composite(image, glow, image.convert("L").point(lambda v: min(255, v * 3 - 60)))
    return smooth(picture)


def main():
    target = Path(sys.argv[1])
    tree_few = tree().quantize(160, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    tree_few.save(target / "tree.png", optimize=True)
    pages().save(target / "pages.webp", quality=78, method=6)
    lives().save(target / "lives.jpg", quality=78, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
