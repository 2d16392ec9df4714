"""The report's page, of an answer that is known: its words, its figures where they are drawn, and
how it does in a real browser."""

from __future__ import annotations

import copy
import html
import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import lab_known
import markupsafe
import pytest
from conftest import need

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
from pyweb.lab import canvas, curves, forms, of_model, of_servers, peers, plots
from pyweb.lab.page import render
from pyweb.lab.statistics import Estimate

sync_api = pytest.importorskip("playwright.sync_api") if "CI" not in os.environ else None
if sync_api is None:
    from playwright import sync_api  # type: ignore[no-redef]

SHOTS = os.environ.get("PYWEB_SCREENSHOTS")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PARTS = ("ladder", "model", "load", "peers", "article")
SCRIPT = '<script>document.title = "hacked"</script>'
HOSTILE = (SCRIPT, "\"' onmouseover='x", "$x^{$", "n" * 300, "nul \x00 and \x1b[31m", "日本")


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """matplotlib keeps its fonts open from the first text on; so no test leaves them behind."""
    span = plots.Span("in bold", "text", "fork", 0.0, 1.0)
    plots.waterfall("first", "", [span], 1.0)


@pytest.fixture(scope="module")
def page() -> str:
    return render(lab_known.report())


def only(part: str, answer: dict[str, Any]) -> str:
    return render({"machine": {}, "parts": {part: answer}})


def words(page: str) -> str:
    """What is read, with one blank wherever there is any."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def row(page: str, name: str) -> str:
    head = re.escape(str(markupsafe.escape(name)))
    found = re.search(rf'<th scope="row">{head}</th>.*?</tr>', page, re.DOTALL)
    assert found, name
    return words(found[0])


def picture(page: str, name: str) -> ElementTree.Element:
    found = re.search(rf'<svg [^>]*id="{name}".*?</svg>', page, re.DOTALL)
    assert found, name
    return ElementTree.fromstring(found[0])


SVG = "{http://www.w3.org/2000/svg}"


def bars(drawn: ElementTree.Element, ink: str) -> list[float]:
    """Widths of what is filled with it."""
    widths = []
    for path in drawn.iter(f"{SVG}path"):
        if f"fill: var(--{ink})" in path.get("style", ""):
            xs = [float(x) for x in re.findall(r"[ML] ([-\d.]+) [-\d.]+", path.get("d", ""))]
            widths.append(max(xs) - min(xs))
    return widths


def marks(drawn: ElementTree.Element, ink: str) -> list[float]:
    """Where they are, from left to right."""
    return [float(one.get("x", "")) for one in drawn.iter(f"{SVG}use")
            if f"fill: var(--{ink})" in one.get("style", "")]  # fmt: skip


def test_the_main_finding_is_said(page: str) -> None:
    said = ("A connection of pyweb takes 4,000 us: 10 % is the fork tax, 88 % the interpreter tax,"
            " nothing explains -0.5 %.")  # fmt: skip
    assert said in words(page)
    peers_said = "under ab, times pyweb fork: nginx 40.0 [38.0, 42.0], apache 32.0 [30.4, 33.6],"
    assert peers_said in words(page)


def test_sections_come_in_order_of_weight(page: str) -> None:
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", html.unescape(page))
    assert titles[1:3] == ["The two taxes, and what is left", "One connection of median length"]
    assert titles[-3:] == ["Latencies of pyweb's modes in an open loop",
                           "The machine, and what was run on it", "How to read this"]  # fmt: skip
    nav = re.findall(r'<a href="#([^"]+)-section">', page)
    assert nav == re.findall(r'<section id="([^"]+)-section"', page)


def test_figures_have_their_intervals(page: str) -> None:
    assert "fork tax 400 [380, 420] 10 % 420 [399, 441] they agree" in row(page, "fork tax")
    assert "finalisation" in row(page, "finalisation")
    assert row(page, "finalisation").endswith("they disagree")
    nginx = row(page, "nginx, 2 workers")
    assert "10,000 [9,500, 10,500] 40.0 [38.0, 42.0] 100 [95, 105] 20.0 [19.0, 21.0] 8" in nginx
    assert "70.5 – 127 12,395" in row(page, "the article's server, as published")


def test_a_failure_is_shown_and_has_no_rate(page: str) -> None:
    assert row(page, "gunicorn, 2 workers") == f"gunicorn, 2 workers – – – – 0 {lab_known.FAILED}"
    drawn = picture(page, "peers-a-wide")
    assert any("no sound run: 12 of 1,000" in (one.text or "") for one in drawn.iter(f"{SVG}text"))
    assert len(marks(drawn, "serve")) == len(lab_known.RATES)


def test_peers_are_told_in_a_sentence_that_can_be_read() -> None:
    def row(ratio: float) -> dict[str, Any]:
        return {"ratio": [ratio, None, None]}

    rows = {name: row(ratio) for ratio, name in enumerate("abcdefgh", 1)}
    rows |= {"pyweb fork": row(1.0), peers.AGAIN: row(99.0)}
    said = of_servers.finding({"loads": {"ab": {"reference": "pyweb fork", "rows": rows}}})
    assert said == ("Requests/s under ab, times pyweb fork: h 8.00 [?], g 7.00 [?], f 6.00 [?],"
                    " 4 others between, a 1.00 [?].")  # fmt: skip


def test_quiet_is_said_of_a_quiet_run_alone(page: str) -> None:
    quiet = words(render(without_failures(lab_known.report())))
    assert "Quiet: the same server against itself" in quiet
    assert "Read this with doubt" not in quiet
    assert "Quiet:" not in words(page)


def without_failures(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: [] if key == "failures" else without_failures(one)
                for key, one in value.items()}  # fmt: skip
    return [without_failures(one) for one in value] if isinstance(value, list) else value


def test_failed_runs_are_admitted_on_top(page: str) -> None:
    top = words(page[: page.index("<main")])
    assert "peers, failed runs under ab: gunicorn 1" in top
    assert "article, failed runs under ab -n 10000 -c 100: plainfork 1" in top
    assert lab_known.FAILED in words(page[page.index('id="pool-section"') :])


@pytest.mark.parametrize(
    ("aa", "said"),
    [
        ([0.95, 0.93, 0.97], "load: A/A 0.950 [0.930, 0.970], may be 0.98 to 1.02: noisy"),
        ([1.0, None, None], "load: A/A 1.000 [?]: fewer than 6 blocks"),
        (None, "load: A/A not known"),
    ],
)
def test_noise_is_admitted(aa: Any, said: str) -> None:
    page = words(only("load", lab_known.load() | {"aa": aa}))
    assert said in page
    assert "Quiet:" not in page


def test_whatever_else_makes_doubt_is_told() -> None:
    peers = {
        "aa": [1, 1, 1],
        "void": ["nginx, ab: <b>late</b>"],
        "missing": ["apache: none"],
    }
    answer = {"quick": True, "machine": {"pinned": "not pinned"}, "missing": ["model: no cc"],
              "parts": {"peers": peers}}  # fmt: skip
    page = words(render(answer))
    for said in ("A quick run", "Not pinned", "Not measured: model: no cc", "Not measured: ladder",
                 "peers: 1 run was void, and not counted",
                 "peers, void run: nginx, ab: <b>late</b>",
                 "peers, missing: apache: none"):  # fmt: skip
        assert said in page, said
    assert page.count("Not measured: model") == 1


def test_few_blocks_have_no_interval() -> None:
    ladder = lab_known.ladder()
    ladder["taxes"]["wall"] = [4000.0, None, None]
    ladder["taxes"]["fork"]["agrees"] = None
    page = only("ladder", ladder)
    assert "4,000 [?]" in row(page, "wall time of a connection")
    assert row(page, "fork tax").endswith("too few blocks to tell")


def test_absent_parts_are_told() -> None:
    page = words(render({}))
    for said in ("What a connection costs was not measured.", "The ladder was not measured.",
                 "Peers were not measured.", "The article's loads were not measured.",
                 "pyweb's modes were not measured under load.", "Latencies were not measured.",
                 "The fork model was not measured.",
                 "Nothing is known of the machine."):  # fmt: skip
        assert said in page, said


@pytest.mark.parametrize("part", PARTS)
def test_no_null_breaks_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is; the machine is known, so that settings are counted too."""
    for module in (plots, curves):
        monkeypatch.setattr(module, "picture", lambda name, label, draw: name)
    for answer in nulled(getattr(lab_known, part)()):
        assert "How to read this" in render({"machine": {"cpu": "a CPU"}, "parts": {part: answer}})


def nulled(value: Any) -> Iterator[Any]:
    """Each with one null, however deep; of what has the same keys the first alone."""
    if isinstance(value, dict):
        kinds = {keys(one) or key: key for key, one in reversed(value.items())}
        for key in kinds.values():
            yield value | {key: None}
            for one in nulled(value[key]):
                yield value | {key: one}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for one in nulled(value[0]):
            yield [one, *value[1:]]


def keys(value: Any) -> tuple[str, ...]:
    """Of a mapping, or of the first in a list."""
    if isinstance(value, list) and value:
        return keys(value[0])
    return tuple(value) if isinstance(value, dict) else ()


@pytest.mark.parametrize("part", PARTS)
def test_nothing_that_is_missing_breaks_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key in turn, all of them, and each estimate."""
    for module in (plots, curves):
        monkeypatch.setattr(module, "picture", drawn_once)
    answer = getattr(lab_known, part)()
    for key in answer:
        assert "How to read this" in only(part, {k: v for k, v in answer.items() if k != key})
    assert "How to read this" in only(part, dict.fromkeys(answer))
    assert "How to read this" in only(part, unknown(answer))
    assert "How to read this" in only(part, half_known(answer))


def drawn_once(name: str, label: str, draw: canvas.Draw) -> str:
    """And not written: that takes long."""
    draw(True)
    return name


def unknown(value: Any) -> Any:
    """Without any estimate."""
    if isinstance(value, dict):
        return {key: unknown(each) for key, each in value.items()}
    if isinstance(value, list):
        return None if value and isinstance(value[0], float) else [unknown(one) for one in value]
    return value


def half_known(value: Any) -> Any:
    """Without any interval."""
    if isinstance(value, dict):
        return {key: half_known(each) for key, each in value.items()}
    if isinstance(value, list):
        is_estimate = len(value) == 3 and isinstance(value[0], float)
        return [value[0], None, None] if is_estimate else [half_known(one) for one in value]
    return value


def test_a_rung_that_is_missing_is_no_bar() -> None:
    ladder = lab_known.ladder()
    for found in (ladder["rungs"], ladder["blocks"]["walls"], ladder["blocks"]["phases"]):
        del found["c-fork-serve"]
    del ladder["taxes"]
    page = only("ladder", ladder)
    assert "No taxes: the ladder lacks a rung" in words(page)
    assert '<th scope="row">C: accept, fork, serve, exit</th>' not in page


def test_bars_are_as_long_as_their_times(page: str) -> None:
    drawn = picture(page, "taxes-wide")
    fork, python = bars(drawn, "fork"), bars(drawn, "serve")
    assert python[0] / fork[0] == pytest.approx(3500 / 400, rel=1e-3)
    assert python[1] / fork[1] == pytest.approx(3450 / 420, rel=1e-3)
    assert bars(drawn, "books")[0] / fork[0] == pytest.approx(4020 / 400, rel=1e-3)


def test_every_stretch_of_the_connection_is_drawn(page: str) -> None:
    for kind in ("wide", "narrow"):
        drawn = picture(page, f"connection-{kind}")
        shown = sum(len(bars(drawn, ink)) for ink in ("fork", "process", "books", "serve", "wait"))
        # The label within a bar has paper below it, not ink.
        assert shown == len(lab_known.ladder()["connection"]["stretches"])
        (fork,), (start, *_) = bars(drawn, "fork"), sorted(bars(drawn, "process"))[::-1]
        assert fork / start == pytest.approx(680 / 1080, rel=1e-3)


def test_dots_are_where_their_ratios_are(page: str) -> None:
    drawn = picture(page, "peers-a-wide")
    one, eight, forty, thirty_two = marks(drawn, "serve")
    assert (forty - one) / (eight - one) == pytest.approx(math.log(40) / math.log(8), rel=1e-3)
    assert (thirty_two - one) / (eight - one) == pytest.approx(5 / 3, rel=1e-3)


def test_a_dot_alone_is_in_its_row(page: str) -> None:
    """What was measured and what was published have a row each."""
    drawn = picture(page, "article-a-wide")
    used = [one for one in drawn.iter(f"{SVG}use")
            if re.search(r"fill: var\(--(serve|fork)\)", one.get("style", ""))]  # fmt: skip
    heights = sorted(float(one.get("y", "")) for one in used)
    steps = [below - above for above, below in itertools.pairwise(heights)]
    assert len(steps) == 4
    assert max(steps) == pytest.approx(min(steps), abs=0.01)


def test_an_axis_on_a_phone_has_more_than_one_number(page: str) -> None:
    """From 300 to 5,000 there is one power of ten."""
    drawn = picture(page, "article-b-narrow")
    said = {one.text for one in drawn.iter(f"{SVG}text")}
    assert {"300", "1,000", "3,000"} <= said


def test_an_interval_has_no_digits_that_it_does_not_know() -> None:
    assert forms.interval(Estimate(0.0622, -7.45, 2.5091)) == "[-7.45, 2.51]"
    assert forms.interval(Estimate(400.0, 380.0, 420.0)) == "[380, 420]"
    assert forms.interval(Estimate(1.003, 0.995, 1.011)) == "[0.99, 1.01]"


def test_the_model_is_not_right_where_nothing_is_known() -> None:
    model = lab_known.model()
    model["cases"][0]["ratio"] = [3.76, None, None]
    model["cases"][1] |= {"ok": False, "ratio": [2.0, 1.9, 2.1]}
    tables = of_model.section(model).tables
    assert [row[2].text for row in tables[1].rows[:3]] == ["too few blocks to tell", "off",
                                                          "as predicted"]  # fmt: skip


def test_settings_are_there(page: str) -> None:
    assert row(page, "memory, MB") == "memory, MB 16,000"
    assert row(page, "blocks of ladder") == "blocks of ladder 8"
    assert row(page, "blocks of peers") == "blocks of peers 6"
    assert "What became of clients and servers; 100 more processes allowed" in words(page)
    captions = words(" ".join(re.findall(r"<caption>.*?</caption>", page)))
    assert captions.count("beside what was published") == 1


def test_the_models_points_are_drawn(page: str) -> None:
    small, master, large, huge = marks(picture(page, "model-wide"), "fork")
    assert (huge - large) / (master - small) == pytest.approx(
        math.log(260 / 27) / math.log(25 / 12), rel=1e-3
    )


def test_pictures_belong_to_the_page(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(ids)
    used, known = (set(re.findall(found, page)) for found in (r"var\(--(\w+)\)", r"--(\w+):"))
    assert used <= known
    assert "#fe0" not in page
    assert "DejaVu" not in page
    assert "<metadata" not in page
    for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert not list(root.iter(f"{SVG}style"))


def test_the_same_answer_is_the_same_page() -> None:
    assert only("load", lab_known.load()) == only("load", lab_known.load())


def test_all_data_is_in_it(page: str) -> None:
    found = re.search(r'<script type="application/json" id="raw">(.*?)</script>', page, re.DOTALL)
    assert found
    assert json.loads(found[1]) == lab_known.report()


def test_a_part_that_is_not_drawn_is_told() -> None:
    assert "not drawn here, but in the data below: climb" in words(only("climb", {"x": 1}))


def hostile() -> dict[str, Any]:
    """All that others may have named."""
    answer = copy.deepcopy(lab_known.report())
    peers, article = answer["parts"]["peers"], answer["parts"]["article"]
    for name in HOSTILE:
        peers["peers"].append({"name": name, "title": name, "version": name, "command": name,
                               "configuration": name, "notes": [name]})  # fmt: skip
        rows = peers["loads"]["ab"]["rows"]
        rows[name] = {**rows["nginx"], "failures": [name]}
        peers["latencies"].append({**peers["latencies"][0], "server": name})
        peers["void"].append(name)
    peers["loads"][SCRIPT] = {"about": SCRIPT, "reference": SCRIPT, "rows": rows}
    article["loads"] = {SCRIPT: article["loads"]["ab -n 1000 -c 100"]}
    answer["parts"]["ladder"]["titles"]["pyweb"] = SCRIPT
    answer["parts"]["ladder"]["steps"][0]["item"] = SCRIPT
    answer["machine"]["cpu"] = SCRIPT
    return answer


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = need("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


class Shown:
    """A page in a browser; what it asked for, and what it complained of."""

    def __init__(self, browser: Any, file: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(file.as_uri())
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/report-{width}-{scheme}.png", full_page=True)


@pytest.fixture
def browser_page(browser: Any, page: str, tmp_path: Path) -> Iterator[Any]:
    """Gives what opens a page: no request but for itself, no complaint."""
    opened: list[Shown] = []

    def show(width: int = 1280, scheme: str = "light", text: str = page) -> Any:
        file = tmp_path / "report.html"
        file.write_text(text, "utf-8")
        opened.append(Shown(browser, file, width, scheme))
        return opened[-1].page

    yield show
    for one in opened:
        one.context.close()
        assert [url for url in one.asked if not url.startswith("blob:")] == one.asked[:1]
        assert one.errors == []


FITS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_on_screens(browser_page: Any, width: int) -> None:
    shown = browser_page(width)
    needed, there = shown.evaluate(FITS)
    assert needed <= there
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    if width == 1280:
        assert shown.evaluate(f"{cut}.map(e => e.ariaLabel)") == []
    visible = shown.locator("figure svg:visible")
    assert visible.count() == shown.locator("figure").count()
    for kind in ("wide", "narrow"):
        is_shown = shown.locator(f"figure .{kind}").first.is_visible()
        assert is_shown == (kind == ("narrow" if width == 390 else "wide"))
    sizes = shown.evaluate(
        "[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())"
        ".map(s => 13 * s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
    )
    assert min(sizes) >= 12  # px of a label


# Of a text, against what is behind it: WCAG's contrast ratio.
CONTRASTS = """
([selector, mark]) => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
  };
  return [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility())
    .map((one) => {
      const a = light(getComputedStyle(one)[mark]), b = light(behind(one));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
}
"""
TEXTS = "p, h1, h2, li, a, th, td, small, caption, dt, dd, button, summary, .doubts h2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser_page: Any, page: str, scheme: str) -> None:
    both = page.replace("<nav", '<p class="quiet">Quiet</p><nav', 1)
    shown = browser_page(1280, scheme, both)
    for kind in (".doubts", ".quiet"):
        assert shown.locator(kind).is_visible()
    assert shown.locator("td.bad").count()
    assert min(shown.evaluate(CONTRASTS, [TEXTS, "color"])) >= 4.5
    for ink in ("ink", "faint"):
        selector = f"svg text[style*='--{ink}']"
        assert min(shown.evaluate(CONTRASTS, [selector, "fill"])) >= 4.5
    # What is filled may have text in the paper's colour on it.
    for ink in canvas.SERIES[:-1]:
        selector = f"svg path[style*='fill: var(--{ink})']"
        assert min(shown.evaluate(CONTRASTS, [selector, "fill"])) >= 4.5, ink


def test_dark_is_not_light(browser_page: Any) -> None:
    asked = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light, dark = (browser_page(1280, scheme).evaluate(asked) for scheme in ("light", "dark"))
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_a_table_is_copied(browser_page: Any) -> None:
    shown = browser_page()
    button = shown.locator("#taxes-section button")
    button.click()
    shown.wait_for_function(
        "document.querySelector('#taxes-section button').textContent == 'copied'"
    )
    lines = shown.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0].split("\t")[:4] == ["what", "by ladder, us", "by ladder, us low",
                                        "by ladder, us high"]  # fmt: skip
    assert lines[2] == "fork tax\t400\t380\t420\t0.1\t420\t399\t441\tthey agree"


def test_all_data_is_downloaded(browser_page: Any) -> None:
    shown = browser_page()
    with shown.expect_download() as found:
        shown.locator("#download").click()
    assert found.value.suggested_filename == "pyweb-report.json"
    assert json.loads(Path(found.value.path()).read_text("utf-8")) == lab_known.report()


def test_hostile_names_are_names(browser_page: Any) -> None:
    shown = browser_page(390, "light", render(hostile()))
    assert shown.title() == "pyweb: what a connection costs"
    assert shown.locator("script").count() == 2
    assert shown.locator("[onmouseover]").count() == 0
    for name in (SCRIPT, HOSTILE[1], HOSTILE[3]):
        assert shown.locator("tbody th", has_text=name).count(), name
    needed, there = shown.evaluate(FITS)
    assert needed <= there
