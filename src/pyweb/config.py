"""The options: each declared once, checked once, before the first fork.

OPTIONS is the only list: the command line, PYWEB_* variables, the TOML file, --print-config and
--help are all made from it. A value comes as text from any of them, and one function turns that
text into a value or says what it must be. Not here: argparse, files, the environment (cli.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import UsageError
from .grammar import FIELD, TCHAR

Parse = Callable[[str], Any]

MODES = ("fork", "prefork", "thread")

# _fastparse.pxd has room for so many fields.
MAX_FIELDS = 1000


class Address(NamedTuple):
    """Where to listen: host and port (None until a port is known), or the path of a socket."""

    host: str
    port: int | None = None
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


# Text -> value. ValueError's text completes the sentence "NAME: VALUE is not ...".


def whole(low: int, high: int) -> Parse:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """Bytes; 64K, 10M, 1G and 1GiB are multiples of 1024."""
    match = re.fullmatch(r"([0-9]{1,15}) ?(?:([kmgt])i?)?b?", text.lower(), re.ASCII)
    if not match:
        raise ValueError("a size: bytes, or a number with K, M, G or T")
    return int(match[1]) * _UNITS[match[2] or ""]


def size_of_head(text: str) -> int:
    value = size(text)
    if not 256 <= value <= 1 << 24:
        raise ValueError("a size from 256 to 16M")
    return value


_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}
# What poll(2) can wait for: 2^31 ms are 24.8 days.
_LONGEST = 2_000_000


def seconds(text: str) -> float:
    """Seconds; 500ms, 30s, 5m and 1h too."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|)", text.lower())
    if not match:
        raise ValueError("a time: seconds, or a number with ms, s, m or h")
    value = round(float(match[1]) * _SECONDS[match[2]], 6)
    if value > _LONGEST or 0 < value < 0.001:
        raise ValueError(f"a time of 0, or from 1 ms to {_LONGEST} s")
    return value


def some_seconds(text: str) -> float:
    value = seconds(text)
    if not value:
        raise ValueError("a time above 0")
    return value


def flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("true or false")


def one_of(*choices: str) -> Parse:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text

    return parse


def text(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("a name")
    return value


def names(value: str) -> tuple[str, ...]:
    """File names, separated by commas."""
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    if any("/" in name or "\0" in name or name in (".", "..") for name in found):
        raise ValueError("names of files, separated by commas")
    return found


def address(value: str) -> Address:
    """ADDR, ADDR:PORT, [V6]:PORT, a bare IPv6 address, :PORT, unix:PATH."""
    if value.startswith("unix:"):
        if not value[5:] or "\0" in value:
            raise ValueError("a socket: unix:PATH")
        return Address("", path=value[5:])
    if re.fullmatch("[0-9]+", value):
        raise ValueError(f"an address; a port alone is :{value}, or --port {value}")
    match = re.fullmatch(r"\[([0-9A-Fa-f:.%\w]+)\](?::([0-9]+))?", value)
    if match is None and value.count(":") > 1:
        match = re.fullmatch(r"([0-9A-Fa-f:.%\w]+)()", value)
    if match is None:
        match = re.fullmatch(r"([^:\[\]/\s\0]*)(?::([0-9]+))?", value)
    if match is None or not value:
        raise ValueError("an address: ADDR, ADDR:PORT, [IPV6]:PORT or unix:PATH")
    return Address(match[1] or "0.0.0.0", port(match[2]) if match[2] else None)


def port(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) > 65535:
        raise ValueError("a port: 0 (any that is free) to 65535")
    return int(value)


# What frames a message is ours to say; a wrong word there would break every answer.
_OURS = (
    "connection", "content-encoding", "content-length", "content-range", "content-type", "date",
    "etag", "keep-alive", "last-modified", "location", "te", "trailer", "transfer-encoding",
    "upgrade",
)  # fmt: skip


def header(value: str) -> tuple[bytes, bytes]:
    """Name: value"""
    name, colon, content = value.partition(":")
    raw_name = name.encode("utf-8", "surrogateescape")
    raw = content.strip(" \t").encode("utf-8", "surrogateescape")
    if not colon or not name or raw_name.strip(TCHAR) or raw.translate(None, FIELD):
        raise ValueError("a field: 'Name: value' on one line")
    if name.lower() in _OURS:
        raise ValueError("a field that can be set: pyweb itself says " + name)
    return raw_name, raw


def permissions(value: str) -> int | None:
    """Octal, with its zero: 660 could be the decimal number that TOML makes of 0o660."""
    if value == "off":
        return None
    if not re.fullmatch("0[0-7]{3}", value):
        raise ValueError('a mode in octal, four digits as in "0660", or off')
    return int(value, 8)


def owner(value: str) -> str:
    """USER, USER:GROUP or :GROUP, each a name or a number; off."""
    if not re.fullmatch(r"(?!:$)[\w.@$-]{0,64}(:[\w.@$-]{1,64})?", value) or not value:
        raise ValueError("an owner: USER, USER:GROUP or :GROUP, or off")
    return value


class Option(NamedTuple):
    """One option. `name` is the long option, the TOML key and (upper case, _) the variable.

    default   as text, as one would write it
    many      may be given again; the value is a tuple
    """

    name: str
    parse: Parse
    default: str | None
    metavar: str
    help: str
    group: str
    short: str = ""
    many: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    @property
    def is_flag(self) -> bool:
        return self.parse is flag


_SERVE, _POOL = "What is served, and where", "The pool"
_LIMIT, _TIME, _LOG, _SYSTEM = "Limits", "Times", "Log", "The system"

DEFAULT_BIND = (Address("127.0.0.1", 8000),)

OPTIONS: tuple[Option, ...] = (
    Option("bind", address, None, "ADDR[:PORT]",
           "address to listen on, or unix:PATH; repeatable [127.0.0.1]", _SERVE, "b", many=True),
    Option("port", port, None, "PORT",
           "port for each --bind without one; 0: any that is free [8000]", _SERVE),
    Option("directory", text, ".", "DIR", "the document root", _SERVE, "d"),
    Option("index", names, "index.html,index.htm", "NAME,NAME",
           "files that answer for a directory", _SERVE),
    Option("no-listing", flag, "false", "", "a directory without index is refused, not listed",
           _SERVE),
    Option("header", header, None, "'NAME: VALUE'", "a field for every answer; repeatable",
           _SERVE, many=True),
    Option("mode", one_of(*MODES), "fork", "MODE",
           "fork (a process for each connection), prefork or thread", _SERVE),
    Option("engine", one_of("cython", "python"), None, "ENGINE",
           "cython (compiled) or python (the interpreter alone) [cython]", _SERVE),
    Option("workers", whole(1, 10_000), None, "N",
           "prefork: workers in the pool, at the least [usable CPUs]", _POOL),
    Option("min-spare", whole(0, 10_000), "0", "N",
           "prefork: grow while fewer workers are idle; 0: don't", _POOL),
    Option("max-spare", whole(0, 10_000), "0", "N",
           "prefork: shrink while more workers are idle; 0: don't", _POOL),
    Option("max-requests", whole(0, 1_000_000_000), "0", "N",
           "prefork: a worker leaves after so many; 0: never", _POOL),
    Option("max-requests-jitter", whole(0, 1_000_000_000), "0", "N",
           "up to so many more, so that not all leave at once", _POOL),
    Option("max-connections-per-child", whole(0, 1_000_000_000), "0", "N",
           "prefork: likewise; 1: spares for one connection each", _POOL),
    Option("spares", whole(0, 1000), "0", "N",
           "fork: processes that are there before their connections", _POOL),
    Option("threads", whole(1, 1000), "8", "N", "thread: threads in the one process", _POOL),
    Option("no-parking", flag, "false", "",
           "an idle connection keeps its process, or all of its worker", _POOL),
    Option("max-connections", whole(1, 1_000_000), "1024", "N", "processes at once", _LIMIT),
    Option("per-client", whole(0, 1_000_000), "0", "N",
           "connections of one address at once, 503 beyond; 0: no limit", _LIMIT),
    Option("backlog", whole(1, 1_000_000), "2048", "N",
           "connections that the kernel lets wait", _LIMIT),
    Option("keepalive-requests", whole(0, 1_000_000_000), "0", "N",
           "requests on one connection; 0: no limit", _LIMIT),
    Option("limit-line", size_of_head, "8190", "BYTES", "length of the request line, 414 beyond",
           _LIMIT),
    Option("limit-head", size_of_head, "65536", "BYTES", "size of the head, 431 beyond", _LIMIT),
    Option("limit-fields", whole(1, MAX_FIELDS), "100", "N", "field lines in the head, 431 beyond",
           _LIMIT),
    Option("max-body", size, "1G", "BYTES", "size of a request's body, 413 beyond; 0: no limit",
           _LIMIT),
    Option("timeout-header", some_seconds, "20", "SECONDS", "for the whole head, 408 after",
           _TIME),
    Option("timeout-body", some_seconds, "60", "SECONDS", "for the body, more as it arrives",
           _TIME),
    Option("timeout-write", some_seconds, "60", "SECONDS", "for the answer, more as it leaves",
           _TIME),
    Option("min-rate", whole(0, 1 << 40), "500", "BYTES/S",
           "body and write gain 1/rate s a byte; 0: each byte renews", _TIME),
    Option("timeout-request", seconds, "0", "SECONDS",
           "a process that hangs over a request is ended, 504; 0: never", _TIME),
    Option("timeout-idle", some_seconds, "15", "SECONDS", "for the next request", _TIME),
    Option("timeout-queue", seconds, "10", "SECONDS", "wait for a process, 503 after", _TIME),
    Option("grace", seconds, "30", "SECONDS", "for connections to end after SIGTERM", _TIME),
    Option("access-log", text, "-", "PATH", "a file, - for standard output, or off", _LOG),
    Option("log-format", one_of("combined", "json"), "combined", "FORMAT", "combined or json",
           _LOG),
    Option("cache", whole(0, 1 << 20), "8192", "N",
           "decisions that C repeats, 8 KB each; 0: none", _SYSTEM),
    Option("no-kinds", flag, "false", "",
           "each file is decided about by itself, not with those like it", _SYSTEM),
    Option("no-bare", flag, "false", "",
           "mode fork: each child gets all of the master's memory", _SYSTEM),
    Option("no-porter", flag, "false", "",
           "mode fork: Python alone lets in who comes and sees off who goes", _SYSTEM),
    Option("batch", flag, "false", "",
           "who is woken waits for the CPU (SCHED_BATCH): more a second", _SYSTEM),
    Option("stamps", whole(0, 1_000_000), "0", "N",
           "records of when what happened, for pyweb-lab; 0: none", _SYSTEM),
    Option("pid-file", text, "off", "PATH", "a file for the supervisor's pid, or off", _SYSTEM),
    Option("socket-mode", permissions, "off", "MODE",
           "permissions of unix sockets, as 0660; off: by the umask", _SYSTEM),
    Option("socket-owner", owner, "off", "USER[:GROUP]",
           "owner of unix sockets; off: whoever starts pyweb", _SYSTEM),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}


class Config(NamedTuple):
    """Every option's value, checked. Times in seconds, sizes in bytes, 0 where it says "off".

    --port is in `bind`, where each address but a socket's path has one.
    """

    bind: tuple[Address, ...]
    directory: str
    index: tuple[str, ...]  # type: ignore[assignment]  # as tuple.index, which no one calls here
    no_listing: bool
    header: tuple[tuple[bytes, bytes], ...]
    mode: str
    engine: str
    workers: int
    min_spare: int
    max_spare: int
    max_requests: int
    max_requests_jitter: int
    max_connections_per_child: int
    spares: int
    threads: int
    no_parking: bool
    max_connections: int
    per_client: int
    backlog: int
    keepalive_requests: int
    limit_line: int
    limit_head: int
    limit_fields: int
    max_body: int
    timeout_header: float
    timeout_body: float
    timeout_write: float
    min_rate: int
    timeout_request: float
    timeout_idle: float
    timeout_queue: float
    grace: float
    access_log: str
    log_format: str
    cache: int
    no_bare: bool
    no_kinds: bool
    no_porter: bool
    batch: bool
    stamps: int
    pid_file: str
    socket_mode: int | None
    socket_owner: str


class Source:
    """Texts of one origin ("the command line", "PYWEB_PORT", "pyweb.toml"), by option name."""

    def __init__(self, name: str, values: Mapping[str, str | list[str]]) -> None:
        self.name = name
        self.values = values


def build(sources: list[Source], engines: tuple[str, ...]) -> Config:
    """The configuration; the first source that has an option wins. UsageError names the thing.

    engines: those that this build has, the best first.
    """
    values: dict[str, Any] = {}
    rank: dict[str, int] = {}
    for option in OPTIONS:
        values[option.key], rank[option.name] = _value(option, sources)
    values["bind"] = _addresses(values["bind"], values.pop("port"), rank)
    values["engine"] = _engine(values["engine"], engines)
    if values["workers"] is None:
        values["workers"] = min(_usable_cpus(), values["max_connections"])
    config = Config(**values)
    _check_together(config)
    return config


def _value(option: Option, sources: list[Source]) -> tuple[Any, int]:
    for rank, source in enumerate(sources):
        if option.name in source.values:
            return _parse(option, source.values[option.name], source.name), rank
    if option.default is None:
        return () if option.many else None, len(sources)
    return option.parse(option.default), len(sources)


def _parse(option: Option, given: str | list[str], source: str) -> Any:
    if option.many:
        items = [given] if isinstance(given, str) else given
        return tuple(_parse_one(option, item, source) for item in items)
    if not isinstance(given, str):
        raise UsageError(f"{source}: {option.name} can be given once, not as a list")
    return _parse_one(option, given, source)


def _parse_one(option: Option, given: str, source: str) -> Any:
    try:
        return option.parse(given)
    except ValueError as wanted:
        raise UsageError(f"{source}: {option.name}: {given!r} is not {wanted}") from None


def _addresses(
    bind: tuple[Address, ...], port: int | None, rank: dict[str, int]
) -> tuple[Address, ...]:
    """A port goes to each address without one, or to all when a stronger source gave it."""
    stronger = port is not None and rank["port"] < rank["bind"]
    default = DEFAULT_BIND[0].port if port is None else port
    found = bind or (Address(DEFAULT_BIND[0].host),)
    return tuple(
        a if a.path or (a.port is not None and not stronger) else Address(a.host, default)
        for a in found
    )


def _usable_cpus() -> int:
    """Those that this process may run on, not those that the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _engine(wanted: str | None, engines: tuple[str, ...]) -> str:
    if wanted is None:
        return engines[0]
    if wanted not in engines:
        raise UsageError(
            "engine: 'cython' is not built into this installation;"
            " install pyweb with a C compiler at hand, or use --engine python"
        )
    return wanted


def _check_together(config: Config) -> None:
    if config.max_spare and config.max_spare < config.min_spare:
        raise UsageError(
            f"max-spare ({config.max_spare}) is below min-spare ({config.min_spare}); raise it"
        )
    if config.spares and config.mode != "fork":
        raise UsageError(f"spares are of mode fork; in mode {config.mode} there is --min-spare")
    if config.spares and (config.no_bare or not config.cache):
        other = "no-bare" if config.no_bare else "cache 0"
        raise UsageError(
            f"spares repeat what is cached, in C alone; leave out --spares or --{other}"
        )
    if config.mode == "prefork" and config.workers > config.max_connections:
        raise UsageError(
            f"workers ({config.workers}) are more than max-connections"
            f" ({config.max_connections}) allows; raise max-connections"
        )
    if config.limit_line + 16 > config.limit_head:
        raise UsageError(
            f"limit-line ({config.limit_line}) must leave room in limit-head"
            f" ({config.limit_head}); raise limit-head"
        )
    named = [a for a in config.bind if a.path or a.port]
    if len(set(named)) < len(named):
        raise UsageError("bind: the same address is given twice; name each once")


def as_texts(config: Config) -> dict[str, bool | int | float | str | list[str]]:
    """Option names and values as a TOML file would have them."""
    shown: dict[str, bool | int | float | str | list[str]] = {}
    for option in OPTIONS:
        if option.name == "port":
            continue
        value = getattr(config, option.key)
        if option.name == "bind":
            shown[option.name] = [str(a) for a in value]
        elif option.name == "header":
            shown[option.name] = [
                (n + b": " + v).decode("utf-8", "surrogateescape") for n, v in value
            ]
        elif option.name == "index":
            shown[option.name] = ",".join(value)
        elif option.name == "socket-mode":
            shown[option.name] = "off" if value is None else f"{value:04o}"
        else:
            shown[option.name] = value
    return shown
