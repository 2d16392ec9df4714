"""The article's loads with `ab`: none fails, the server lives, and no zombie stays."""

from __future__ import annotations

import re
import subprocess

import pytest
from conftest import ServeFixture, Server, need, state_of, until

from pyweb.parse import ENGINES


def ab(server: Server, *options: str) -> dict[str, str]:
    """What ab reports, by the words before the colon."""
    command = [need("ab"), "-q", *options, f"{server.url}py-web-server"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([A-Z][^:]*):\s+(\S+)", done.stdout, re.MULTILINE))


@pytest.fixture
def page(site) -> None:  # type: ignore[no-untyped-def]
    """The article's page: 1320 bytes."""
    (site / "py-web-server").write_bytes(b"x" * 1320)


@pytest.mark.parametrize("keep_alive", [(), ("-k",)], ids=["connection each", "keep-alive"])
@pytest.mark.parametrize(
    ("engine", "requests"), [(ENGINES[0], "1000"), (ENGINES[0], "10000"), ("python", "1000")]
)
@pytest.mark.usefixtures("page")
def test_the_article_s_load(
    serve: ServeFixture, engine: str, requests: str, keep_alive: tuple[str, ...]
) -> None:
    server = serve("--engine", engine)
    report = ab(server, "-n", requests, "-c", "100", *keep_alive)
    assert report["Complete requests"] == requests
    assert report["Failed requests"] == "0"
    assert report["Document Length"] == "1320"
    assert report.get("Keep-Alive requests", "0") == (requests if keep_alive else "0")
    assert "Write errors" not in report
    assert server.process.poll() is None
    assert server.ask("/hello.txt").status == 200
    until(lambda: [p for p in server.children() if state_of(p) == "Z"] == [], "no zombie")
    assert len(server.wait_for_log(int(requests) + 1)) == int(requests) + 1


@pytest.mark.usefixtures("page")
def test_two_hundred_at_once(serve: ServeFixture) -> None:
    """Here the article's server was dead."""
    report = ab(serve(), "-n", "2000", "-c", "200")
    assert report["Failed requests"] == "0"


@pytest.mark.usefixtures("page")
def test_more_at_once_than_processes(serve: ServeFixture) -> None:
    """Backpressure: those over the limit wait, and none fails."""
    report = ab(serve("--max-connections", "8"), "-n", "2000", "-c", "300")
    assert report["Failed requests"] == "0"
    assert "Non-2xx responses" not in report
