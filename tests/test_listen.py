"""Listening sockets: what is replaced, what is left alone, what is taken away at the end."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, Server, until

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
