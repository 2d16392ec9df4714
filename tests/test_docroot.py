"""The document root: the kernel's openat2, by whichever door, and our walk find the same files.

One tree of everything that a path can meet, each path with what must become of it; then paths and
trees that nobody thought of; then directories that move while they are walked through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import until
from hypothesis import given, settings
from hypothesis import strategies as st
from unprivileged import as_nobody

from pyweb import docroot
from pyweb.docroot import PATH, READ, DocRoot, find_openat2, walk

_DIRECTORY = os.O_DIRECTORY
FLAGS = (READ, PATH, READ | _DIRECTORY, PATH | _DIRECTORY)


def has_openat2() -> bool:
    """Asked of the kernel itself, with flags that are right beyond doubt."""
    openat2 = docroot._by_ctypes()
    if openat2 is None:
        return False
    fd = os.open("/", os.O_PATH)
    try:
        os.close(openat2(fd, b".", os.O_PATH | os.O_CLOEXEC, 0))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def doors() -> dict[str, docroot.Openat2 | None]:
    found: dict[str, docroot.Openat2 | None] = {"walk": None}
    if has_openat2():
        found["ctypes"] = docroot._by_ctypes()
        if docroot._compiled():
            found["compiled"] = docroot._compiled()
    return found


DOORS = doors()


@contextlib.contextmanager
def root_by(door: str, path: Path) -> Iterator[DocRoot]:
    root = DocRoot(path.__fspath__())
    root._openat2 = DOORS[door]
    try:
        yield root
    finally:
        root.close()


@contextlib.contextmanager
def all_roots(path: Path) -> Iterator[dict[str, DocRoot]]:
    with contextlib.ExitStack() as stack:
        yield {door: stack.enter_context(root_by(door, path)) for door in DOORS}


Outcome = str | tuple[int, int, int]


def outcome(root: DocRoot, path: bytes, flags: int) -> Outcome:
    """Which file it is, or the name of the errno."""
    try:
        fd = root.open(path, flags)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino, status.st_mode
    finally:
        os.close(fd)


def identity(path: Path) -> Outcome:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mode


# ---- the tree ------------------------------------------------------------------------------------

LONGEST = "n" * 255


def make_tree(base: Path) -> Path:
    """base/site with everything; base/outside and base/secret must never be found."""
    site = base / "site"
    (site / "dir" / "sub").mkdir(parents=True)
    (base / "outside").mkdir()
    for path in ("site/file", "site/dir/file", "site/dir/sub/deep", f"site/{LONGEST}",
                 "secret", "outside/secret", "outside/file"):  # fmt: skip
        (base / path).write_text(path)
    for name, target in links(base).items():
        (site / name).symlink_to(target)
    os.mkfifo(site / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        at = os.open(site, os.O_PATH)
        sock.bind(f"/proc/self/fd/{at}/socket")  # a path of its own might be too long
        os.close(at)
    with contextlib.suppress(PermissionError):
        os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(site / "nothing-there", stat.S_IFCHR | 0o666, os.makedev(240, 77))
    return site


def links(base: Path) -> dict[str, str]:
    chain = {f"chain{n}": f"chain{n - 1}" for n in range(2, 43)}
    return {
        "to-file": "file",
        "to-dir": "dir",
        "to-dir-slash": "dir/",
        "to-file-slash": "file/",
        "to-dot": ".",
        "by-dots": "dir/sub/../../to-file",
        "dir/up": "..",
        "dir/to-file": "../file",
        "dir/sub/to-up": "../up/dir/file",
        "chain1": "file",
        **chain,
        "dir-chain": "chain-to-dir",
        "chain-to-dir": "dir/sub/..",
        "absolute": str(base / "site" / "file"),
        "absolute-dir": str(base / "site" / "dir"),
        "absolute-root": "/",
        "out": "../outside",
        "out-file": "../outside/secret",
        "out-and-in": "../site/file",
        "dir/out": "../../secret",
        "out-by-many": "dir/../../site/../secret",
        "dangling": "nowhere",
        "dangling-deep": "nowhere/at/all",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "loop-dir": "loop-dir/x",
        "through-file": "file/x",
        "to-fifo": "fifo",
        "too-long": "x" * 256,
    }


# path -> the file that it is (below site), or an errno
EXPECTED: dict[str, str] = {
    "file": "file",
    "dir": "dir",
    "dir/": "dir",
    "dir//": "dir",
    "dir/file": "dir/file",
    "dir//sub///deep": "dir/sub/deep",
    ".": ".",
    "./": ".",
    "././file": "file",
    "dir/.": "dir",
    "dir/./file": "dir/file",
    "dir/..": ".",
    "dir/../": ".",
    "dir/../file": "file",
    "dir/sub/../..": ".",
    "dir/sub/../../file": "file",
    LONGEST: LONGEST,
    # Links inside.
    "to-file": "file",
    "to-dir": "dir",
    "to-dir/": "dir",
    "to-dir/file": "dir/file",
    "to-dir/sub/..": "dir",
    "to-dir-slash": "dir",
    "to-dir-slash/file": "dir/file",
    "to-dot": ".",
    "to-dot/to-dot/to-dot/file": "file",
    "by-dots": "file",
    "dir/up": ".",
    "dir/up/dir/up/file": "file",
    "dir/to-file": "file",
    "dir/sub/to-up": "dir/file",
    "dir-chain/file": "dir/file",
    # ".." is that of the directory, not of the link.
    "dir-chain/../file": "file",
    "chain1": "file",
    "chain40": "file",
    "chain41": "ELOOP",
    "chain42": "ELOOP",
    "dir/up/chain39": "file",
    "dir/up/chain40": "ELOOP",
    # Links and paths that leave.
    "..": "EXDEV",
    "../": "EXDEV",
    "../site/file": "EXDEV",
    "dir/../..": "EXDEV",
    "dir/../../secret": "EXDEV",
    "dir/up/..": "EXDEV",
    "absolute": "EXDEV",
    "absolute-dir/file": "EXDEV",
    "absolute-root": "EXDEV",
    "out": "EXDEV",
    "out/": "EXDEV",
    "out/secret": "EXDEV",
    "out-file": "EXDEV",
    "out-and-in": "EXDEV",
    "dir/out": "EXDEV",
    "out-by-many": "EXDEV",
    "/": "EXDEV",
    "/etc/passwd": "EXDEV",
    "//file": "EXDEV",
    # Links that lead nowhere, or round.
    "dangling": "ENOENT",
    "dangling/": "ENOENT",
    "dangling-deep": "ENOENT",
    "loop": "ELOOP",
    "loop/": "ELOOP",
    "loop/x": "ELOOP",
    "ping": "ELOOP",
    "loop-dir": "ELOOP",
    "too-long": "ENAMETOOLONG",
    # Not there, and not a directory.
    "": "ENOENT",
    "nowhere": "ENOENT",
    "nowhere/..": "ENOENT",
    "nowhere/../file": "ENOENT",
    "file/": "ENOTDIR",
    "file/.": "ENOTDIR",
    "file/..": "ENOTDIR",
    "file/x": "ENOTDIR",
    "file/../file": "ENOTDIR",
    "to-file/": "ENOTDIR",
    "to-file/..": "ENOTDIR",
    "to-file-slash": "ENOTDIR",
    "through-file": "ENOTDIR",
    "fifo/": "ENOTDIR",
    "fifo/x": "ENOTDIR",
    "n" * 256: "ENAMETOOLONG",
    "n" * 256 + "/..": "ENAMETOOLONG",
    "./" * 2045 + "file": "file",
    "./" * 2046 + "file": "ENAMETOOLONG",
    "dir/../" * 584 + "file": "file",
    "dir/../" * 585 + "file": "ENAMETOOLONG",
    "dir/../" * 2000 + "file": "ENAMETOOLONG",
    # What is not regular opens at once, or not.
    "fifo": "fifo",
    "to-fifo": "fifo",
    "socket": "ENXIO",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def test_every_door_is_tried() -> None:
    """On a Linux that has the call; "walk" alone would compare nothing with nothing."""
    if not has_openat2():
        pytest.skip("this kernel has no openat2")
    assert {"walk", "ctypes"} <= set(DOORS)


def test_the_kernel_is_asked(tree: Path) -> None:
    root = DocRoot(str(tree))
    assert root.by_kernel is has_openat2()
    root.close()


@pytest.mark.parametrize("door", DOORS)
def test_expected(tree: Path, door: str) -> None:
    with root_by(door, tree) as root:
        found = {path: outcome(root, path.encode(), READ) for path in EXPECTED}
    expected = {
        path: what if what.startswith("E") else identity(tree / what)
        for path, what in EXPECTED.items()
    }
    assert found == expected


@pytest.mark.parametrize("flags", FLAGS)
def test_the_same_by_each_door(tree: Path, flags: int) -> None:
    paths = [*EXPECTED, *(name + "/" for name in EXPECTED), "null", "nothing-there", "null/"]
    with all_roots(tree) as roots:
        for path in paths:
            assert_agreement(roots, path.encode(), flags)


def assert_agreement(roots: dict[str, DocRoot], path: bytes, flags: int) -> None:
    found = {door: outcome(root, path, flags) for door, root in roots.items()}
    assert len(set(found.values())) == 1, (path, found)


def test_a_socket_and_a_fifo_can_be_looked_at(tree: Path) -> None:
    with all_roots(tree) as roots:
        for root in roots.values():
            assert outcome(root, b"socket", PATH) == identity(tree / "socket")
            assert outcome(root, b"fifo", PATH) == identity(tree / "fifo")
            assert outcome(root, b"file", PATH | _DIRECTORY) == "ENOTDIR"


NAMES = [
    "file", "dir", "sub", "deep", "fifo", "socket", "nowhere", ".", "..", "..", "", "up",
    "to-file", "to-dir", "to-dir-slash", "to-dot", "by-dots", "dir-chain", "chain30", "out",
    "out-and-in", "absolute-dir", "dangling", "loop", "loop-dir", "to-up", "to-file-slash",
]  # fmt: skip
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8).map("/".join).map(str.encode)


@given(PATHS, st.sampled_from(FLAGS))
@settings(deadline=None, max_examples=500)
def test_any_path(tree: Path, path: bytes, flags: int) -> None:
    with all_roots(tree) as roots:
        assert_agreement(roots, path, flags)


# A tree of links that nobody thought of: name -> target, below two directories.
PLACES = [prefix + name for prefix in ("", "d/", "d/e/") for name in "abc"]
TARGETS = st.lists(
    st.sampled_from(["a", "b", "c", "d", "e", "f", "..", ".", ""]), min_size=1, max_size=6
).map("/".join)


@given(
    st.dictionaries(st.sampled_from(PLACES), TARGETS.filter(bool), max_size=9),
    st.lists(TARGETS, min_size=1, max_size=20),
    st.sampled_from(FLAGS),
)
@settings(deadline=None, max_examples=200)
def test_any_tree(tree: Path, links: dict[str, str], paths: list[str], flags: int) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as name:
        site = Path(name) / "site"
        (site / "d" / "e").mkdir(parents=True)
        for directory in (site.parent, site, site / "d", site / "d" / "e"):
            (directory / "f").write_text("")
        for place, target in links.items():
            (site / place).symlink_to(target)
        with all_roots(site) as roots:
            for path in [*paths, *PLACES, *(place + "/" for place in PLACES)]:
                assert_agreement(roots, path.encode(), flags)


# ---- permissions ---------------------------------------------------------------------------------

# Directories that may be searched, read, neither.
MODES = {"search": 0o111, "read": 0o444, "none": 0o000}


@pytest.fixture(scope="module")
def closed_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    site = tmp_path_factory.mktemp("closed") / "site"
    site.mkdir()
    for name, mode in MODES.items():
        (site / name / "sub").mkdir(parents=True)
        (site / name / "file").write_text(name)
        (site / f"to-{name}").symlink_to(name)
        (site / f"to-{name}-slash").symlink_to(name + "/")
        (site / f"into-{name}").symlink_to(name + "/file")
        (site / f"over-{name}").symlink_to(name + "/../file")
        (site / name).chmod(mode)
    (site / "file").write_text("readable")
    (site / "unreadable").write_text("unreadable")
    (site / "unreadable").chmod(0)
    yield site
    for name in MODES:
        (site / name).chmod(0o755)


CLOSED: dict[str, tuple[str, str]] = {
    # path -> outcome when read, and when looked at
    "unreadable": ("EACCES", "unreadable"),
    "unreadable/": ("ENOTDIR", "ENOTDIR"),
    "search": ("EACCES", "search"),
    "search/": ("EACCES", "search"),
    "search/file": ("search/file", "search/file"),
    "search/nowhere": ("ENOENT", "ENOENT"),
    "search/../file": ("file", "file"),
    "read": ("read", "read"),
    "read/": ("read", "read"),
    "to-read": ("read", "read"),
    "to-read/": ("read", "read"),
    "to-read-slash": ("read", "read"),
    # To look up "." one must be allowed to search, as for every other name.
    "read/.": ("EACCES", "EACCES"),
    "read/..": ("EACCES", "EACCES"),
    "read/file": ("EACCES", "EACCES"),
    "read/nowhere": ("EACCES", "EACCES"),
    "into-read": ("EACCES", "EACCES"),
    "over-read": ("EACCES", "EACCES"),
    "over-search": ("file", "file"),
    "none": ("EACCES", "none"),
    "none/": ("EACCES", "none"),
    "none/file": ("EACCES", "EACCES"),
    "none/../file": ("EACCES", "EACCES"),
}


@pytest.mark.parametrize("door", DOORS)
def test_permissions(closed_tree: Path, door: str) -> None:
    expected = {
        path: tuple(
            what if what.startswith("E") else identity(closed_tree / what) for what in outcomes
        )
        for path, outcomes in CLOSED.items()
    }
    with root_by(door, closed_tree) as root:
        found = as_nobody(
            lambda: {
                path: (outcome(root, path.encode(), READ), outcome(root, path.encode(), PATH))
                for path in CLOSED
            }
        )
    assert found == expected


CLOSED_NAMES = ["sub", "file", "unreadable", "..", ".", ""]
CLOSED_NAMES += [form.format(name) for form in ("{}", "to-{}-slash", "over-{}") for name in MODES]
CLOSED_PATHS = st.lists(st.sampled_from(CLOSED_NAMES), min_size=1, max_size=6).map("/".join)


def test_any_path_without_rights(closed_tree: Path) -> None:
    with all_roots(closed_tree) as roots:

        @given(CLOSED_PATHS, st.sampled_from(FLAGS))
        @settings(deadline=None, max_examples=500, database=None)
        def agree(path: str, flags: int) -> None:
            assert_agreement(roots, path.encode(), flags)

        as_nobody(agree)


# ---- while directories move ----------------------------------------------------------------------


@contextlib.contextmanager
def mover(move: Callable[[], None]) -> Iterator[None]:
    """A child that moves things to and fro until the end."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                move()
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the mover died"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def content(open_it: Callable[[], int]) -> str:
    """What is in the file, or the errno."""
    try:
        fd = open_it()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """Wherever one can get, there is a file called "secret"; only site's may be read."""
    for name in ("site/m/n", "outside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "secret").write_text("inside" if "site" in name else "outside")
    (tmp_path / "site" / "secret").write_text("inside")
    (tmp_path / "site" / "m" / "secret").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "site" / "link").symlink_to("../outside")
    return tmp_path


def swap_for_link(base: Path) -> Callable[[], None]:
    """site/m is now a directory, now a link to outside."""
    site = base / "site"

    def move() -> None:
        (site / "m").rename(site / "spare")
        (site / "link").rename(site / "m")
        (site / "m").rename(site / "link")
        (site / "spare").rename(site / "m")

    return move


def move_out(base: Path) -> Callable[[], None]:
    """site/m/n goes out and comes back: its parent is another each time."""
    inside, outside = base / "site" / "m" / "n", base / "outside" / "n"

    def move() -> None:
        inside.rename(outside)
        outside.rename(inside)

    return move


def naive_walk(root: int, path: bytes) -> int:
    """What a walk must not be: ".." is whatever the kernel says when it is asked."""
    here = os.dup(root)
    try:
        *directories, name = path.split(b"/")
        for directory in directories:
            there = os.open(directory, PATH | _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        return os.open(name, READ, dir_fd=here)
    finally:
        os.close(here)


RACES = [
    (swap_for_link, b"m/secret"),
    (swap_for_link, b"m/../m/./secret"),
    (swap_for_link, b"m/n/../secret"),
    (move_out, b"m/n/../../secret"),
    (move_out, b"m/n/../secret"),
    (move_out, b"m/n/../../m/n/../../secret"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("movement", "path"), RACES)
def test_nothing_outside_is_ever_found(
    moving: Path, movement: Callable[[Path], Callable[[], None]], path: bytes, door: str
) -> None:
    found: set[str] = set()
    with root_by(door, moving / "site") as root, mover(movement(moving)):
        for _ in range(4000):
            found.add(content(lambda: root.open(path, READ)))
        # What is there half of the time is found sooner or later, and so is its absence.
        until(lambda: found.add(content(lambda: root.open(path, READ))) or len(found) > 1, "a move")
        until(lambda: found.add(content(lambda: root.open(path, READ))) or "inside" in found, "it")
    assert found <= {"inside", "ENOENT", "EXDEV", "ELOOP", "ENOTDIR"}


@pytest.mark.parametrize(("movement", "path"), [RACES[0], RACES[3]])
def test_the_races_are_real(
    moving: Path, movement: Callable[[Path], Callable[[], None]], path: bytes
) -> None:
    """Whoever trusts names does get out: the test above has something to find."""
    with root_by("walk", moving / "site") as root, mover(movement(moving)):
        until(lambda: content(lambda: naive_walk(root.fd, path)) == "outside", "an escape")


# ---- the call ------------------------------------------------------------------------------------


class Kernel:
    """An openat2 that fails as it is told, then lets the walk answer."""

    def __init__(self, *failures: int) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, dirfd: int, path: bytes, flags: int, resolve: int) -> int:
        self.calls += 1
        assert resolve == docroot.RESOLVE_BENEATH | docroot.RESOLVE_NO_MAGICLINKS
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return walk(dirfd, path, flags)


@contextlib.contextmanager
def root_with(kernel: Kernel, path: Path) -> Iterator[DocRoot]:
    root = DocRoot(str(path))
    root._openat2 = kernel
    try:
        yield root
    finally:
        root.close()


def test_eagain_and_eintr_are_tried_again(tree: Path) -> None:
    kernel = Kernel(errno.EAGAIN, errno.EINTR, errno.EAGAIN)
    with root_with(kernel, tree) as root:
        assert outcome(root, b"file", READ) == identity(tree / "file")
    assert kernel.calls == 4


def test_eagain_without_end_is_no_loop_without_end(tree: Path) -> None:
    """Somebody renames all the time: the walk, which needs no luck, answers."""
    kernel = Kernel(*[errno.EAGAIN] * 10000)
    with root_with(kernel, tree) as root:
        assert outcome(root, b"dir/../file", READ) == identity(tree / "file")
        assert outcome(root, b"../secret", READ) == "EXDEV"
    assert kernel.calls < 1000


def test_other_failures_are_told(tree: Path) -> None:
    kernel = Kernel(errno.EIO)
    with root_with(kernel, tree) as root:
        assert outcome(root, b"file", READ) == "EIO"
    assert kernel.calls == 1


@pytest.mark.parametrize(
    ("number", "is_there"),
    [
        (None, True),
        (errno.ENOSYS, False),  # before Linux 5.6
        (errno.EPERM, False),  # by seccomp
        (errno.EACCES, True),  # this directory's own trouble
        (errno.EINVAL, True),  # a defect of ours must not hide behind the walk
    ],
)
def test_when_the_call_is_missing(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, is_there: bool
) -> None:
    kernel = Kernel(*[number] if number else [])
    monkeypatch.setattr(docroot, "_compiled", lambda: kernel)
    fd = os.open(tree, os.O_PATH)
    assert (find_openat2(fd) is kernel) is is_there
    os.close(fd)
    assert kernel.calls == 1


def test_ctypes_where_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setattr(docroot, "_compiled", lambda: None)
    root = DocRoot(str(tree))
    assert root.by_kernel is has_openat2()
    assert outcome(root, b"to-dir/file", READ) == identity(tree / "dir" / "file")
    root.close()


def test_the_root_is_found_once(tmp_path: Path) -> None:
    """Another directory that takes its name later is another directory."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_text("first")
    with all_roots(tmp_path / "site") as roots:
        (tmp_path / "site").rename(tmp_path / "moved")
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "file").write_text("second")
        for root in roots.values():
            assert outcome(root, b"file", READ) == identity(tmp_path / "moved" / "file")


def test_descriptors_are_closed_on_exec(tree: Path) -> None:
    with all_roots(tree) as roots:
        for root in roots.values():
            fd = root.open(b"file", READ)
            assert not os.get_inheritable(fd)
            assert not os.get_inheritable(root.fd)
            os.close(fd)
