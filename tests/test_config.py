"""Options: what each accepts and refuses, which source wins; what is printed reads back."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyweb import config
from pyweb.cli import _arguments, configure, print_config
from pyweb.config import BY_NAME, OPTIONS, Address, Config
from pyweb.errors import UsageError
from pyweb.parse import ENGINES

GOOD: list[tuple[str, str, object]] = [
    ("bind", "127.0.0.1", Address("127.0.0.1")),
    ("bind", "127.0.0.1:0", Address("127.0.0.1", 0)),
    ("bind", "localhost:65535", Address("localhost", 65535)),
    ("bind", "::1", Address("::1")),
    ("bind", "[::1]", Address("::1")),
    ("bind", "[::1]:8000", Address("::1", 8000)),
    ("bind", "[fe80::1%lo]:80", Address("fe80::1%lo", 80)),
    ("bind", ":8000", Address("0.0.0.0", 8000)),
    ("bind", "unix:/run/web.sock", Address("", path="/run/web.sock")),
    ("bind", "unix:a b:c", Address("", path="a b:c")),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("port", "08080", 8080),
    ("directory", "/srv/www", "/srv/www"),
    ("index", "a.html, b.html ,", ("a.html", "b.html")),
    ("index", "", ()),
    ("no-listing", "true", True),
    ("no-listing", "ON", True),
    ("no-listing", "", False),
    ("no-listing", "0", False),
    ("header", "X-A: b", (b"X-A", b"b")),
    ("header", "X-A:", (b"X-A", b"")),
    ("header", "X-A: \t b: c \t", (b"X-A", b"b: c")),
    ("header", "X-A: \xfc", (b"X-A", "\xfc".encode())),
    ("header", "X-A: \udcfc", (b"X-A", b"\xfc")),
    ("header", "Server: mine", (b"Server", b"mine")),
    ("mode", "fork", "fork"),
    ("engine", "python", "python"),
    ("workers", "1", 1),
    ("min-spare", "0", 0),
    ("max-spare", "10000", 10000),
    ("max-requests", "1000", 1000),
    ("max-requests-jitter", "100", 100),
    ("max-connections-per-child", "1", 1),
    ("threads", "1000", 1000),
    ("no-parking", "on", True),
    ("max-connections", "1", 1),
    ("max-connections", "1000000", 1_000_000),
    ("per-client", "0", 0),
    ("backlog", "1", 1),
    ("keepalive-requests", "0", 0),
    ("limit-line", "256", 256),
    ("limit-head", "64K", 65536),
    ("limit-head", "16M", 1 << 24),
    ("limit-fields", "1000", 1000),
    ("max-body", "0", 0),
    ("max-body", "1G", 1 << 30),
    ("max-body", "1GiB", 1 << 30),
    ("max-body", "10 kb", 10240),
    ("max-body", "7b", 7),
    ("timeout-header", "0.001", 0.001),
    ("timeout-body", "500ms", 0.5),
    ("timeout-write", "5m", 300.0),
    ("timeout-request", "0", 0.0),
    ("timeout-request", "30", 30.0),
    ("timeout-idle", "1.5 h", 5400.0),
    ("timeout-queue", "0", 0.0),
    ("grace", "2000000", 2_000_000.0),
    ("min-rate", "0", 0),
    ("access-log", "off", "off"),
    ("log-format", "json", "json"),
    ("cache", "100", 100),
    ("no-bare", "true", True),
    ("no-porter", "true", True),
    ("batch", "true", True),
    ("no-kinds", "true", True),
    ("spares", "8", 8),
    ("stamps", "4096", 4096),
    ("pid-file", "/run/pyweb.pid", "/run/pyweb.pid"),
    ("pid-file", "off", "off"),
    ("socket-mode", "0660", 0o660),
    ("socket-mode", "0000", 0),
    ("socket-mode", "off", None),
    *(
        ("socket-owner", text, text)
        for text in (
            "www-data",
            "www-data:adm",
            ":adm",
            "0:0",
            "some.body@example.org",
            "off",
        )
    ),
]

BAD: list[tuple[str, str]] = [
    *(("bind", text) for text in (
        "", ":", "127.0.0.1:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:http", "[::1", "::1]",
        "[::1]:", "[::1]8000", "a b", "a/b", "a\0b", "unix:", "unix:a\0b", "8000", "[]:80",
    )),
    *(("port", text) for text in ("", "-1", "65536", "80.0", "0x50", "٣", "9" * 30, " 80")),
    *(("directory", text) for text in ("", "a\0b")),
    *(("index", text) for text in ("a/b", "/", "..", ".", "ok,..", "a\0b")),
    *(("no-listing", text) for text in ("maybe", "2", " true")),
    ("no-parking", "perhaps"),
    *(("header", text) for text in (
        "", "X", ": b", "X A: b", "X\t: b", "X: a\r\nY: b", "X: a\nY: b", "X: a\0", "X: \x7f",
        "X\r\n: b", "ü: b", "\udcfc: b", "X : b", "(x): b",
    )),
    *(("header", f"{name}: 1") for name in (
        "Content-Length", "content-length", "Transfer-Encoding", "Connection", "KEEP-ALIVE",
        "Trailer", "TE", "Upgrade", "Date", "Content-Range",
    )),
    *(("mode", text) for text in ("", "Fork", "threads")),
    *(("engine", text) for text in ("", "c", "Cython")),
    *((name, "0") for name in ("workers", "threads")),
    *((name, "-1") for name in ("min-spare", "max-spare", "max-requests", "max-requests-jitter")),
    ("max-connections-per-child", "many"),
    *(("max-connections", text) for text in ("0", "-1", "1000001", "1e3", "", "1_000", "٣")),
    *(("per-client", text) for text in ("-1", "x")),
    *(("backlog", text) for text in ("0", "9" * 20)),
    *(("limit-line", text) for text in ("255", "17M", "x", "1.5K")),
    *(("limit-head", text) for text in ("0", "1G")),
    *(("limit-fields", text) for text in ("0", "1001")),
    *(("max-body", text) for text in ("-1", "1X", "1KK", "10ib", "", "\N{KELVIN SIGN}")),
    *(("timeout-header", text) for text in (
        "0", "-1", "", "x", "1d", "inf", "nan", "1e3", "0.0001", "2000001", "999999999h", "0.1ms",
    )),
    *((f"timeout-{phase}", "-1") for phase in ("body", "write", "request", "idle", "queue")),
    *(("timeout-idle", text) for text in ("0", "0s", "0.0 ms")),
    *(("grace", text) for text in ("-1", "600h")),
    *(("keepalive-requests", text) for text in ("-1", "")),
    *(("min-rate", text) for text in ("-1", "500K")),
    *(("access-log", text) for text in ("", "a\0b")),
    *(("log-format", text) for text in ("", "common", "JSON")),
    ("no-bare", "maybe"),
    ("no-porter", "maybe"),
    ("batch", "maybe"),
    ("no-kinds", "maybe"),
    *(("spares", text) for text in ("-1", "1001", "some")),
    *(("cache", text) for text in ("-1", "1048577", "some")),
    *(("stamps", text) for text in ("-1", "1000001", "some")),
    *(("pid-file", text) for text in ("", "a\0b")),
    # 432 is what TOML makes of 0o660.
    *(("socket-mode", text) for text in (
        "", "660", "432", "0o660", "0888", "04755", "u=rw", "٠660",
    )),
    *(("socket-owner", text) for text in ("", ":", "a:", "a:b:c", "a b", "a\0", "a/b", "x" * 65)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good(name: str, text: str, value: object) -> None:
    assert BY_NAME[name].parse(text) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^(a|an|one|names|true) ?"):
        BY_NAME[name].parse(text)


def test_each_option_is_tested() -> None:
    assert {name for name, *_ in GOOD} == {option.name for option in OPTIONS}
    assert {name for name, _ in BAD} == {option.name for option in OPTIONS}


def test_defaults_of_the_contract() -> None:
    """Issue 2 names them."""
    found = configured()
    assert found.bind == (Address("127.0.0.1", 8000),)
    assert (found.directory, found.mode, found.engine) == (".", "fork", ENGINES[0])
    assert (found.max_connections, found.per_client, found.backlog) == (1024, 0, 2048)
    assert (found.timeout_header, found.timeout_body, found.timeout_write) == (20, 60, 60)
    assert (found.timeout_idle, found.timeout_queue, found.grace) == (15, 10, 30)
    assert found.timeout_request == 0
    assert (found.min_rate, found.keepalive_requests, found.max_body) == (500, 0, 1 << 30)
    assert (found.limit_line, found.limit_head, found.limit_fields) == (8190, 65536, 100)
    assert (found.access_log, found.log_format, found.no_listing) == ("-", "combined", False)


# Sources.


def configured(*words: str, environ: Mapping[str, str] | None = None) -> Config:
    return configure(_arguments().parse_intermixed_args(list(words)), environ or {})


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "pyweb.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_precedence(tmp_path: Path) -> None:
    file = toml(tmp_path, "grace = 1\ntimeout-idle = 1\nmax-connections = 1\n")
    environ = {"PYWEB_GRACE": "2", "PYWEB_TIMEOUT_IDLE": "2"}
    found = configured("--grace", "3", "--config", file, environ=environ)
    assert (found.grace, found.timeout_idle, found.max_connections) == (3, 2, 1)


def test_config_from_the_environment(tmp_path: Path) -> None:
    environ = {"PYWEB_CONFIG": toml(tmp_path, 'header = ["A: 1", "B: 2"]\nindex = ["x", "y"]\n')}
    found = configured(environ=environ)
    assert found.header == ((b"A", b"1"), (b"B", b"2"))
    assert found.index == ("x", "y")


def test_a_list_of_one_source_replaces_the_other(tmp_path: Path) -> None:
    file = toml(tmp_path, 'header = ["A: 1"]\n')
    assert configured("--config", file, "--header", "B: 2").header == ((b"B", b"2"),)
    assert configured("--config", file, environ={"PYWEB_HEADER": ""}).header == ()


def test_lists_in_variables() -> None:
    environ = {"PYWEB_BIND": "127.0.0.1:1 unix:/s", "PYWEB_HEADER": "A: 1\nB: \x85 2\r\nC: 3\n"}
    found = configured(environ=environ)
    assert found.bind == (Address("127.0.0.1", 1), Address("", path="/s"))
    assert found.header == ((b"A", b"1"), (b"B", "\x85 2".encode()), (b"C", b"3"))


BINDS = [
    # words, PYWEB_*, file, addresses
    ([], {}, "", "127.0.0.1:8000"),
    (["9"], {}, "", "127.0.0.1:9"),
    (["-b", "::1"], {}, "", "[::1]:8000"),
    (["9", "-b", "::1", "-b", "127.0.0.1:7"], {}, "", "[::1]:9 127.0.0.1:7"),
    (["9"], {"PYWEB_BIND": "::1"}, "", "[::1]:9"),
    # A port from a stronger source is for every address, even one that has a port.
    (["9"], {"PYWEB_BIND": "127.0.0.1:7 unix:/s"}, "", "127.0.0.1:9 unix:/s"),
    (["0"], {}, 'bind = ["127.0.0.1:7", "[::1]:7"]', "127.0.0.1:0 [::1]:0"),
    # A weaker one completes.
    (["-b", "::1"], {"PYWEB_PORT": "9"}, "", "[::1]:9"),
    (["-b", "127.0.0.1:7"], {"PYWEB_PORT": "9"}, "", "127.0.0.1:7"),
    ([], {"PYWEB_PORT": "9"}, 'bind = "::1"\nport = 7', "[::1]:9"),
    ([], {}, 'bind = ["127.0.0.1", "127.0.0.2:6"]\nport = 7', "127.0.0.1:7 127.0.0.2:6"),
]


@pytest.mark.parametrize(("words", "environ", "file", "addresses"), BINDS)
def test_binds_and_ports(
    tmp_path: Path, words: list[str], environ: dict[str, str], file: str, addresses: str
) -> None:
    found = configured(*words, "--config", toml(tmp_path, file), environ=environ)
    assert " ".join(map(str, found.bind)) == addresses


WRONG_TOGETHER = [
    (["-b", "127.0.0.1", "-b", "127.0.0.1:8000"], "twice"),
    (["-b", "unix:/a", "-b", "unix:/a"], "twice"),
    (["--limit-line", "8190", "--limit-head", "8190"], "limit-head"),
    (["--mode", "prefork", "--workers", "9", "--max-connections", "8"], "max-connections"),
    (["--min-spare", "5", "--max-spare", "4"], "max-spare"),
]


@pytest.mark.parametrize(("words", "part"), WRONG_TOGETHER)
def test_wrong_together(words: list[str], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        configured(*words)


FILES = [
    ("max-conections = 5", "max-conections.*did you mean max-connections"),
    ("max_connections = 5", "max_connections.*did you mean max-connections"),
    ("zzz = 5", "no option is called 'zzz'; see"),
    ("[grace]\nx = 1", "grace.*is not text"),
    ("[server]\nport = 1", "no option is called 'server'"),
    ("grace = 2026-11-24", "grace.*is not text"),
    ("grace = [1, 2]", "one value, not a list"),
    ("header = [['A: 1']]", "is not text"),
    ("port = true", "port: 'true' is not a port"),
    ("port = -1", "port: '-1' is not a port"),
    ("port = 0.5", "port"),
    ("grace = nan", "grace"),
    ("grace = inf", "grace"),
    ("port = 1" + "0" * 5000, "pyweb.toml"),
    ("port = 0x" + "f" * 9000, "port"),
    ("port = " + "[" * 5000, "not TOML"),
    ("port = ", "not TOML"),
    ("grace = 1\ngrace = 2", "not TOML"),
    ('bind = "a\\u0000b"', "bind"),
    ('directory = "a\\u0000b"', "directory"),
    ('header = "A: b\\r\\nC: d"', "header"),
    ("engine = 'perl'", "engine"),
    ("mode = ''", "mode"),
]


@pytest.mark.parametrize(("text", "part"), FILES, ids=range(len(FILES)))
def test_bad_files(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        configured("--config", toml(tmp_path, text))


def test_the_source_is_named(tmp_path: Path) -> None:
    for words, environ, part in [
        (["--grace", "x"], {}, "the command line: grace: 'x' is not a time"),
        ([], {"PYWEB_GRACE": "x"}, r"PYWEB_.*: grace: 'x' is not a time"),
        (["--config", toml(tmp_path, "grace = 'x'")], {}, r"pyweb\.toml: grace: 'x' is not a time"),
    ]:
        with pytest.raises(UsageError, match=part):
            configured(*words, environ=environ)


# What is printed reads back.

ODD = "\"quote\" back\\slash 'single' #hash \x1b[31m \x7f tab\t \N{SNOWMAN} \u2028 [x] = y"


def printed(found: Config, capfdbinary: pytest.CaptureFixture[bytes]) -> bytes:
    print_config(found)
    sys.stdout.flush()
    return capfdbinary.readouterr().out


ROUND_TRIPS = [
    [],
    ["9", "-b", "::1", "-b", "unix:/a b", "-b", "[fe80::1%lo]:80"],
    ["--grace", "1.1ms", "--timeout-idle", "0.001", "--timeout-write", "123456.654321"],
    ["--grace", "2000000", "--max-body", "16G", "--no-listing", "--index", ""],
    ["--header", f"X-Odd: {ODD}".replace("\x1b", "").replace("\x7f", ""), "--header", "Y: \udcff"],
    ["--access-log", ODD, "--log-format", "json", "--engine", "python"],
    ["--index", "a.html, \udcff.html,\x7f"],
    ["--pid-file", ODD, "--socket-mode", "0006", "--socket-owner", "a:b"],
]


@pytest.mark.parametrize("words", ROUND_TRIPS, ids=range(len(ROUND_TRIPS)))
def test_round_trip(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], words: list[str]
) -> None:
    before = configured(*words)
    out = printed(before, capfdbinary)
    path = tmp_path / "printed.toml"
    path.write_bytes(out)
    assert configured("--config", str(path)) == before
    table = tomllib.loads(out.decode("utf-8", "surrogateescape"))
    assert set(table) == {option.name for option in OPTIONS} - {"port"}


def test_round_trip_of_a_directory(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    root = tmp_path / ODD.replace("/", "")
    root.mkdir()
    before = configured(str(root))
    path = tmp_path / "printed.toml"
    path.write_bytes(printed(before, capfdbinary))
    assert configured("--config", str(path)).directory == str(root) == before.directory


@settings(deadline=None)
@given(st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,6})? ?(ms|s|m|h|)", fullmatch=True))
def test_times_read_back(text: str) -> None:
    try:
        value = config.seconds(text)
    except ValueError:
        return
    assert 0 <= value <= 2_000_000
    assert config.seconds(str(value)) == value


# What a word of the command line can be made of: os.fsdecode of any bytes.
NOT_UTF8 = st.sampled_from([chr(code) for code in range(0xDC80, 0xDD00)])


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8") | NOT_UTF8))
def test_no_text_breaks_a_parse(text: str) -> None:
    for option in OPTIONS:
        try:
            option.parse(text)
        except UnicodeError:
            pytest.fail(f"{option.name} met a text that it could not handle")
        except ValueError:
            pass


ODD_TEXT = st.text(st.sampled_from("Aa:-_ \t\r\n\0\x0b\x1c\x7f\x85é\udcff\u2028"), max_size=5)


@settings(deadline=None)
@given(ODD_TEXT, ODD_TEXT)
def test_no_header_injects(left: str, right: str) -> None:
    try:
        name, value = config.header(f"{left}:{right}")
    except ValueError:
        return
    assert name
    assert not set(name + value) & set(b"\r\n\0\x7f\x0b\x1c")
    assert not set(name) & set(b" \t:\x85\xe9\xff")


def test_check_and_print_as_commands(tmp_path: Path) -> None:
    """The real command, the real environment."""
    command = [sys.executable, "-m", "pyweb"]
    file = toml(tmp_path, "grace = 7\n")
    environ = {"PATH": "/usr/bin:/bin", "PYWEB_CONFIG": file, "PYWEB_TIMEOUT_IDLE": "8"}
    words = [*command, "9", "--print-config"]
    out = subprocess.run(words, env=environ, check=True, capture_output=True, timeout=20)
    table = tomllib.loads(out.stdout.decode())
    assert (table["grace"], table["timeout-idle"], table["bind"]) == (7.0, 8.0, ["127.0.0.1:9"])
    assert out.stderr == b""
    words = [*command, "--check-config"]
    out = subprocess.run(words, env=environ, check=True, capture_output=True, timeout=20)
    assert (out.stdout, out.stderr) == (b"the configuration is good\n", b"")
    words = [*command, "--check-config", "--grace", "x"]
    failed = subprocess.run(words, env=environ, check=False, capture_output=True, timeout=20)
    assert (failed.returncode, failed.stdout, failed.stderr.count(b"\n")) == (2, b"", 1)
