"""Listening sockets: what is replaced, what is left alone, what is taken away at the end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, Server, until
from unprivileged import as_nobody

from pyweb.config import Address
from pyweb.errors import StartError
from pyweb.listen import Listener, listen


def unix(path: Path) -> Address:
    return Address("", path=str(path))


def refused(path: Path) -> str:
    with pytest.raises(StartError) as failure:
        listen(unix(path), 5)
    return str(failure.value)


def stale(path: Path) -> int:
    """A socket that nobody listens on any more; its inode number."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return os.lstat(path).st_ino


# Unix sockets.


def test_unix_socket_from_start_to_end(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("-b", f"unix:{path}")
    assert server.url == f"unix:{path}"
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert server.ask("/hello.txt").body == b"hello, world\n"
    assert server.wait_for_log(1)[0].startswith("unix: - - [")
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_removed_whatever_ends_it(serve: ServeFixture, tmp_path: Path, number: int) -> None:
    path = tmp_path / "web.sock"
    server = serve("-b", f"unix:{path}")
    assert server.stop(number) == 0
    assert not path.exists()


def test_stale_socket_is_replaced(serve: ServeFixture, tmp_path: Path) -> None:
    """What a server that was killed leaves behind does not hold up the next one."""
    path = tmp_path / "web.sock"
    first = serve("-b", f"unix:{path}")
    first.process.kill()
    first.process.wait(PATIENCE)
    assert path.is_socket()
    second = serve("-b", f"unix:{path}")
    assert second.ask("/hello.txt").status == 200
    assert second.stop() == 0
    assert not path.exists()


def test_live_socket_is_refused(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = serve("-b", f"unix:{path}")
    assert "a server listens there" in refused(path)
    assert server.ask("/hello.txt").status == 200


def test_live_socket_with_a_full_backlog_is_refused(tmp_path: Path) -> None:
    """The question whether somebody listens must not wait for that somebody."""
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        assert "a server listens there" in refused(path)
    assert path.is_socket()


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    file, directory, link, fifo = (tmp_path / n for n in ("file", "directory", "link", "fifo"))
    file.write_text("precious")
    directory.mkdir()
    stale(tmp_path / "target")
    link.symlink_to(tmp_path / "target")
    os.mkfifo(fifo)
    for path in (file, directory, link, fifo):
        assert str(path) in refused(path)
    assert file.read_text() == "precious"
    assert directory.is_dir()
    assert link.is_symlink()
    assert fifo.is_fifo()
    assert (tmp_path / "target").is_socket()


def test_not_removed_if_replaced(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    listener = listen(unix(path), 5)
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_not_removed_if_renamed(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    listener = listen(unix(path), 5)
    path.rename(tmp_path / "kept")
    stale(path)
    listener.close()
    assert path.is_socket()
    assert (tmp_path / "kept").is_socket()


def test_successor_during_the_drain(serve: ServeFixture, tmp_path: Path) -> None:
    """A new server takes the name while the old one still answers; the old one's end leaves it."""
    path = tmp_path / "web.sock"
    old = serve("-b", f"unix:{path}")
    with old.connect() as client:
        client.send(b"GET /hello.txt HTTP/1.1\r\n")
        until(lambda: len(old.children()) == 1, "the child")
        old.process.send_signal(signal.SIGTERM)
        until(lambda: not path.exists(), "the name to be free")
        new = serve("-b", f"unix:{path}")
        client.send(b"Host: h\r\n\r\n")
        assert client.answer().body == b"hello, world\n"
    assert old.process.wait(PATIENCE) == 0
    assert new.ask("/hello.txt").status == 200


def test_all_or_none(tmp_path: Path) -> None:
    """The second address fails: the first one's socket is gone again."""
    from pyweb.cli import _arguments, configure
    from pyweb.holdings import listen_on_all

    path = tmp_path / "web.sock"
    words = ["-b", f"unix:{path}", "-b", "unix:/nowhere/at/all"]
    with pytest.raises(StartError):
        listen_on_all(configure(_arguments().parse_intermixed_args(words), {}), [])
    assert not path.exists()


# Who may connect.


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o027, 0o777])
def test_mode(serve: ServeFixture, tmp_path: Path, umask: int) -> None:
    """What is asked for, whatever the umask is, which stays as it is; without, what it leaves."""
    asked, left = tmp_path / "asked.sock", tmp_path / "left.sock"
    server = serve("-b", f"unix:{asked}", "--socket-mode", "0660", umask=umask)
    assert mode_of(asked) == 0o660
    assert server.ask("/hello.txt").status == 200
    status = Path(f"/proc/{server.master}/status").read_text()
    assert f"Umask:\t{umask:04o}\n" in status
    serve("-b", f"unix:{left}", umask=umask)
    assert mode_of(left) == 0o777 & ~umask


def test_owner(serve: ServeFixture, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    import grp
    import pwd

    daemon, group = pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid
    path = tmp_path / "web.sock"
    for owner, expected in [
        ("daemon", (daemon, 0)),
        ("daemon:daemon", (daemon, group)),
        (":daemon", (0, group)),
        ("12345:54321", (12345, 54321)),
    ]:
        server = serve("-b", f"unix:{path}", "--socket-owner", owner)
        info = path.lstat()
        assert (info.st_uid, info.st_gid) == expected
        assert server.stop() == 0
        assert not path.exists()


def test_an_owner_that_can_not_be(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    for owner, part in [
        ("no-such-user", "no user 'no-such-user'"),
        (":no-such-group", "no group 'no-such-group'"),
        ("99999999999999999999", "no user '99999999999999999999'"),
    ]:
        with pytest.raises(StartError, match=f"socket-owner: there is {part}"):
            listen(unix(path), 5, None, owner)
        assert not path.exists()


def test_only_root_can_give_it_away() -> None:
    """And what was bound already is gone again."""

    def give() -> tuple[str, bool]:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "web.sock"
            try:
                listen(unix(path), 5, None, "0").close()
            except StartError as error:
                return str(error), path.exists()
            return "", False

    said, is_left = as_nobody(give)
    assert "Operation not permitted; only root can give it to another user" in said
    assert not is_left


# The moment between bind(2) and listen(2), seen by an audit hook, which a process keeps for life.
BETWEEN = """
import os, socket, sys
from pyweb.config import Address
from pyweb.listen import listen
path = sys.argv[1]
def look(event, arguments):
    if event == "os.chown":
        with socket.socket(socket.AF_UNIX) as client:
            print(oct(os.lstat(path).st_mode & 0o777), client.connect_ex(path))
os.umask(0)
sys.addaudithook(look)
listen(Address("", path=path), 5, 0o600, "12345").close()
"""


def test_nobody_can_connect_before_it_is_as_it_should_be(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    command = [sys.executable, "-c", BETWEEN, str(tmp_path / "web.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == f"0o600 {errno.ECONNREFUSED}\n"


# TCP.


def test_ipv6(serve: ServeFixture) -> None:
    server = serve("-b", "[::1]:0")
    port = int(server.url.rpartition(":")[2].strip("/"))
    assert server.url == f"http://[::1]:{port}/"
    with socket.create_connection(("::1", port), PATIENCE) as sock:
        sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.wait_for_log(1)[0].startswith("::1 - - [")


def test_ipv6_stands_beside_ipv4() -> None:
    """:: is IPv6 alone: 0.0.0.0 gets the same port, and no peer is called ::ffff:127.0.0.1."""
    four = listen(Address("0.0.0.0", 0), 5)
    port = four.sock.getsockname()[1]
    six = listen(Address("::", port), 5)
    assert (four.url, six.url) == (f"http://0.0.0.0:{port}/", f"http://[::]:{port}/")
    four.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)
    six.close()


def option(listener: Listener, level: int, name: int) -> int:
    return listener.sock.getsockopt(level, name)


def test_the_port_is_free_again_at_once(serve: ServeFixture) -> None:
    """Connections of the last server in TIME_WAIT don't hold up the next."""
    first = serve()
    assert first.ask("/hello.txt").status == 200
    port = first.port
    assert first.stop() == 0
    listener = listen(Address("127.0.0.1", port), 5)
    assert not listener.sock.getblocking()
    assert option(listener, socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.close()


@pytest.mark.parametrize("second", ["127.0.0.1", "0.0.0.0"])
def test_two_servers_on_one_port(serve: ServeFixture, site: Path, second: str) -> None:
    """One line that says what to do; the first goes on."""
    server = serve()
    done = subprocess.run(
        [sys.executable, "-m", "pyweb", str(site), "-b", f"{second}:{server.port}"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"pyweb: can't listen on {second}:{server.port}: Address already in use; something"
        " listens there already (ss -ltnp tells what): stop it, or choose another port, or 0 for"
        " any\n"
    )
    assert server.ask("/hello.txt").status == 200


def test_no_new_connection_while_draining(serve: ServeFixture) -> None:
    server: Server = serve()
    with server.connect() as client:
        client.send(b"G")
        until(lambda: len(server.children()) == 1, "the child")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: cannot_connect(server.port), "the port to be closed")
        client.send(b"ET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.answer().status == 200
    assert server.process.wait(PATIENCE) == 0


def cannot_connect(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
