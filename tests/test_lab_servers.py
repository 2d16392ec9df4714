"""The laboratory's servers as real processes: started, stamped, ended, and nothing is left of them.

Runs that fail are told and made again. How fast anything is, is not tested here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, children_of, is_gone, need, state_of, until

from pyweb import stamps
from pyweb.lab import ladder
from pyweb.lab.build import CannotBuild, Programs
from pyweb.lab.ladder import Plan
from pyweb.lab.rungs import LADDER, NAME, PYWEB, SIZE, Place, Rung
from pyweb.lab.servers import Command, Failed, Server, running

# Wherever the system likes: nothing is timed.
PLAN = Plan(blocks=2, connections=8, warm=2, servers=None, client=None)
RUNGS = {rung.name: rung for rung in LADDER}
IN_C = ("c-serve", "c-fork-serve")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    need("cc")
    directory = tmp_path_factory.mktemp("lab")
    found = Place(directory, Programs(directory))
    found.prepare()
    return found


def command(place: Place, name: str) -> Command:
    """Without Python.h: skipped here, failed under CI."""
    try:
        return RUNGS[name].command(place)
    except CannotBuild as error:
        if os.environ.get("CI") or "Python.h" not in str(error):
            raise
        pytest.skip(str(error))


def shell(script: str) -> Command:
    return Command(("sh", "-c", script), stamped=())


def ask(server: Server) -> bytes:
    """Its file, on a connection of its own."""
    with Client(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) as client:
        client.send(f"GET /{NAME} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return client.answer().body


@pytest.mark.parametrize("name", [*IN_C, "c-loop", "python-child", PYWEB, "prefork", "thread"])
def test_serves_is_stamped_and_ends(place: Place, name: str) -> None:
    with running(command(place, name), cpu=None, with_stamps=True) as server:
        assert server.pid in children_of(os.getpid())
        assert [ask(server) for _ in range(3)] == [b"x" * SIZE] * 3
        family = server.family()
        assert family[0] == server.pid
        records = server.records()
    assert sorted(one[stamps.NUMBER] for one in records) == [1, 2, 3]
    assert all(0 < one[stamps.ACCEPTED] <= one[stamps.FIRST_BYTE] for one in records)
    until(lambda: all(map(is_gone, family)), f"{family} to end")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), PATIENCE)


@pytest.mark.parametrize("name", ["c-fork-serve", PYWEB])
def test_records_of_children_are_whole(place: Place, name: str) -> None:
    """Whoever asks for them right after an answer waits until its child was reaped."""
    with running(command(place, name), cpu=None, with_stamps=True) as server:
        for number in range(1, 6):
            ask(server)
            records = server.records()
            assert len(records) == number
            assert all(one[stamps.CHILD] < one[stamps.REAPED] for one in records)
            assert len({one[stamps.PID] for one in records}) == number


def test_a_server_that_was_not_asked_has_no_records(place: Place) -> None:
    with running(command(place, PYWEB), cpu=None, with_stamps=True) as server:
        assert server.records() == []


@pytest.mark.parametrize("name", ["c-serve", PYWEB])
def test_no_stamps_without(place: Place, name: str) -> None:
    with running(command(place, name), cpu=None) as server:
        assert ask(server)
        with pytest.raises(Failed, match="keeps no stamps"):
            server.records()


def test_the_master_is_who_forks(place: Place) -> None:
    """Of pyweb not what was started, which watches over it; of others that very process."""
    with running(command(place, PYWEB), cpu=None) as server:
        assert [server.master()] == children_of(server.pid)
        assert set(server.family()) >= {server.pid, server.master()}
    with running(command(place, "c-fork-serve"), cpu=None) as server:
        assert server.master() == server.pid


@pytest.mark.parametrize("with_stamps", [False, True])
def test_a_cpu_is_the_servers_alone(place: Place, with_stamps: bool) -> None:
    cpus = os.sched_getaffinity(0)
    wanted = max(cpus)
    with running(command(place, PYWEB), cpu=wanted, with_stamps=with_stamps) as server:
        for pid in server.family():
            assert os.sched_getaffinity(pid) == {wanted}
    assert os.sched_getaffinity(0) == cpus


# Those that do not do what they should.


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ("echo first >&2; echo 'last words' >&2; exit 3", "last words"),
        ("echo 'no port' >&2; echo listening; exec sleep 1000", "no port"),
        ("exit 0", "without a word"),
        ("echo 80 or so; exec sleep 1000", "without a word"),
    ],
)
def test_one_that_does_not_start(script: str, last: str) -> None:
    """Its last words, in one line; it is ended if it still runs."""
    with pytest.raises(Failed) as told, running(shell(script), cpu=None):
        raise AssertionError("it has no port")
    assert str(told.value).startswith("did not start: sh -c")
    assert str(told.value).endswith(f": {last}")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("with_stamps", [False, True])
def test_rungs_that_do_not_start(place: Place, with_stamps: bool) -> None:
    """The memory for their stamps is given back."""
    words = (*command(place, "c-serve").words[:-1], "/no/such/file")
    for one in (Command(words), command(Place(Path("/no/such"), place.programs), PYWEB)):
        with pytest.raises(Failed, match=r"^did not start: .*"):  # noqa: SIM117
            with running(one, cpu=None, with_stamps=with_stamps):
                raise AssertionError("it has nothing to serve")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(Failed, match="did not start: /no/such/program"):  # noqa: SIM117
        with running(Command(("/no/such/program",)), cpu=None):
            raise AssertionError("it is not there")


@pytest.mark.parametrize("name", ["c-serve", PYWEB])
def test_one_that_dies(place: Place, name: str) -> None:
    with pytest.raises(Failed, match=r"the server ended by itself with code -?[0-9]+: "):
        kill_in_its_block(command(place, name))


def kill_in_its_block(one: Command) -> None:
    with running(one, cpu=None, with_stamps=True) as server:
        family = server.family()
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        until(lambda: state_of(server.pid) == "Z", "it to die")
    assert all(map(is_gone, family))


def test_what_fails_in_the_block_is_told() -> None:
    """Not that the server has died of it."""
    pids = []
    with pytest.raises(ZeroDivisionError), running(shell("echo 1; exit 7"), cpu=None) as server:
        pids.append(server.pid)
        until(lambda: state_of(server.pid) == "Z", "it to end")
        raise ZeroDivisionError
    assert is_gone(pids[0])


def test_the_server_ends_when_the_block_fails(place: Place) -> None:
    family: list[int] = []
    with pytest.raises(KeyboardInterrupt), running(command(place, PYWEB), cpu=None) as server:
        family += server.family()
        raise KeyboardInterrupt
    assert len(family) >= 2
    until(lambda: all(map(is_gone, family)), f"{family} to end")


@pytest.mark.usefixtures("interruptible")
def test_broken_off_while_it_starts() -> None:
    """Most of a run of pyweb is its start, so that is when ^C comes."""
    code = (
        "from pyweb.lab.servers import Command, running\n"
        "with running(Command(('sleep', '1000')), cpu=None): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    left: list[int] = []
    try:
        until(lambda: any(map(is_sleep, children_of(process.pid))), "its server")
        left += children_of(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE)
        assert all(map(is_gone, left))
    finally:
        process.kill()
        process.wait()
        for pid in filter(is_sleep, left):
            os.kill(pid, signal.SIGKILL)


def is_sleep(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
    return False


# Runs of the ladder.


def serving(place: Place, body: bytes) -> Callable[[Place], Command]:
    """Another file than it should."""
    file = place.directory / f"other-{len(body)}"
    file.write_bytes(body)
    program = str(place.programs.program("server"))
    return lambda _: Command((program, "fork-serve", f"/{NAME}", str(file)))


def test_the_client_has_what_it_asked_for(place: Place) -> None:
    rung = RUNGS["c-fork-serve"]
    with running(rung.command(place), cpu=None) as server:
        attempts = ladder.drive(place, PLAN, rung, server)
    assert len(attempts) == PLAN.connections
    for one in attempts:
        assert one.begin <= one.connected <= one.sent <= one.first_byte <= one.end
    begins = [one.begin for one in attempts]
    assert begins == sorted(begins)


@pytest.mark.parametrize("body", [b"", b"x" * (SIZE - 1), b"x" * (SIZE + 1)])
def test_another_size_is_a_failure(place: Place, body: bytes) -> None:
    rung = Rung("other", "another file", serving(place, body))
    with running(rung.command(place), cpu=None) as server:
        with pytest.raises(Failed) as told:
            ladder.drive(place, PLAN, rung, server)
        assert len(str(told.value).splitlines()) == 1


class Fails:
    """As c-serve, but the first `times` of its runs fail."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.runs = 0

    def __call__(self, place: Place) -> Command:
        self.runs += 1
        if self.runs <= self.times:
            return shell(f"echo 'failed {self.runs}' >&2")
        return RUNGS["c-serve"].command(place)

    def measured(self, place: Place) -> ladder.Measured:
        plan = Plan(1, PLAN.connections, PLAN.warm, None, None)
        return ladder.measure(place, plan, [Rung("r", "moody", self)], [], lambda _: None)


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_void_run_is_told_and_made_again(place: Place, times: int) -> None:
    moody = Fails(times)
    found = moody.measured(place)
    assert moody.runs == times + 1
    assert len(found.walls["r"]) == 1
    assert len(found.void) == times
    for number, line in enumerate(found.void, 1):
        assert line.startswith("moody: did not start: ")
        assert line.endswith(f"failed {number}")


def test_three_tries_are_the_most(place: Place) -> None:
    """Then the rung is left out, and told; unless it is what all is compared with."""
    moody = Fails(3)
    found = moody.measured(place)
    assert moody.runs == 3
    assert found.dropped == ["r"]
    assert not found.walls
    assert found.void[-1] == "moody: left out, for it failed 3 times"
    plan = Plan(1, PLAN.connections, PLAN.warm, None, None)
    with pytest.raises(Failed, match="failed 3"):
        ladder.measure(place, plan, [Rung(PYWEB, "moody", Fails(3))], [], lambda _: None)


def test_each_rung_has_a_run_a_block_there_and_back(place: Place) -> None:
    """With stamps and without, by turns; the next block backwards."""
    rungs = [RUNGS[name] for name in IN_C]
    a, b = (rung.title for rung in rungs)
    told: list[str] = []
    found = ladder.measure(place, PLAN, rungs, IN_C[1:], told.append)
    stamped = f"{b}, with stamps"
    assert told == [a, stamped, b, b, stamped, a]
    assert len(told) == ladder.count_of_runs(PLAN, rungs, IN_C[1:])
    assert found.void == []
    assert {name: len(walls) for name, walls in found.walls.items()} == dict.fromkeys(IN_C, 2)
    assert list(found.stamped) == [IN_C[1]]
    for one in found.stamped[IN_C[1]]:
        assert one.connections >= PLAN.connections - 2
        assert one.phases["fork"] > 0
        assert one.wall == pytest.approx(sum(one.phases.values()))
