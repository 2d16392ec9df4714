"""Kinds: one decision for all files that are alike; C fills in what each is, as Python would say.

In this process beside Python, file by file and name by name; and real servers.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import H, get
from conftest import ServeFixture, Server, make_site, until
from hypothesis import given
from hypothesis import strategies as st
from test_cache import MODES, filler, totals
from twins import LIMITS, Twins, without_date, without_time

from pyweb import cache, kinds
from pyweb.docroot import RecordingRoot
from pyweb.parse import Limits, Parser
from pyweb.render import header_bytes
from pyweb.route import Router
from pyweb.static import StaticSite, entity_tag

SAMPLE = b"/many/sample.txt"
ZIPPED = H + b"Accept-Encoding: gzip\r\n"
CLOSING = H + b"Connection: close\r\n"


def make_many(site: Path) -> Path:
    many = site / "many"
    many.mkdir()
    (many / "sample.txt").write_bytes(b"sample\n")
    return many


@pytest.fixture
def many(site: Path) -> Path:
    return make_many(site)


@pytest.fixture
def twins(many: Path, site: Path, tmp_path: Path) -> Iterator[Twins]:
    made = Twins(site, tmp_path, kinds=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """For many examples."""
    scratch = tmp_path_factory.mktemp("kinds")
    site = make_site(scratch)
    make_many(site)
    made = Twins(site, scratch, kinds=True)
    yield made
    made.close()


def same(twins: Twins, data: bytes) -> bool:
    """True: C has answered, and as Python does, and so is its line. Or it has taken nothing."""
    answer, rest = twins.in_c(data)
    if not answer:
        return False
    assert without_date(answer) == without_date(twins.in_python(data))
    assert rest is None
    mine, pythons = map(without_time, twins.lines()[-2:])
    assert mine == pythons
    return True


# What is one of a kind.

HEADS = {
    "plain": (b"GET", H, b"HTTP/1.1"),
    "HEAD": (b"HEAD", H, b"HTTP/1.1"),
    "closing": (b"GET", CLOSING, b"HTTP/1.1"),
    "HTTP/1.0": (b"GET", b"", b"HTTP/1.0"),
    "HTTP/1.0, kept": (b"GET", b"Connection: keep-alive\r\n", b"HTTP/1.0"),
    "codings": (b"GET", H + b"Accept-Encoding: gzip, br, zstd\r\n", b"HTTP/1.1"),
}
SIZES = (0, 1, 9, 10, 255, 256, 1320, 32768, 32769, 100_000)
TIMES = (0, 1, 15, 16, 999_999_999, 10**9, 951_827_696 * 10**9 + 789, 1_700_000_000_123_456_789)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_others_of_its_kind(twins: Twins, many: Path, head: tuple[bytes, bytes, bytes]) -> None:
    method, fields, version = head

    def ask(target: bytes) -> bytes:
        return get(target, fields, version=version).replace(b"GET", method)

    others = [b"size-%d.txt" % size for size in SIZES]
    for name, size in zip(others, SIZES, strict=True):
        (many / os.fsdecode(name)).write_bytes(b"x" * size)
    for number, moment in enumerate(TIMES):
        name = b"time-%d.txt" % number
        (many / os.fsdecode(name)).write_bytes(b"time\n")
        os.utime(many / os.fsdecode(name), ns=(moment, moment))
        others.append(name)
    assert not any(same(twins, ask(b"/many/" + name)) for name in others)
    assert twins.filler.fill(ask(SAMPLE))
    for name in others:
        assert same(twins, ask(b"/many/" + name)), name


@pytest.mark.parametrize(
    "name", [b"a", b"A-b_c~d", b"1", b"a.b.c", b"a..b", b"a.", b"x.TXT", b"x.tar.gz", b"y" * 250]
)
def test_by_its_end(twins: Twins, many: Path, name: bytes) -> None:
    """Two that end alike, and nothing else, make a kind."""
    end = name[name.rfind(b".") :] if b"." in name else b""
    other = b"other" + end
    for one in (name, other):
        (many / os.fsdecode(one)).write_bytes(one)
    assert twins.filler.fill(get(b"/many/" + other))
    assert same(twins, get(b"/many/" + name))
    (many / "third.other").write_bytes(b"3")
    assert not same(twins, get(b"/many/third.other"))


@pytest.mark.parametrize("where", [b"/", b"//", b"/./many//", b"/m%61ny/", b"/sub/../many/"])
def test_wherever_that_is(twins: Twins, site: Path, many: Path, where: bytes) -> None:
    """However it is written, it is the same for both."""
    for place in (site, many):
        (place / "first.txt").write_bytes(b"first of " + os.fsencode(place))
        (place / "second.txt").write_bytes(b"second of " + os.fsencode(place))
    assert twins.filler.fill(get(where + b"first.txt"))
    assert same(twins, get(where + b"second.txt"))


@pytest.mark.parametrize("fields", [H, ZIPPED])
def test_whose_own_decision_is_not_true_any_more(twins: Twins, many: Path, fields: bytes) -> None:
    data = get(b"/many/one.txt", fields)
    (many / "one.txt").write_bytes(b"one")
    twins.filler.fill(data)
    assert same(twins, data)
    for content in (b"another", b""):
        (many / "one.txt").write_bytes(content)
        assert same(twins, data)
        assert twins.wished() == data
        twins.filler.fill(data)


def grow_old(twins: Twins, monkeypatch: pytest.MonkeyPatch, *each: bytes) -> None:
    """Their own decisions, which last."""
    monkeypatch.setattr(cache, "_LASTING", cache.SETTLED)
    time.sleep(cache.SETTLED / 1e9)
    for data in each:
        assert twins.filler.fill(data)
    time.sleep(cache.GOOD + 0.02)


def test_whose_own_decision_has_grown_old(
    twins: Twins, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kind's is looked at instead, which asks for less: not for the directory's times."""
    grow_old(twins, monkeypatch, get(SAMPLE, ZIPPED))
    (many / "new.other").write_bytes(b"")
    wishes = 0
    for _ in range(50):
        assert same(twins, get(SAMPLE, ZIPPED))
        wishes += twins.wished() != b""
    assert wishes < 10  # one of 1024
    (many / "sample.txt.gz").write_bytes(b"zipped")
    assert not same(twins, get(SAMPLE, ZIPPED))


def zipped(many: Path) -> None:
    (many / "odd.txt.gz").write_bytes(b"zipped")
    (many / "odd.txt").write_bytes(b"odd")


def linked(many: Path) -> None:
    (many / "odd.txt").symlink_to("sample.txt")


def twice_linked(many: Path) -> None:
    (many / "odd.txt").symlink_to("odd")
    (many / "odd").symlink_to("sample.txt")


@pytest.mark.parametrize("act", [zipped, linked, twice_linked])
def test_what_is_old_and_not_of_its_kind(
    twins: Twins, many: Path, act: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own decision gives way to a kind's that is not for it, and comes back."""
    act(many)
    odd = get(b"/many/odd.txt", ZIPPED)
    grow_old(twins, monkeypatch, odd, get(SAMPLE, ZIPPED))
    for _ in range(20):
        assert same(twins, odd)
    (many / "odd.txt").unlink()
    (many / "odd.txt").mkdir()
    assert not same(twins, odd)


def test_a_file_that_changes(twins: Twins, many: Path) -> None:
    """It is opened each time."""
    twins.filler.fill(get(SAMPLE))
    one = many / "one.txt"
    for number in range(50):
        one.write_bytes(b"%d" % number)
        answer, _ = twins.in_c(get(b"/many/one.txt"))
        assert answer.endswith(b"\r\n\r\n%d" % number)
        assert b"Content-Length: %d\r\n" % len(b"%d" % number) in answer


def test_an_absolute_target(twins: Twins, many: Path) -> None:
    (many / "one.txt").write_bytes(b"1")
    fields = b"Host: a.example\r\n"
    twins.filler.fill(get(b"http://a.example" + SAMPLE, fields))
    assert same(twins, get(b"http://a.example/many/one.txt", fields))
    assert not same(twins, get(b"http://one.txt", fields))


def test_the_servers_own_fields(many: Path, site: Path, tmp_path: Path) -> None:
    (many / "one.txt").write_bytes(b"one")
    for number, field in enumerate(("Server: x", "X-A: b", "Cache-Control: no-cache")):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        twins = Twins(site, scratch, "--header", field, kinds=True)
        assert twins.filler.fill(get(SAMPLE))
        assert same(twins, get(b"/many/one.txt"))
        assert field.encode() in twins.in_c(get(b"/many/one.txt"))[0]
        twins.close()


# What is not.


def a_neighbour(many: Path) -> None:
    (many / "one.txt.gz").write_bytes(b"zipped")


def a_neighbour_that_is_a_directory(many: Path) -> None:
    (many / "one.txt.br").mkdir()


def a_directory(many: Path) -> None:
    (many / "one.txt").unlink()
    (many / "one.txt").mkdir()


def a_fifo(many: Path) -> None:
    (many / "one.txt").unlink()
    os.mkfifo(many / "one.txt")


def a_socket(many: Path) -> None:
    (many / "one.txt").unlink()
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(many)
        one.bind("one.txt")
        os.chdir(before)


def nothing(many: Path) -> None:
    (many / "one.txt").unlink()


def a_link_outside(many: Path) -> None:
    (many / "one.txt").unlink()
    (many.parent.parent / "outside.txt").write_bytes(b"secret")
    (many / "one.txt").symlink_to("../../outside.txt")


def an_absolute_link(many: Path) -> None:
    (many / "one.txt").unlink()
    (many / "one.txt").symlink_to(many / "sample.txt")


def a_link_to_itself(many: Path) -> None:
    (many / "one.txt").unlink()
    (many / "one.txt").symlink_to("one.txt")


def a_link_inside(many: Path) -> None:
    (many / "one.txt").unlink()
    (many / "one.txt").symlink_to("sample.txt")


def a_link_beside(many: Path) -> None:
    (many / "one.txt.gz").symlink_to("nowhere")


def a_directory_that_is_elsewhere(many: Path) -> None:
    many.rename(many.parent.parent / "elsewhere")
    many.symlink_to("../elsewhere")


def the_future(many: Path) -> None:
    os.utime(many / "one.txt", (time.time() + 100, time.time() + 100))


def before_1970(many: Path) -> None:
    os.utime(many / "one.txt", (-100, -100))


ODD = [
    a_neighbour, a_neighbour_that_is_a_directory, a_directory, a_fifo, a_socket, nothing,
    a_link_outside, an_absolute_link, a_link_to_itself, a_link_inside, a_link_beside,
    a_directory_that_is_elsewhere, the_future, before_1970,
]  # fmt: skip


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("act", ODD, ids=lambda act: act.__name__)
def test_what_is_odd_is_pythons(
    twins: Twins, many: Path, act: Callable[[Path], None], method: bytes
) -> None:
    fields = H + b"Accept-Encoding: gzip\r\n"
    (many / "one.txt").write_bytes(b"one")
    data = get(b"/many/one.txt", fields).replace(b"GET", method)
    twins.filler.fill(get(SAMPLE, fields).replace(b"GET", method))
    assert same(twins, data)
    act(many)
    assert twins.in_c(data)[0] == b""


@pytest.fixture
def far_times() -> Iterator[Path]:
    """A directory whose file system keeps seconds of 64 bits."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.mark.parametrize("seconds", [18446744074, 20146744073, -18446744073, -9223372037])
def test_a_time_that_has_no_ns_in_64_bits(far_times: Path, tmp_path: Path, seconds: int) -> None:
    """It would be another's, and another tag."""
    many = make_many(far_times)
    (many / "one.txt").write_bytes(b"one")
    twins = Twins(far_times, tmp_path, kinds=True)
    twins.filler.fill(get(SAMPLE))
    assert same(twins, get(b"/many/one.txt"))
    os.utime(many / "one.txt", (seconds, seconds))
    assert not twins.filler.fill(get(b"/many/one.txt"))
    assert twins.in_c(get(b"/many/one.txt"))[0] == b""
    os.utime(many / "one.txt")
    time.sleep(0.01)
    os.utime(many, (seconds, seconds))
    assert twins.filler.fill(get(b"/many/one.txt"))
    assert same(twins, get(b"/many/one.txt"))
    twins.close()


def test_a_fifos_writer_sleeps_on(twins: Twins, many: Path) -> None:
    twins.filler.fill(get(SAMPLE))
    os.mkfifo(many / "fifo.txt")
    woken = threading.Event()

    def write() -> None:
        os.close(os.open(many / "fifo.txt", os.O_WRONLY))
        woken.set()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.05)
    assert twins.in_c(get(b"/many/fifo.txt"))[0] == b""
    assert not woken.wait(0.05)
    os.close(os.open(many / "fifo.txt", os.O_RDONLY))
    writer.join()


OTHERS = {
    "a query": get(b"/many/one.txt?a"),
    "a query that ends like a name": get(b"/many/one.txt?/many/one.txt"),
    "escaped": get(b"/many/%6fne.txt"),
    "hidden": get(b"/many/.one.txt"),
    "a directory": get(b"/many/"),
    "above": get(b"/many/.."),
    "another host": get(b"/many/one.txt", b"Host: other\r\n"),
    "a range": get(b"/many/one.txt", H + b"Range: bytes=1-1\r\n"),
    "a condition": get(b"/many/one.txt", H + b'If-None-Match: "x"\r\n'),
    "another method": get(b"/many/one.txt").replace(b"GET", b"POST"),
    "a body": b"GET /many/one.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
    "Expect": get(b"/many/one.txt", H + b"Expect: 100-continue\r\n"),
    "another version": get(b"/many/one.txt", version=b"HTTP/1.0"),
    "deeper": get(b"/many/many/one.txt"),
    "another end": get(b"/many/one.html"),
    "a bad Host": get(b"/many/one.txt", b"Host: a b\r\n"),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_of_no_kind(twins: Twins, many: Path, data: bytes) -> None:
    (many / "one.txt").write_bytes(b"one")
    (many / "one.html").write_bytes(b"one")
    (many / ".one.txt").write_bytes(b"one")
    twins.filler.fill(get(SAMPLE))
    assert same(twins, get(b"/many/one.txt"))
    assert twins.in_c(data)[0] == b""


@pytest.mark.parametrize(
    "target",
    [
        b"/many/sample.txt?", b"/many/sample.txt?/many/sample.txt", b"/sample.txt?/sample.txt",
        b"/many/s%61mple.txt", b"/with-index/", b"/page.html",
    ],
)  # fmt: skip
@pytest.mark.parametrize("fields", [H, H + b"If-Match: *\r\n", H + b"Range: bytes=0-0\r\n"])
def test_what_makes_no_kind(twins: Twins, site: Path, target: bytes, fields: bytes) -> None:
    """A query, a name that is escaped, an index, a neighbour; a condition."""
    for name in ("sample.txt", "other.txt", "many/other.txt", "with-index/other", "other.html"):
        (site / name).write_bytes(b"other")
    data = get(target, fields)
    twins.filler.fill(data)
    names = (b"other.txt", b"other", b"other.html")
    place = target.rpartition(b"/")[0]
    assert not any(twins.in_c(get(place + b"/" + name, fields))[0] for name in names)


PLAIN = st.text("abz019.-_~", min_size=1, max_size=12)
ANY = st.text("aZ.~%2fe\x7f?#/;:@ü ", max_size=12)


@given(st.one_of(PLAIN, ANY), st.booleans(), st.sampled_from(["many/", "many/sub.txt/", ""]))
def test_whatever_its_name(always: Twins, name: str, is_there: bool, where: str) -> None:
    """If C answers, then as Python."""
    root = Path(os.fsdecode(os.readlink(f"/proc/self/fd/{always.root.fd}")))
    (root / "many" / "sub.txt").mkdir(exist_ok=True)
    (root / "many" / "sub.txt" / "sample.txt").write_bytes(b"deep")
    always.filler.fill(get(b"/many/sample.txt"))
    always.filler.fill(get(b"/many/sub.txt/sample.txt"))
    always.filler.fill(get(b"/hello.txt"))
    path = root / where / name
    is_ours = is_there and "/" not in name and name not in ("", ".", "..") and not path.exists()
    if is_ours:
        path.write_text(name)
    try:
        same(always, get(b"/" + where.encode() + name.encode()))
    finally:
        if is_ours:
            path.unlink()


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**50))
def test_filled_is_what_would_be_said(always: Twins, mtime: int, size: int) -> None:
    """The same rule of static.py and render.py, of other files than there are."""
    recording = RecordingRoot(always.root)
    found = Parser("python", Limits(*LIMITS, 1)).parse(get(SAMPLE))
    assert found is not None
    response = Router(StaticSite(recording, (), False)).answer(found[0])
    for fd in response.files:
        os.close(fd)
    header = header_bytes(response, 1, True, ())
    kind = kinds.kind_of(
        found[0], response, header,
        [(path, status) for _, path, status in recording.opened], recording.missed,
    )  # fmt: skip
    assert kind is not None
    assert (kind.directory, list(kind.absent)) == (b"many/", [b".br", b".zst", b".gz"])
    status = os.stat_result(
        (*recording.opened[0][2][:6], size, 0, mtime // 10**9, 0), {"st_mtime_ns": mtime}
    )
    filled = kind.filled(status, b"today")
    assert b"\r\nDate: today\r\n" in filled
    assert b"\r\nETag: " + entity_tag(status, b"identity") + b"\r\n" in filled
    assert b"\r\nContent-Length: %d\r\n" % size in filled


# The memory.


def put(twins: Twins, **other: object) -> bool:
    values: dict[str, object] = {
        "head": get(SAMPLE), "decided": 1, "keeps": True, "header": b"HTTP/1.1 200 OK\r\n\r\n",
        "holes": [(17, kinds.LENGTH)], "directory": b"many/", "absent": [b".gz"], "sends": True,
    }  # fmt: skip
    return bool(twins.table.writer.put_kind(*(values | other).values()))  # type: ignore[arg-type]


def test_what_has_no_room(twins: Twins) -> None:
    assert put(twins)
    assert not put(twins, head=b"GET /many/.x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert not put(twins, head=get(SAMPLE)[:-1])
    assert not put(twins, head=get(b"/" + b"a" * 700 + b"/a.txt"))
    assert not put(twins, header=b"x" * 1700)
    assert not put(twins, holes=[])
    assert not put(twins, holes=[(0, kinds.DATE)] * 7)
    assert not put(twins, absent=[b".a"] * 5)
    assert not put(twins, directory=b"a\0b")
    with pytest.raises(TypeError):
        twins.table.reader.put_kind(get(SAMPLE), 1, True, b"x", [(0, 1)], b"", [], True)


@given(st.lists(st.tuples(st.integers(40, 380), st.binary(min_size=1, max_size=8)), max_size=20))
def test_nonsense_in_the_memory_harms_nobody(always: Twins, pokes: list[tuple[int, bytes]]) -> None:
    """Whatever C makes of it, it stays within its buffers, and this process lives."""
    assert put(always)
    memory = always.table.memory
    for at in range(0, len(memory), 2048):
        if memory[at : at + 8] == bytes(8):
            continue
        for offset, data in pokes:
            memory[at + offset : at + offset + len(data)] = data
    always.in_c(get(SAMPLE))
    memory[:] = bytes(len(memory))


# Real servers.


def ask_all(serve: ServeFixture, site: Path, *options: str) -> int:
    """Ask for a file until its kind is known, then once for each of others; how many of them
    Python had nothing to do with."""
    many = make_many(site)
    for number in range(40):
        (many / f"{number}.txt").write_bytes(b"%d" % number)
    server = serve(*options)
    before = totals(server)["repeated"]

    def repeats() -> bool:
        assert server.ask("/many/sample.txt").body == b"sample\n"
        return totals(server)["repeated"] > before

    until(repeats, "an answer that is repeated")
    before = settled(server)
    for number in range(40):
        assert server.ask(f"/many/{number}.txt").body == b"%d" % number
    found = settled(server) - before
    assert filler(server)
    return found


def settled(server: Server) -> int:
    """How many answers were repeated, when all who have ended are counted."""
    found, now = -1, totals(server)["repeated"]
    while found != now:
        time.sleep(0.5)
        found, now = now, totals(server)["repeated"]
    return now


@pytest.mark.parametrize("mode", MODES)
def test_a_server_repeats_kinds(serve: ServeFixture, site: Path, mode: str) -> None:
    assert ask_all(serve, site, "--mode", mode) == 40


def test_without_kinds(serve: ServeFixture, site: Path) -> None:
    assert ask_all(serve, site, "--no-kinds") == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_new_neighbour_is_seen_at_once(serve: ServeFixture, site: Path, mode: str) -> None:
    ask_all(serve, site, "--mode", mode)
    server = serve("--mode", mode)
    for number in range(20):
        name = f"/many/{number}.txt"
        assert server.ask(name, "Accept-Encoding: gzip").body == b"%d" % number
        (site / "many" / f"{number + 20}.txt.gz").write_bytes(b"zipped")
        found = server.ask(f"/many/{number + 20}.txt", "Accept-Encoding: gzip")
        assert found.body == b"zipped"
