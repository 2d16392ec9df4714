"""Static files: every promise of the answers layer, asked over real sockets where one can see it.

What is fine grain (dates, lists of tags, slices, weights, paths) is in test_clock, test_conditions,
test_ranges, test_negotiate and test_docroot; here it is seen to hang together.
"""

from __future__ import annotations

import contextlib
import ctypes
import email
import email.utils
import html
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urljoin, urlsplit

import pytest
from conftest import NOBODY, Answer, Client, ServeFixture, Server, make_site
from hypothesis import given, settings
from hypothesis import strategies as st
from unprivileged import as_nobody

from pyweb import static
from pyweb.clock import http_date, parse_http_date
from pyweb.docroot import READ, DocRoot
from pyweb.errors import HTTPError, Reason
from pyweb.message import Head, Response
from pyweb.ranges import MAX_RANGES
from pyweb.route import Router
from pyweb.static import StaticSite, decode

# Of every file in the site: a while ago, so that its second is over.
PAST = 1_700_000_000
BYTES = bytes(range(256)) * 40
NASTY = [
    b"<script>alert(1)<",
    b'"quotes"\'s',
    b"a&amp;b",
    b"50%25",
    b"a?b#c",
    b"a:b",
    b"back\\slash",
    b" spaces ",
    b"line\r\nSet-Cookie: x=1",
    b"latin-1 \xe9",
    "ü☕".encode(),
]
DIRECTORIES = [b"evil.example", b"\\evil.example", b"a\r\nSet-Cookie: x=1", *NASTY]


def make_odd_site(scratch: Path) -> Path:
    """make_site's, and all that needs care. Beside it: outside.txt, which nobody may get."""
    site = make_site(scratch)
    (scratch / "outside.txt").write_text("outside\n")
    (site / "bytes.bin").write_bytes(BYTES)
    (site / "names").mkdir()
    for name in NASTY:
        (Path(os.fsdecode(bytes(site / "names") + b"/" + name))).write_bytes(b"I am " + name)
    for name in DIRECTORIES:
        Path(os.fsdecode(bytes(site) + b"/" + name)).mkdir()
    for name in ("index-is-a-directory/index.html", "second-index", "odd.html.br", ".git"):
        (site / name).mkdir(parents=True)
    (site / "index-is-a-directory" / "index.htm").write_text("second\n")
    (site / "second-index" / "index.htm").write_text("second\n")
    (site / "sub" / ".hidden").write_text("secret\n")
    (site / "sub" / ".well-known").mkdir()
    (site / "sub" / ".well-known" / "x").write_text("secret\n")
    (site / ".git" / "config").write_text("secret\n")
    (site / ".well-known" / ".hidden").write_text("secret\n")
    for name, target in LINKS.items():
        (site / name).symlink_to(target)
    (site / "absolute.txt").symlink_to(site / "hello.txt")
    for name in ("odd.html", "odd.html.zst", "linked.html", "lib.js", "lib.js.gz"):
        (site / name).write_text(name)
    for name in ("same.html", "same.html.gz", "same.html.br", "same.html.zst"):
        (site / name).write_text("same")
    make_special(site)
    for path in site.rglob("*"):
        os.utime(path, (PAST, PAST), follow_symlinks=False)
    return site


LINKS = {
    "to-hello.txt": "hello.txt",
    "to-sub": "sub",
    "sub/up.txt": "../hello.txt",
    "out.txt": "../outside.txt",
    "out": "..",
    "in-again.txt": "../site/hello.txt",
    "loop": "loop",
    "dangling": "nowhere",
    "linked.html.gz": "../outside.txt",
    "linked.html.br": "page.html.br",
}


def make_special(site: Path) -> None:
    for name in ("fifo", "odd.html.gz", "sub/fifo"):
        os.mkfifo(site / name)
    with socket.socket(socket.AF_UNIX) as sock:
        at = os.open(site, os.O_PATH)
        sock.bind(f"/proc/self/fd/{at}/socket")
        os.close(at)
    with contextlib.suppress(PermissionError):
        os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(site / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))


@pytest.fixture(scope="module")
def odd_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_odd_site(tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="module")
def server(odd_site: Path) -> Iterator[Server]:
    """One server for all that only reads."""
    made = Server(odd_site, odd_site.parent / "server")
    yield made
    assert made.stop() == 0
    assert "Traceback" not in made.stderr()


# ---- without a socket: to see reasons, and to be somebody else -----------------------------------


@pytest.fixture
def root(odd_site: Path) -> Iterator[DocRoot]:
    found = DocRoot(str(odd_site))
    yield found
    found.close()


def respond(
    root: DocRoot, target: str, *fields: tuple[bytes, bytes], method: bytes = b"GET"
) -> Response:
    """The router's answer, its files closed."""
    path, mark, query = target.encode().partition(b"?")
    head = Head(method, target.encode(), 1, fields, path=path, query=query if mark else None)
    site = StaticSite(root, (b"index.html", b"index.htm"), False)
    response = Router(site).answer(head)
    for fd in response.files:
        os.close(fd)
    return response


def field(response: Response, name: bytes) -> bytes | None:
    return dict(response.fields).get(name)


# ---- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("target", ["/hello.txt", "/sub/", "/nothing"])
def test_methods_that_a_file_has_not(server: Server, method: str, target: str) -> None:
    answer = server.ask(target, method=method)
    assert answer.status == 405
    assert answer["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["PROPFIND", "BREW", "get", "GETS", "X"])
def test_methods_that_nobody_knows(server: Server, method: str) -> None:
    assert server.ask("/hello.txt", method=method).status == 501


@pytest.mark.parametrize("target", ["*", "/", "/hello.txt", "/nothing"])
def test_options(server: Server, target: str) -> None:
    answer = server.ask(target, method="OPTIONS")
    assert answer.status == 204
    assert answer["allow"] == "GET, HEAD, OPTIONS"
    assert answer.get("content-length") is None


# ---- files and their fields ----------------------------------------------------------------------


def test_a_file(server: Server) -> None:
    answer = server.ask("/hello.txt")
    assert answer.status == 200
    assert answer.body == b"hello, world\n"
    assert answer["content-length"] == "13"
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["accept-ranges"] == "bytes"
    assert answer["last-modified"].encode() == http_date(PAST)
    assert re.fullmatch(r'"[!#-~]+"', answer["etag"])
    assert answer.get("vary") is None
    assert answer.get("content-encoding") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.TXT", "text/plain; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.wasm", "application/wasm"),
        ("a.unheard-of", "application/octet-stream"),
        ("no-extension", "application/octet-stream"),
        ("a.tar.gz", "application/gzip"),
    ],
)
def test_types(serve: ServeFixture, site: Path, name: str, expected: str) -> None:
    (site / name).write_bytes(b"<html>")
    answer = serve().ask(f"/{name}")
    assert answer["content-type"] == expected
    assert answer["x-content-type-options"] == "nosniff"


# Around what is sent by copy or by sendfile, and around what fits into a socket at once.
SIZES = [0, 1, 1000, 32767, 32768, 32769, 65536, 1 << 20, 9_999_999]


def numbered(size: int) -> bytes:
    """Bytes that show where they belong, also beyond the first megabyte."""
    block = b"".join(b"%07d\n" % n for n in range(4096))
    return b"".join(block + b"%020d" % n for n in range(size // len(block) + 1))[:size]


def test_all_sizes(serve: ServeFixture, site: Path, engine: str) -> None:
    server = serve("--engine", engine)
    with server.connect() as client:
        for size in SIZES:
            content = numbered(size)
            (site / "sized").write_bytes(content)
            client.send(b"GET /sized HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = client.answer()
            assert answer["content-length"] == str(size)
            assert answer.body == content


def test_an_empty_file(server: Server) -> None:
    answer = server.ask("/empty.txt")
    assert (answer.status, answer["content-length"], answer.body) == (200, "0", b"")
    assert server.ask("/empty.txt", "Range: bytes=0-")["content-range"] == "bytes */0"
    assert server.ask("/empty.txt", "Range: bytes=-5").status == 200


FOUND = {
    "/space%20and%20%C3%BC.txt": b"odd name\n",
    "/%68%65llo.txt": b"hello, world\n",
    "/hello%2etxt": b"hello, world\n",
    "//hello.txt": b"hello, world\n",
    "///sub///one.txt": b"one\n",
    "/sub/./one.txt": b"one\n",
    "/sub/../hello.txt": b"hello, world\n",
    "/sub/%2e%2e/hello.txt": b"hello, world\n",
    "/hello.txt?anything=%zz": b"hello, world\n",
    "/to-hello.txt": b"hello, world\n",
    "/to-sub/one.txt": b"one\n",
    "/to-sub/up.txt": b"hello, world\n",
    "/.well-known/security.txt": b"Contact: mailto:x@example.org\n",
    "/%2ewell-known/security.txt": b"Contact: mailto:x@example.org\n",
    "http://evil.example/hello.txt": b"hello, world\n",
}


@pytest.mark.parametrize("target", FOUND)
def test_found(server: Server, target: str) -> None:
    answer = server.ask(target)
    assert (answer.status, answer.body) == (200, FOUND[target])


R = Reason
REFUSED: dict[str, Reason] = {
    "/nothing": R.NOT_FOUND,
    "/nothing/": R.NOT_FOUND,
    "/sub/nothing/../one.txt": R.NOT_FOUND,
    "/hello.txt/": R.NOT_FOUND,
    "/hello.txt/x": R.NOT_FOUND,
    "/hello.txt/.": R.NOT_FOUND,
    "/hello.txt/..": R.NOT_FOUND,
    "/" + "n" * 256: R.NOT_FOUND,
    "/" + "n/" * 2500: R.NOT_FOUND,
    "/loop": R.NOT_FOUND,
    "/loop/": R.NOT_FOUND,
    "/dangling": R.NOT_FOUND,
    "/sub\\one.txt": R.NOT_FOUND,
    # An encoded slash is no separator.
    "/sub%2Fone.txt": R.NOT_FOUND,
    "/sub%2fone.txt": R.NOT_FOUND,
    "/%2e%2e%2foutside.txt": R.NOT_FOUND,
    "/%2Fetc/passwd": R.NOT_FOUND,
    # Encoded once, decoded once.
    "/%2568ello.txt": R.NOT_FOUND,
    # Outside.
    "/..": R.OUTSIDE_ROOT,
    "/../": R.OUTSIDE_ROOT,
    "/../outside.txt": R.OUTSIDE_ROOT,
    "/%2e%2e/outside.txt": R.OUTSIDE_ROOT,
    "/.%2e/outside.txt": R.OUTSIDE_ROOT,
    "/sub/../../outside.txt": R.OUTSIDE_ROOT,
    "/../site/hello.txt": R.OUTSIDE_ROOT,
    "/out.txt": R.OUTSIDE_ROOT,
    "/out/": R.OUTSIDE_ROOT,
    "/out/outside.txt": R.OUTSIDE_ROOT,
    "/in-again.txt": R.OUTSIDE_ROOT,
    "/absolute.txt": R.OUTSIDE_ROOT,
    # Hidden.
    "/.hidden": R.HIDDEN,
    "/%2ehidden": R.HIDDEN,
    "/%2Ehidden": R.HIDDEN,
    "//.hidden": R.HIDDEN,
    "/.git/": R.HIDDEN,
    "/.git/config": R.HIDDEN,
    "/sub/../.git/config": R.HIDDEN,
    "/.well-known/../.git/config": R.HIDDEN,
    "/sub/.hidden": R.HIDDEN,
    "/sub/.well-known/x": R.HIDDEN,
    "/.well-known/.hidden": R.HIDDEN,
    "/.not-there": R.HIDDEN,
    "/...": R.HIDDEN,
    # Percent-encoding that stands for no path.
    "/%00": R.PATH_ENCODING,
    "/hello.txt%00": R.PATH_ENCODING,
    "/hello.txt%00.html": R.PATH_ENCODING,
    "/%zz": R.PATH_ENCODING,
    "/%": R.PATH_ENCODING,
    "/%4": R.PATH_ENCODING,
    "/a%%41": R.PATH_ENCODING,
    "/%u0041": R.PATH_ENCODING,
    "/%+1": R.PATH_ENCODING,
    # Not a file.
    "/fifo": R.NOT_A_FILE,
    "/sub/fifo": R.NOT_A_FILE,
    "/socket": R.NOT_A_FILE,
}


@pytest.mark.parametrize("target", REFUSED)
def test_refused(server: Server, root: DocRoot, target: str) -> None:
    answer = server.ask(target)
    assert answer.status == REFUSED[target].status
    assert b"secret" not in answer.body
    assert b"outside\n" not in answer.body
    assert respond(root, target).reason == REFUSED[target]


def test_statuses_of_the_contract() -> None:
    assert {r: r.status for r in set(REFUSED.values())} == {
        R.NOT_FOUND: 404,
        R.OUTSIDE_ROOT: 404,
        R.HIDDEN: 404,
        R.PATH_ENCODING: 400,
        R.NOT_A_FILE: 403,
    }


@pytest.mark.parametrize("name", ["null", "zero"])
def test_devices_are_refused(server: Server, odd_site: Path, name: str) -> None:
    if not (odd_site / name).exists():
        pytest.skip("no device nodes without rights")
    answer = server.ask(f"/{name}")
    assert answer.status == 403
    assert answer.get("etag") is None


IN_OPEN = 0x20


@contextlib.contextmanager
def watch(path: Path) -> Iterator[int]:
    """A descriptor of inotify that becomes readable when somebody opens `path`."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    try:
        assert libc.inotify_add_watch(fd, bytes(path), IN_OPEN) >= 0
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["fifo", "null", "odd.html.gz"])
def test_what_is_no_file_is_not_even_opened(root: DocRoot, odd_site: Path, name: str) -> None:
    """A reader of a FIFO wakes its writer, and kills it by leaving; some devices act on open."""
    if not (odd_site / name).exists():
        pytest.skip("no device nodes without rights")
    with watch(odd_site / name) as opened:
        respond(root, f"/{name}")
        respond(root, "/odd.html", (b"accept-encoding", b"gzip"))
        with pytest.raises(BlockingIOError):
            os.read(opened, 4096)
        os.close(os.open(odd_site / name, READ))
        assert os.read(opened, 4096)


def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(
    root: DocRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the open anything may happen to a name."""
    real = DocRoot.open

    def open_later(self: DocRoot, path: bytes, flags: int = READ) -> int:
        return real(self, b"fifo" if flags == READ else path, flags)

    monkeypatch.setattr(DocRoot, "open", open_later)
    assert respond(root, "/hello.txt").reason == Reason.NOT_A_FILE


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/<script>alert(1)</script>",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/%zz<script>",
        "/.<script>",
        "/nothing?<script>alert(1)</script>",
        '/"onmouseover="alert(1)<script>',
    ],
)
def test_error_pages_repeat_nothing(server: Server, target: str) -> None:
    for line in ("User-Agent: <script>", "<script>: 1", "Host: <script>"):
        answer = server.ask(target, line)
        assert answer.status in (400, 404)
        assert b"<script" not in answer.body
        assert b"alert" not in answer.body
        check_error(answer)


def check_error(answer: Answer) -> None:
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["content-security-policy"].startswith("default-src 'none'")
    assert str(answer.status).encode() in answer.body
    assert answer.get("etag") is None
    assert answer.get("last-modified") is None
    assert answer.get("accept-ranges") is None


@pytest.mark.parametrize("target", ["/nothing", "/%zz", "/fifo", "/.hidden"])
def test_errors(server: Server, target: str) -> None:
    check_error(server.ask(target))


# A name that a file system can't hold is no such file; trouble of ours is ours.
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("EILSEQ", R.NOT_FOUND),
        ("EINVAL", R.NOT_FOUND),
        ("ESTALE", R.NOT_FOUND),
        ("EACCES", R.FORBIDDEN),
        ("EMFILE", R.OUT_OF_DESCRIPTORS),
        ("ENFILE", R.OUT_OF_DESCRIPTORS),
        ("ENOMEM", R.OUT_OF_DESCRIPTORS),
        ("ENXIO", R.NOT_A_FILE),
        ("EIO", R.STORAGE),
    ],
)
def test_the_meaning_of_an_errno(
    root: DocRoot, monkeypatch: pytest.MonkeyPatch, number: str, reason: Reason
) -> None:
    def fail(*_: object) -> int:
        raise OSError(getattr(static.errno, number), number)

    monkeypatch.setattr(DocRoot, "open", fail)
    assert respond(root, "/hello.txt").reason == reason


# ---- directories: index and redirect -------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/", b"<!DOCTYPE html><title>home</title>\n"),
        ("//", b"<!DOCTYPE html><title>home</title>\n"),
        ("/./", b"<!DOCTYPE html><title>home</title>\n"),
        ("/sub/../", b"<!DOCTYPE html><title>home</title>\n"),
        ("/?query", b"<!DOCTYPE html><title>home</title>\n"),
        ("/with-index/", b"<p>inside\n"),
        ("/second-index/", b"second\n"),
        ("/index-is-a-directory/", b"second\n"),
    ],
)
def test_index(server: Server, target: str, body: bytes) -> None:
    answer = server.ask(target)
    assert (answer.status, answer.body) == (200, body)
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer["etag"]


def test_index_by_option(serve: ServeFixture, site: Path) -> None:
    (site / "sub" / "start.txt").write_text("start\n")
    (site / "with-index" / "other.json").write_text("{}")
    server = serve("--index", "start.txt,other.json")
    assert server.ask("/sub/").body == b"start\n"
    assert server.ask("/with-index/")["content-type"] == "application/json"
    assert b"index.html" in server.ask("/").body  # listed: no index now


def test_without_an_index_at_all(serve: ServeFixture) -> None:
    assert b"hello.txt" in serve("--index", "").ask("/").body


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub/deep", "/sub/deep/"),
        ("/to-sub", "/to-sub/"),
        ("/sub?a=b&c=%20", "/sub/?a=b&c=%20"),
        ("/sub?", "/sub/?"),
        ("/sub?//evil.example", "/sub/?//evil.example"),
        ("/sub?a?b", "/sub/?a?b"),
        ("/%73ub", "/sub/"),
        ("/sub/.", "/sub/./"),
        ("/sub/deep/..", "/sub/deep/../"),
        ("/.well-known", "/.well-known/"),
        # No host but ours, no field but this.
        ("//sub", "/sub/"),
        ("///sub", "/sub/"),
        ("//evil.example", "/evil.example/"),
        ("//evil.example/..", "/evil.example/../"),
        ("//evil.example/%2e%2e", "/evil.example/../"),
        ("/\\evil.example", "/%5Cevil.example/"),
        ("/%5Cevil.example", "/%5Cevil.example/"),
        ("/%5cevil.example/..", "/%5Cevil.example/../"),
        ("/a%0d%0aSet-Cookie:%20x=1", "/a%0D%0ASet-Cookie:%20x=1/"),
        ("/a%3Fb%23c", "/a%3Fb%23c/"),
        ("/50%2525", "/50%2525/"),
        ("/latin-1%20%e9", "/latin-1%20%E9/"),
        ("http://evil.example/sub", "/sub/"),
        ("http://evil.example//sub?x", "/sub/?x"),
    ],
)
def test_redirect(server: Server, target: str, location: str) -> None:
    answer = server.ask(target)
    assert answer.status == 301
    assert answer["location"] == location
    assert answer["content-length"] == "0"
    assert answer.get("set-cookie") is None
    there = urlsplit(urljoin("http://test/here/", location))
    assert (there.scheme, there.netloc) == ("http", "test")
    # A browser takes "\" for "/": none is left.
    assert not re.search(r"[\\\x00-\x20\x7f-\xff]", location)
    assert server.ask(location).status == 200


SEGMENT = st.binary(min_size=1, max_size=12).filter(
    lambda s: b"/" not in s and b"\0" not in s and not static._is_hidden(s)
)


@given(st.lists(SEGMENT, min_size=1, max_size=5), st.booleans())
def test_a_location_leads_to_the_same_segments(segments: list[bytes], slash: bool) -> None:
    encoded = "/".join(map(quote_from_bytes, segments)).encode()
    target = decode(b"/" + encoded + (b"/" if slash else b""))
    assert target.segments == segments
    assert target.is_directory is slash
    location = target.location(b"q?//")
    path, _, query = location.partition(b"?")
    assert query == b"q?//"
    assert re.fullmatch(rb"/(?!/)[!-\[\]-~]*/", path)
    assert decode(path).segments == segments


@given(st.binary(max_size=40) | st.text("/%.2eEfF05c\\abz", max_size=40).map(str.encode))
def test_decode_anything(path: bytes) -> None:
    try:
        target = decode(b"/" + path)
    except HTTPError:
        return
    whole = [s for s in map(unquote_to_bytes, path.split(b"/")) if s]
    assert target.segments == [s for s in whole[:-1] if s != b"."] + whole[-1:]
    for place, segment in enumerate(target.segments):
        assert b"/" not in segment
        assert b"\0" not in segment
        hidden = segment.startswith(b".") and segment not in (b".", b"..")
        assert not hidden or (place, segment) == (0, b".well-known")


# ---- directories: listing ------------------------------------------------------------------------


def links_of(page: bytes) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'<a href="([^"]*)"', page.decode())]


def entries_of(page: bytes) -> list[str]:
    return [link[2:] for link in links_of(page) if link.startswith("./")]


def test_listing(server: Server) -> None:
    answer = server.ask("/sub/")
    assert answer.status == 200
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer["content-security-policy"].startswith("default-src 'none'")
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["vary"] == "Accept"
    assert entries_of(answer.body) == ["deep/", "one.txt", "up.txt"]
    assert "../" in links_of(answer.body)


def test_each_name_is_a_link_that_works(server: Server) -> None:
    page = server.ask("/names/").body
    found = [server.ask(urljoin("/names/", link)) for link in map("./{}".format, entries_of(page))]
    assert sorted(a.body for a in found) == sorted(b"I am " + name for name in NASTY)
    assert b"<script>" not in page
    assert b"\r" not in page


def test_what_is_listed_is_what_is_served(serve: ServeFixture, tmp_path: Path) -> None:
    """No hidden ones, no links that leave, no FIFOs; and each one that is there answers."""
    server = serve("--index", "", directory=make_odd_site(tmp_path / "odd"))
    names = entries_of(server.ask("/").body)
    there = {"hello.txt", "to-hello.txt", "to-sub/", "page.html.gz", ".well-known/", "sub/"}
    not_there = {
        *("out.txt", "out/", "out", "in-again.txt", "absolute.txt", "loop", "dangling"),
        *("fifo", "socket", "null", "zero", ".hidden", ".git/", "linked.html.gz", "odd.html.gz"),
    }
    assert there <= set(names)
    assert not not_there & set(names)
    for name in names:
        assert server.ask(f"/{name}").status == 200


def test_well_known_is_listed_at_the_root_alone(serve: ServeFixture, site: Path) -> None:
    (site / "index.html").unlink()
    (site / "sub" / ".well-known").mkdir()
    server = serve()
    assert ".well-known/" in entries_of(server.ask("/").body)
    assert ".well-known/" not in entries_of(server.ask("/sub/").body)
    assert "../" not in links_of(server.ask("/").body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["deep/", "a.txt", "b.txt", "one.txt"]),
        ("?sort=name", ["deep/", "a.txt", "b.txt", "one.txt"]),
        ("?sort=name&order=desc", ["deep/", "one.txt", "b.txt", "a.txt"]),
        ("?sort=size", ["deep/", "b.txt", "one.txt", "a.txt"]),
        ("?sort=size&order=desc", ["deep/", "a.txt", "one.txt", "b.txt"]),
        ("?sort=date", ["deep/", "one.txt", "a.txt", "b.txt"]),
        ("?order=desc&sort=date", ["deep/", "b.txt", "a.txt", "one.txt"]),
        ("?sort=nothing", ["deep/", "a.txt", "b.txt", "one.txt"]),
        ("?xsort=size", ["deep/", "a.txt", "b.txt", "one.txt"]),
        ("?sort=sizes", ["deep/", "a.txt", "b.txt", "one.txt"]),
    ],
)
def test_order(serve: ServeFixture, site: Path, query: str, expected: list[str]) -> None:
    (site / "sub" / "a.txt").write_bytes(b"x" * 100)
    (site / "sub" / "b.txt").write_bytes(b"")
    for number, name in enumerate(("one.txt", "a.txt", "b.txt")):
        os.utime(site / "sub" / name, (PAST + number, PAST + number))
    server = serve()
    assert entries_of(server.ask(f"/sub/{query}").body) == expected
    listed = json.loads(server.ask(f"/sub/{query}", "Accept: application/json").body)
    assert [item["name"] for item in listed] == [name.rstrip("/") for name in expected]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json;q=0.5, */*", "text/html; charset=utf-8"),
        ("image/png", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
    ],
)
def test_listing_by_accept(server: Server, accept: str | None, expected: str) -> None:
    answer = server.ask("/sub/", *([f"Accept: {accept}"] if accept else []))
    assert answer["content-type"] == expected
    assert answer["vary"] == "Accept"


def test_listing_in_json(server: Server) -> None:
    answer = server.ask("/names/", "Accept: application/json")
    found = {os.fsencode(item["name"]): item for item in json.loads(answer.body)}
    assert set(found) == set(NASTY)
    assert found[b"a:b"] == {
        "name": "a:b",
        "type": "file",
        "size": 8,
        "mtime": "2023-11-14T22:13:20Z",
    }


def test_no_listing(serve: ServeFixture) -> None:
    server = serve("--no-listing")
    assert server.ask("/sub/").status == 403
    assert server.ask("/sub/", "Accept: application/json").status == 403
    assert server.ask("/with-index/").status == 200
    assert server.ask("/nothing/").status == 404
    assert server.ask("/hello.txt/").status == 404
    assert server.wait_for_log(1)[0].endswith(f" {R.LISTING_OFF:d}")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("If-None-Match: *", 304),
        ('If-None-Match: "x"', 200),
        ("If-Match: *", 200),
        ('If-Match: "x"', 412),
        ("If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT", 200),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("Range: bytes=0-1", 200),
    ],
)
def test_conditions_on_a_listing(server: Server, line: str, status: int) -> None:
    """It has no validators, and no ranges (RFC 9110 13.2.1, 14.2)."""
    answer = server.ask("/sub/", line)
    assert answer.status == status
    if status == 304:
        assert answer["vary"] == "Accept"


# ---- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/hello.txt", "/sub/", "/sub", "/nothing", "/%zz", "/fifo"])
def test_date(server: Server, target: str) -> None:
    before = int(time.time())
    answer = server.ask(target)
    date = parse_http_date(answer["date"].encode())
    assert date is not None
    assert before <= date <= int(time.time())
    assert email.utils.parsedate_to_datetime(answer["date"]).timestamp() == date


def modified_of(answer: Answer) -> int:
    found = parse_http_date(answer["last-modified"].encode())
    assert found is not None
    return found


def test_last_modified_is_never_in_the_future(serve: ServeFixture, site: Path) -> None:
    future = time.time() + 365 * 86400
    os.utime(site / "hello.txt", (future, future))
    answer = serve().ask("/hello.txt")
    assert modified_of(answer) <= (parse_http_date(answer["date"].encode()) or 0)


BILLION = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (PAST * BILLION, PAST),
        # A float would round it up to the next second, which the file has not seen.
        (PAST * BILLION + 999_999_999, PAST),
        (0, 0),
        (-1, -1),
        (-86400 * BILLION, -86400),
        # What no HTTP date can write; some file systems hold it.
        (-62135596801 * BILLION, -62135596800),
        (-(1 << 62) * BILLION, -62135596800),
    ],
)
def test_last_modified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nanoseconds: int, expected: int
) -> None:
    (tmp_path / "file").write_text("x")
    root = DocRoot(str(tmp_path))
    real = os.fstat

    class Status:
        def __init__(self, fd: int) -> None:
            status = real(fd)
            self.st_mode, self.st_size = status.st_mode, status.st_size
            self.st_mtime_ns, self.st_mtime = nanoseconds, nanoseconds / 1e9

    monkeypatch.setattr(static.os, "fstat", Status)
    try:
        response = respond(root, "/file")
        assert field(response, b"Last-Modified") == http_date(expected)
        assert re.fullmatch(rb'"[!#-~]+"', field(response, b"ETag") or b"")
    finally:
        root.close()


# ---- entity tags ---------------------------------------------------------------------------------


def test_a_tag_lasts_as_long_as_the_content(serve: ServeFixture, site: Path) -> None:
    server = serve()
    first = server.ask("/hello.txt")["etag"]
    assert server.ask("/hello.txt")["etag"] == first
    (site / "hello.txt").write_bytes(b"HELLO, WORLD\n")
    os.utime(site / "hello.txt", ns=(0, PAST * BILLION))
    second = server.ask("/hello.txt")["etag"]
    os.utime(site / "hello.txt", ns=(0, PAST * BILLION + 1))
    third = server.ask("/hello.txt")["etag"]
    with (site / "hello.txt").open("ab") as file:
        file.write(b"more")
    os.utime(site / "hello.txt", ns=(0, PAST * BILLION + 1))
    fourth = server.ask("/hello.txt")["etag"]
    assert len({first, second, third, fourth}) == 4


def test_copies_on_two_servers_have_one_tag(
    serve: ServeFixture, site: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for directory in (site, other):
        (directory / "same.txt").write_text("same")
        os.utime(directory / "same.txt", ns=(0, PAST * BILLION + 5))
    tags = {serve(directory=d).ask("/same.txt")["etag"] for d in (site, other)}
    assert len(tags) == 1


# ---- conditions ----------------------------------------------------------------------------------


def etag_of(server: Server, target: str, *fields: str) -> str:
    return server.ask(target, *fields, method="HEAD")["etag"]


SAME, OLDER = http_date(PAST).decode(), http_date(PAST - 1).decode()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["If-None-Match: {etag}"], 304),
        (["If-None-Match: W/{etag}"], 304),
        (['If-None-Match: "x", {etag}'], 304),
        (['If-None-Match: "x"', "If-None-Match: {etag}"], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x"'], 200),
        (["If-Modified-Since: {same}"], 304),
        (["If-Modified-Since: {older}"], 200),
        (["If-Modified-Since: nonsense"], 200),
        (['If-None-Match: "x"', "If-Modified-Since: {same}"], 200),
        (["If-None-Match: {etag}", "If-Modified-Since: {older}"], 304),
        (["If-Match: {etag}"], 200),
        (["If-Match: W/{etag}"], 412),
        (['If-Match: "x"'], 412),
        (["If-Unmodified-Since: {older}"], 412),
        (["If-Unmodified-Since: {same}"], 200),
        (["If-Match: {etag}", "If-Unmodified-Since: {older}"], 200),
        (['If-Match: "x"', "If-None-Match: {etag}"], 412),
        # Conditions before ranges (13.2.2 step 5).
        (["If-None-Match: {etag}", "Range: bytes=0-0"], 304),
        (['If-Match: "x"', "Range: bytes=0-0"], 412),
        (["If-Match: {etag}", "Range: bytes=0-0"], 206),
        (["If-None-Match: {etag}", "Range: bytes=99-"], 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(server: Server, lines: list[str], status: int, method: str) -> None:
    etag = etag_of(server, "/hello.txt")
    fields = [line.format(etag=etag, same=SAME, older=OLDER) for line in lines]
    answer = server.ask("/hello.txt", *fields, method=method)
    assert answer.status == (200 if (status, method) == (206, "HEAD") else status)


def test_not_modified_says_what_a_cache_needs(server: Server) -> None:
    """RFC 9110 15.4.5: ETag, Vary, Date; no length, which would be the 200's; no content."""
    etag = etag_of(server, "/page.html")
    with server.connect() as client:
        client.send(f"GET /page.html HTTP/1.1\r\nHost: h\r\nIf-None-Match: {etag}\r\n\r\n".encode())
        answer = client.answer()
        client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.answer().body == b"hello, world\n"
    assert answer.status == 304
    assert {name.lower() for name, _ in answer.fields} == {"date", "server", "etag", "vary"}
    assert answer["etag"] == etag


def test_conditions_do_not_hide_an_error(server: Server) -> None:
    """13.2.1: ignored where the answer would be no 2xx without them."""
    for target, status in (("/nothing", 404), ("/sub", 301), ("/fifo", 403)):
        assert server.ask(target, "If-None-Match: *").status == status
        assert server.ask(target, 'If-Match: "x"').status == status
    assert server.ask("/hello.txt", 'If-Match: "x"', method="OPTIONS").status == 204


# ---- ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 10240),
        ("bytes=-100", 10140, 10240),
        ("bytes=-99999", 0, 10240),
        ("bytes=10239-99999", 10239, 10240),
        ("bytes=99999-,5-6", 5, 7),
    ],
)
def test_one_range(server: Server, value: str, start: int, end: int) -> None:
    answer = server.ask("/bytes.bin", f"Range: {value}")
    assert answer.status == 206
    assert answer["content-range"] == f"bytes {start}-{end - 1}/10240"
    assert answer["content-length"] == str(end - start)
    assert answer["content-type"] == "application/octet-stream"
    assert answer.body == BYTES[start:end]
    whole = server.ask("/bytes.bin")
    assert answer["etag"] == whole["etag"]
    assert answer["last-modified"] == whole["last-modified"]


@pytest.mark.parametrize("value", ["bytes=5-4", "lines=0-1", "bytes=", "bytes=0-0;1-1", "0-1"])
def test_ranges_that_mean_nothing(server: Server, value: str) -> None:
    answer = server.ask("/bytes.bin", f"Range: {value}")
    assert (answer.status, answer.body) == (200, BYTES)
    assert answer.get("content-range") is None


@pytest.mark.parametrize(
    "value", ["bytes=10240-", "bytes=-0", "bytes=10240-,99999-", "bytes=-0,-0"]
)
def test_no_byte_of_the_range(server: Server, value: str) -> None:
    answer = server.ask("/bytes.bin", f"Range: {value}")
    assert answer.status == 416
    assert answer["content-range"] == "bytes */10240"
    check_error(answer)


def parts_of(answer: Answer) -> list[tuple[str, str, bytes]]:
    """(Content-Range, Content-Type, content) of each, as a mail program reads them."""
    head = f"Content-Type: {answer['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.is_multipart()
    assert not message.defects
    return [
        (part["content-range"], part["content-type"], part.get_payload(decode=True))
        for part in message.get_payload()
    ]


def test_several_ranges(engine: str, serve: ServeFixture, site: Path) -> None:
    (site / "bytes.bin").write_bytes(BYTES)
    answer = serve("--engine", engine).ask("/bytes.bin", "Range: bytes=0-9, -300,256-511,99999-")
    assert answer.status == 206
    assert re.fullmatch(r"multipart/byteranges; boundary=\w+", answer["content-type"])
    assert answer.get("content-range") is None  # 15.3.7.2: MUST NOT
    kind = "application/octet-stream"
    assert parts_of(answer) == [
        ("bytes 0-9/10240", kind, BYTES[:10]),
        ("bytes 9940-10239/10240", kind, BYTES[-300:]),
        ("bytes 256-511/10240", kind, BYTES[256:512]),
    ]


def test_several_ranges_of_a_large_file(serve: ServeFixture, site: Path, engine: str) -> None:
    """By sendfile, with headers between."""
    content = numbered(8 << 20)
    (site / "large.txt").write_bytes(content)
    server = serve("--engine", engine)
    answer = server.ask("/large.txt", "Range: bytes=0-2999999,5000000-5000000,4000000-7999999")
    assert [part[2] for part in parts_of(answer)] == [
        content[:3000000],
        content[5000000:5000001],
        content[4000000:8000000],
    ]
    assert {part[1] for part in parts_of(answer)} == {"text/plain; charset=utf-8"}


def test_each_boundary_is_new(server: Server) -> None:
    asked = [server.ask("/bytes.bin", "Range: bytes=0-0,2-2")["content-type"] for _ in range(3)]
    assert len(set(asked)) == 3


@pytest.mark.parametrize(
    ("ranges", "status"),
    [
        ([f"{n * 10}-{n * 10}" for n in range(MAX_RANGES)], 206),
        ([f"{n * 10}-{n * 10}" for n in range(MAX_RANGES + 1)], 200),
        (["0-"] * 2, 200),
        (["0-", "0-0"], 200),
        (["0-9999", "-240"], 206),
        (["0-5119", "2560-7679"], 206),
        (["0-5120", "0-5120"], 200),
    ],
)
def test_never_more_than_the_file(server: Server, ranges: list[str], status: int) -> None:
    answer = server.ask("/bytes.bin", f"Range: bytes={','.join(ranges)}")
    assert answer.status == status
    if status == 200:
        assert answer.body == BYTES
    assert len(answer.body) < len(BYTES) + 200 * MAX_RANGES


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("{etag}", 206),
        ("W/{etag}", 200),
        ('"x"', 200),
        ("{same}", 206),
        ("{older}", 200),
        ("nonsense", 200),
    ],
)
def test_if_range(server: Server, value: str, status: int) -> None:
    line = "If-Range: " + value.format(
        etag=etag_of(server, "/bytes.bin"), same=SAME, older=OLDER
    )  # fmt: skip
    answer = server.ask("/bytes.bin", line, "Range: bytes=1-2")
    assert answer.status == status
    assert answer.body == (BYTES[1:3] if status == 206 else BYTES)
    # The representation has changed: that no byte of the range exists is no matter either.
    unsatisfiable = server.ask("/bytes.bin", line, "Range: bytes=99999-")
    assert unsatisfiable.status == (416 if status == 206 else 200)
    assert server.ask("/bytes.bin", line).status == 200


def test_head_ignores_ranges(server: Server) -> None:
    for value in ("bytes=0-0", "bytes=0-0,2-2", "bytes=99999-"):
        answer = server.ask("/bytes.bin", f"Range: {value}", method="HEAD")
        assert (answer.status, answer["content-length"]) == (200, "10240")
        assert answer.get("content-range") is None


# ---- HEAD ----------------------------------------------------------------------------------------

ASKED: list[tuple[str, list[str]]] = [
    ("/", []),
    ("/hello.txt", []),
    ("/empty.txt", []),
    ("/bytes.bin", []),
    ("/page.html", []),
    ("/page.html", ["Accept-Encoding: gzip"]),
    ("/page.html", ["Accept-Encoding: identity;q=0, x"]),
    ("/hello.txt", ["If-None-Match: *"]),
    ("/hello.txt", ['If-Match: "x"']),
    ("/sub/", []),
    ("/names/", ["Accept: application/json"]),
    ("/sub/", ["If-None-Match: *"]),
    ("/sub", []),
    ("/nothing", []),
    ("/.hidden", []),
    ("/fifo", []),
    ("/%zz", []),
    ("/%00", []),
]


@pytest.mark.parametrize(("target", "fields"), ASKED)
def test_head_is_get_without_the_content(server: Server, target: str, fields: list[str]) -> None:
    answers = [server.ask(target, *fields, method=method) for method in ("GET", "HEAD")]
    get, head = ([f for f in a.fields if f[0] != "Date"] for a in answers)
    assert head == get
    assert answers[0].status == answers[1].status


@pytest.mark.parametrize("target", ["/hello.txt", "/sub/", "/sub", "/nothing", "/fifo"])
def test_nothing_follows_the_header(server: Server, target: str) -> None:
    with server.connect() as client:
        client.send(f"HEAD {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        client.answer("HEAD")
        assert client.rest() == b""


# ---- precompressed neighbours --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, deflate, zstd", "zstd"),
        ("gzip, br;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("deflate", None),
        ("*", "br"),
        ("*;q=0, gzip", "gzip"),
    ],
)
def test_neighbours(server: Server, odd_site: Path, accept: str | None, coding: str | None) -> None:
    answer = server.ask("/page.html", *([] if accept is None else [f"Accept-Encoding: {accept}"]))
    suffix = {None: "", "gzip": ".gz", "br": ".br", "zstd": ".zst"}[coding]
    content = (odd_site / f"page.html{suffix}").read_bytes()
    assert answer.status == 200
    assert answer.get("content-encoding") == coding
    assert answer.body == content
    assert answer["content-length"] == str(len(content))
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer["vary"] == "Accept-Encoding"
    assert answer["accept-ranges"] == "bytes"


def test_each_neighbour_has_its_own_tag(server: Server) -> None:
    """RFC 9110 8.8.3.3: even where sizes and dates are the same."""
    codings = ("identity", "gzip", "br", "zstd")
    tags = {c: etag_of(server, "/same.html", f"Accept-Encoding: {c}") for c in codings}
    assert len(set(tags.values())) == 4
    for coding in codings:
        for tag in tags.values():
            line = f"Accept-Encoding: {coding}"
            answer = server.ask("/same.html", line, f"If-None-Match: {tag}")
            assert answer.status == (304 if tag == tags[coding] else 200)
            assert answer["vary"] == "Accept-Encoding"


def test_a_range_is_one_of_the_neighbour(server: Server, odd_site: Path) -> None:
    content = (odd_site / "page.html.gz").read_bytes()
    answer = server.ask("/page.html", "Accept-Encoding: gzip", "Range: bytes=2-4")
    assert answer.status == 206
    assert answer.body == content[2:5]
    assert answer["content-range"] == f"bytes 2-4/{len(content)}"
    assert answer["content-encoding"] == "gzip"


def test_asked_for_by_name(server: Server, odd_site: Path) -> None:
    answer = server.ask("/page.html.gz", "Accept-Encoding: gzip, br")
    assert answer.body == (odd_site / "page.html.gz").read_bytes()
    assert answer["content-type"] == "application/gzip"
    assert answer.get("content-encoding") is None
    assert answer.get("vary") is None


@pytest.mark.parametrize(
    ("target", "coding"),
    [
        ("/lib.js", "gzip"),
        ("/linked.html", "br"),  # by a link inside; the .gz leads outside
        ("/odd.html", "zstd"),  # .br is a directory, .gz a FIFO
        ("/hello.txt", None),
    ],
)
def test_neighbours_that_are_none(server: Server, target: str, coding: str | None) -> None:
    answer = server.ask(target, "Accept-Encoding: gzip, br, zstd")
    assert answer.status == 200
    assert answer.get("content-encoding") == coding
    assert answer.get("vary") == (coding and "Accept-Encoding")
    assert b"outside" not in answer.body


def test_the_index_has_neighbours_too(serve: ServeFixture, site: Path) -> None:
    (site / "with-index" / "index.html.gz").write_bytes(b"zipped")
    answer = serve().ask("/with-index/", "Accept-Encoding: gzip")
    assert (answer.body, answer["content-encoding"]) == (b"zipped", "gzip")


def test_a_neighbour_alone_is_no_file(serve: ServeFixture, site: Path) -> None:
    (site / "alone.html.gz").write_bytes(b"zipped")
    assert serve().ask("/alone.html", "Accept-Encoding: gzip").status == 404


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        ("/hello.txt", "identity;q=0"),
        ("/hello.txt", "gzip, *;q=0"),
        ("/page.html", "identity;q=0"),
        ("/page.html", "*;q=0"),
    ],
)
def test_nothing_acceptable(server: Server, target: str, accept: str) -> None:
    answer = server.ask(target, f"Accept-Encoding: {accept}")
    assert answer.status == 406
    assert answer["vary"] == "Accept-Encoding"
    check_error(answer)


# ---- rights --------------------------------------------------------------------------------------


def close_doors(site: Path) -> None:
    (site / "unreadable.txt").write_text("secret")
    (site / "unreadable.txt").chmod(0)
    (site / "page.html.gz").chmod(0)
    (site / "page.html.br").chmod(0)
    (site / "page.html.zst").chmod(0)
    for name, mode in (("search", 0o111), ("search-index", 0o111), ("none", 0), ("locked", 0o755)):
        (site / name / "inner").mkdir(parents=True)
        (site / name / "file.txt").write_text("readable")
        if name != "search":
            (site / name / "index.html").write_text("index")
        (site / name).chmod(mode)
    (site / "locked" / "index.html").chmod(0)


RIGHTS: list[tuple[str, int]] = [
    ("/hello.txt", 200),
    ("/unreadable.txt", 403),
    ("/unreadable.txt/", 404),
    # A directory that may be searched but not read: what is in it, yes; the list of it, no.
    ("/search/file.txt", 200),
    ("/search/nothing", 404),
    ("/search", 301),
    ("/search/", 403),
    ("/search-index", 301),
    ("/search-index/", 200),
    ("/search/inner/", 200),
    ("/search/../hello.txt", 200),
    ("/none", 301),
    ("/none/", 403),
    ("/none/file.txt", 403),
    ("/none/../hello.txt", 403),
    # An index that may not be read is not passed over: its directory was not meant to be listed.
    ("/locked/", 403),
    # A neighbour that may not be read is none.
    ("/page.html", 200),
]


def test_rights(public: Path, serve: ServeFixture) -> None:
    """A server that is somebody."""
    close_doors(public / "site")
    server = serve(directory=public / "site", user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    answers = {t: server.ask(t, "Accept-Encoding: gzip, br, zstd") for t, _ in RIGHTS}
    assert [(t, a.status) for t, a in answers.items()] == RIGHTS
    assert answers["/page.html"].get("content-encoding") is None
    assert not any(b"secret" in a.body for a in answers.values())
    reasons = [int(line.rsplit(" ", 1)[1]) for line in server.wait_for_log(len(RIGHTS))]
    assert {r for r, (_, status) in zip(reasons, RIGHTS, strict=True) if status == 403} == {
        R.FORBIDDEN
    }


def test_rights_by_the_walk_too(site: Path) -> None:
    close_doors(site)
    for by_kernel in (True, False):
        root = DocRoot(str(site))
        if not by_kernel:
            root._openat2 = None
        found = as_nobody(lambda r=root: [(t, respond(r, t).status) for t, _ in RIGHTS])
        root.close()
        assert found == RIGHTS


# ---- large files, and files that change ----------------------------------------------------------


def head_alone(client: Client) -> dict[str, str]:
    """The header section; what follows stays in the client's buffer or the socket."""
    while b"\r\n\r\n" not in client._buffer:
        assert client._more(), "no answer"
    head, _, client._buffer = client._buffer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return {"status": lines[0].split()[1], **dict(i.lower().split(": ", 1) for i in lines[1:])}


GIB = 1 << 30


def test_beyond_four_gib(serve: ServeFixture, site: Path, engine: str) -> None:
    with (site / "sparse.bin").open("wb") as file:
        file.truncate(6 * GIB)
        file.seek(5 * GIB)
        file.write(b"five GiB")
        file.seek(6 * GIB - 4)
        file.write(b"last")
    server = serve("--engine", engine)
    size = str(6 * GIB)
    assert server.ask("/sparse.bin", method="HEAD")["content-length"] == size
    answer = server.ask("/sparse.bin", f"Range: bytes={5 * GIB}-{5 * GIB + 7}")
    assert (answer.status, answer.body) == (206, b"five GiB")
    assert answer["content-range"] == f"bytes {5 * GIB}-{5 * GIB + 7}/{size}"
    assert server.ask("/sparse.bin", "Range: bytes=-4").body == b"last"
    large = server.ask("/sparse.bin", f"Range: bytes={5 * GIB - 999992}-{5 * GIB + 7}")
    assert large.body == bytes(999992) + b"five GiB"
    several = server.ask("/sparse.bin", f"Range: bytes={5 * GIB}-{5 * GIB + 3},-4")
    assert [part[2] for part in parts_of(several)] == [b"five", b"last"]
    with server.connect() as client:
        client.send(b"GET /sparse.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        assert head_alone(client)["content-length"] == size
    assert server.ask("/hello.txt").status == 200
    left = server.wait_for_log(7)[-2:]
    assert {line.rsplit(" ", 1)[1] for line in left} == {
        f"{R.CLIENT_RESET:d}",
        f"{R.DONE:d}",
    }


# More than the two socket buffers together can hold: a client that doesn't read stops the server.
MORE_THAN_FITS = 64 << 20


def test_a_file_that_shrinks_ends_the_connection(
    serve: ServeFixture, site: Path, engine: str
) -> None:
    content = numbered(MORE_THAN_FITS)
    (site / "large").write_bytes(content)
    server = serve("--engine", engine)
    with server.connect() as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        assert head_alone(client)["content-length"] == str(MORE_THAN_FITS)
        os.truncate(site / "large", 0)
        received = client.rest()
    assert len(received) < MORE_THAN_FITS
    assert content.startswith(received)
    assert server.wait_for_log(1)[0].endswith(f" {R.FILE_SHRANK:d}")
    assert server.ask("/hello.txt").status == 200


def test_a_file_that_grows_is_cut_at_the_promised_length(
    serve: ServeFixture, site: Path, engine: str
) -> None:
    content = numbered(MORE_THAN_FITS)
    (site / "large").write_bytes(content)
    server = serve("--engine", engine)
    with server.connect() as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n")
        while len(client._buffer) < 1000:
            assert client._more()
        with (site / "large").open("ab") as file:
            file.write(b"grown" * 1000)
        assert client.answer().body == content
        assert client.answer().body == b"hello, world\n"


# ---- --header ------------------------------------------------------------------------------------


def test_header_on_every_answer(serve: ServeFixture) -> None:
    server = serve("--header", "Cache-Control: max-age=60", "--header", "X-Two: 1")
    for target, fields in ASKED:
        answer = server.ask(target, *fields)
        assert answer["cache-control"] == "max-age=60"
        assert answer["x-two"] == "1"
    assert server.ask("/hello.txt", "Range: bytes=0-0")["cache-control"] == "max-age=60"
    assert server.ask("/hello.txt", method="PUT")["cache-control"] == "max-age=60"


def test_header_wins(serve: ServeFixture) -> None:
    server = serve("--header", "Server: x", "--header", "x-content-type-options: none")
    answer = server.ask("/hello.txt")
    assert answer["server"] == "x"
    assert answer["x-content-type-options"] == "none"


# ---- nothing is kept open ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from([*FOUND, *REFUSED, "/", "/sub", "/sub/", "/page.html", "/names/"]),
       st.lists(st.sampled_from([(b"range", b"bytes=0-0,1-1"), (b"range", b"bytes=99999999-"),
                                 (b"if-none-match", b"*"), (b"if-match", b'"x"'),
                                 (b"accept-encoding", b"gzip"), (b"accept-encoding", b"*;q=0"),
                                 (b"accept", b"application/json")]), max_size=3),
       st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"PUT"]))  # fmt: skip
def test_any_answer_is_whole(
    odd_site: Path, target: str, fields: list[tuple[bytes, bytes]], method: bytes
) -> None:
    """No combination raises; descriptors that are not the response's are closed (nothing_is_left
    looks); the length is that of the parts."""
    root = DocRoot(str(odd_site))
    before = set(os.listdir("/proc/self/fd"))
    response = respond(root, target.removeprefix("http://evil.example"), *fields, method=method)
    assert set(os.listdir("/proc/self/fd")) == before
    root.close()
    assert response.length == sum(len(part) for part in response.parts)
    assert response.status in (200, 204, 206, 301, 304, 400, 403, 404, 405, 406, 412, 416)
    if response.status in (204, 301, 304):
        assert not response.parts
