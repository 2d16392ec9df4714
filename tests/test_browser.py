"""The listing and a page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ServeFixture, need

sync_api = pytest.importorskip("playwright.sync_api") if "CI" not in os.environ else None
if sync_api is None:
    from playwright import sync_api  # type: ignore[no-redef]

EXAMPLE = Path(__file__).parent.parent / "example"
SHOTS = os.environ.get("PYWEB_SCREENSHOTS")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = need("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def browser_page(browser: Any, serve: ServeFixture) -> Iterator[Any]:
    """A fresh page; any error in its console fails the test. (`serve` is asked for, so that the
    page is closed before its server.)"""
    assert serve
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.errors_seen = errors
    yield page
    context.close()
    assert errors == []


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


@pytest.fixture
def example(serve: ServeFixture) -> str:
    subprocess.run([sys.executable, EXAMPLE.parent / "tools" / "make_example.py"], check=True)
    return serve(directory=EXAMPLE).url


def test_a_page_with_all_that_belongs_to_it(browser_page: Any, example: str) -> None:
    answers: dict[str, int] = {}
    browser_page.on("response", lambda r: answers.__setitem__(r.url, r.status))
    browser_page.goto(example)
    assert browser_page.title()
    browser_page.wait_for_load_state("networkidle")
    shoot(browser_page, "page")
    assert set(answers.values()) <= {200, 304}
    assert any(url.endswith(".css") for url in answers)
    pictures = "Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)"
    assert browser_page.evaluate(pictures)


def test_every_page_is_reached_and_whole(browser_page: Any, example: str) -> None:
    seen, todo = set(), [example]
    while todo:
        url = todo.pop()
        if url in seen or not url.startswith(example) or url.endswith((".bin", ".pdf", ".wasm")):
            continue
        seen.add(url)
        if not url.endswith((".html", "/")):
            continue
        answer = browser_page.goto(url)
        assert answer.status == 200, url
        links = "Array.from(document.links).map(a => a.href.split('#')[0].split('?')[0])"
        todo += browser_page.evaluate(links)
    assert len(seen) >= 15


def test_listing_sorts_and_opens(browser_page: Any, example: str) -> None:
    browser_page.goto(example + "files/")
    shoot(browser_page, "listing")
    names = "Array.from(document.querySelectorAll('tbody a')).map(a => a.textContent)"
    first = browser_page.evaluate(names)
    browser_page.click("thead a[href*=size]")
    assert "sort=size" in browser_page.url
    by_size = browser_page.evaluate(names)
    assert sorted(first) == sorted(by_size)
    assert first != by_size
    browser_page.click("text=Zürich notes.txt")
    assert browser_page.url.endswith("Z%C3%BCrich%20notes.txt")
    browser_page.go_back()
    browser_page.click("h1 a")
    assert browser_page.url == example


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_listing_on_phone_and_desktop(
    browser_page: Any, example: str, scheme: str, width: int
) -> None:
    """It fits: nothing is to be scrolled sideways; dark is dark and light is light."""
    browser_page.emulate_media(color_scheme=scheme)
    browser_page.set_viewport_size({"width": width, "height": 800})
    browser_page.goto(example + "files/")
    shoot(browser_page, f"listing-{scheme}-{width}")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser_page.evaluate(overflow) <= 0
    background = browser_page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(n) for n in background[4:-1].split(",")[:3])
    assert brightness > 600 if scheme == "light" else brightness < 150


def test_error_page(browser_page: Any, example: str) -> None:
    answer = browser_page.goto(example + "<script>alert(1)</script>")
    assert answer.status == 404
    shoot(browser_page, "error")
    assert browser_page.evaluate("document.scripts.length") == 0
    # Chromium itself says on its console that the page was a 404.
    assert all("404" in text for text in browser_page.errors_seen)
    browser_page.errors_seen.clear()


def test_large_file_and_a_range_of_it(browser_page: Any, example: str) -> None:
    browser_page.goto(example)
    size = browser_page.evaluate("fetch('large.bin').then(r => r.blob()).then(b => b.size)")
    assert size == 64 << 20
    piece = browser_page.evaluate(
        "fetch('large.bin', {headers: {Range: 'bytes=4096-4110'}})"
        ".then(async r => [r.status, await r.text()])"
    )
    assert piece == [206, "000000000001000"]
