"""The door: words on a command line become a Config, and the Config a running server.

All of argparse, the environment and TOML is here and nowhere below. Whatever is wrong with what
the user gave ends in one or two lines on stderr and exit code 2, never in a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from typing import Any, NoReturn

from . import __version__
from .config import BY_NAME, OPTIONS, Config, Option, Source, as_texts, build
from .docroot import open_root
from .errors import EXIT_CANNOT_START, EXIT_DONE, EXIT_USAGE, StartError, UsageError
from .journal import complain
from .parse import ENGINES
from .pidfile import read_pid
from .server import serve

_COMMAND = "the command line"

_HEAD = """\
usage: pyweb [PORT] [DIR] [options]

Serves a directory over HTTP, a process for each connection.

  pyweb                        this directory on http://127.0.0.1:8000/
  pyweb 8080 ~/site            another port, another directory
  pyweb -b 0.0.0.0 -b '[::]'   to the network, IPv4 and IPv6
  pyweb -b unix:/run/web.sock  on a unix socket
  pyweb status [PID|FILE]      what goes on in the servers that run (pyweb status --help);
                               a directory of that name is ./status
"""

_TAIL = """\
Configuration
      --config FILE.toml            the same names in a file: max-connections = 200
      --check-config                check it all, start nothing
      --print-config                print it all, as TOML, start nothing
      --version                     print the version and the engine that runs
  -h, --help                        print this

The command line wins over PYWEB_* variables (PYWEB_MAX_CONNECTIONS=200), and these over the file.
Sizes take K, M, G; times ms, s, m, h. SIGTERM lets connections end, a second one ends them.
"""


_STATUS_HELP = """\
usage: pyweb status [PID|FILE] [--json | --watch]

Shows what goes on in the servers that run: those that this user may look into (root: all), or
the one whose supervisor or master is PID, or whose --pid-file is FILE. Exit code 1: there is none.

      --json     one JSON document
      --watch    live, each second anew, until Ctrl-C (needs rich: pip install 'pyweb[watch]')
  -h, --help     print this
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        # argparse's own keeps silent when it can't write.
        print(help_text(), end="", file=file)


class _StatusParser(_Parser):
    def print_help(self, file: Any = None) -> None:
        print(_STATUS_HELP, end="", file=file)


def help_text() -> str:
    groups: dict[str, list[str]] = {}
    for option in OPTIONS:
        groups.setdefault(option.group, []).append(_help_of(option))
    body = "\n".join(f"{name}\n" + "\n".join(lines) + "\n" for name, lines in groups.items())
    return f"{_HEAD}\n{body}\n{_TAIL}"


def _help_of(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    words = f"  {short}--{option.name} {option.metavar}".rstrip()
    default = "" if option.default in (None, "false") else f" [{option.default}]"
    return f"{words:35} {option.help}{default}"


def _arguments() -> _Parser:
    parser = _Parser(prog="pyweb", allow_abbrev=False)
    parser.add_argument("what", nargs="*")
    for option in OPTIONS:
        flags = [f"--{option.name}"]
        if option.short:
            flags.insert(0, f"-{option.short}")
        if option.is_flag:
            parser.add_argument(*flags, dest=option.name, action="store_const", const="true")
        else:
            action = "append" if option.many else "store"
            parser.add_argument(*flags, dest=option.name, action=action)
    # http.server's option; pyweb answers each client in the client's own version.
    parser.add_argument("-p", "--protocol", choices=("HTTP/1.0", "HTTP/1.1"))
    parser.add_argument("--config")
    parser.add_argument("--check-config", action="store_true")
    parser.add_argument("--print-config", action="store_true")
    parser.add_argument("--version", action="store_true")
    return parser


def from_command_line(given: argparse.Namespace) -> Source:
    values = {n: v for n, v in vars(given).items() if n in BY_NAME and v is not None}
    for word in given.what:
        name = _meaning_of(word)
        if name in values:
            raise UsageError(f"{_COMMAND}: {name} is given twice ({values[name]!r} and {word!r})")
        values[name] = word
    return Source(_COMMAND, values)


def _meaning_of(word: str) -> str:
    """A positional argument by what it is."""
    if word.isascii() and word.isdigit():
        return "port"
    if os.path.isdir(word):
        return "directory"
    if ":" in word:
        raise UsageError(
            f"{word!r} looks like an application; pyweb serves directories only so far"
        )
    raise UsageError(f"no such directory: {word!r}; name an existing directory or a port")


def from_environment(environ: Mapping[str, str]) -> Source:
    values: dict[str, str | list[str]] = {}
    for option in OPTIONS:
        text = environ.get("PYWEB_" + option.key.upper())
        if text is not None:
            # Addresses have no spaces in them; field lines have, but no line ends.
            many = text.split() if option.name == "bind" else re.split("\r?\n", text)
            values[option.name] = [word for word in many if word] if option.many else text
    return Source("the environment (PYWEB_*)", values)


def from_file(path: str) -> Source:
    try:
        with open(path, "rb") as file:
            # File names need not be UTF-8: --print-config writes them as they are.
            table = tomllib.loads(file.read().decode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"config: {path!r}: {error.strerror}; name a TOML file") from None
    except (ValueError, RecursionError) as error:  # numbers and nests that are too large, too
        raise UsageError(f"config: {path!r} is not TOML: {error}") from None
    return Source(path, {name: _text_of(path, name, value) for name, value in table.items()})


def _text_of(path: str, name: str, value: object) -> str | list[str]:
    if name not in BY_NAME:
        raise UsageError(f"{path}: no option is called {name!r}{_nearest(name)}; see pyweb --help")
    if isinstance(value, list):
        if BY_NAME[name].many or name == "index":
            texts = [_scalar(path, name, item) for item in value]
            return texts if BY_NAME[name].many else ",".join(texts)
        raise UsageError(f"{path}: {name} takes one value, not a list")
    return _scalar(path, name, value)


def _scalar(path: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 1 << 64:
        raise UsageError(f"{path}: {name}: the number is too large")
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{path}: {name}: {value!r} is not text, a number, or true or false")


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name.replace("_", "-"), list(BY_NAME), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def configure(given: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    sources = [from_command_line(given), from_environment(environ)]
    path = environ.get("PYWEB_CONFIG") or None if given.config is None else given.config
    if path is not None:
        sources.append(from_file(path))
    config = build(sources, ENGINES)
    open_root(config.directory).close()
    return config


def print_config(config: Config) -> None:
    lines = []
    for name, value in as_texts(config).items():
        # A JSON text is a TOML text too, but for DEL.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{name} = {text}\n")
    sys.stdout.buffer.write("".join(lines).encode("utf-8", "surrogateescape"))


def version_text(engine: str | None) -> str:
    """With the engine that runs: the one asked for beside --version, or the best there is."""
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"engine: {engine!r} is not one of {', '.join(ENGINES)}")
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"pyweb {__version__} (engine {engine or ENGINES[0]}, {sys.implementation.name} {python})"
    )


def _pid(text: str) -> int:
    """A number, or else what stands in a pid file. One that is gone says: no server."""
    if "/" in text or (not text.isdigit() and os.path.exists(text)):
        return read_pid(text)
    if not re.fullmatch("[0-9]{1,10}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither the pid of a process nor a file")
    return int(text)


def _show_status(arguments: list[str]) -> None:
    parser = _StatusParser(prog="pyweb status", allow_abbrev=False)
    parser.add_argument("pid", nargs="?", type=_pid, metavar="PID")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true")
    how.add_argument("--watch", action="store_true")
    given = parser.parse_args(arguments)
    # Not above: a server that serves must not be larger for it.
    if given.watch:
        from .watch import watch

        watch(given.pid)
        return
    from .status import look
    from .statustext import text_of

    servers = look(given.pid)
    if given.json:
        print(json.dumps({"servers": servers}, indent=2))
    else:
        print("\n\n".join(map(text_of, servers)))


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["status"]:
        _show_status(arguments[1:])
        return EXIT_DONE
    given = _arguments().parse_intermixed_args(arguments)
    if given.version:
        print(version_text(given.engine))
        return EXIT_DONE
    config = configure(given, os.environ)
    if given.print_config:
        print_config(config)
    elif given.check_config:
        print("the configuration is good")
    else:
        return serve(config, lambda: configure(given, os.environ))
    return EXIT_DONE


def main(arguments: list[str] | None = None) -> int:
    """The command. Gives the exit code."""
    _open_standard_streams()
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        return complain(str(error), EXIT_USAGE)
    except StartError as error:
        return complain(str(error), EXIT_CANNOT_START)
    except KeyboardInterrupt:
        pass  # before the server listens for signals
    except BrokenPipeError:
        _give_up_stdout()  # whoever read --help or --print-config has seen enough
    except OSError as error:
        _give_up_stdout()
        return complain(f"standard output: {error.strerror}", EXIT_CANNOT_START)
    return EXIT_DONE


def _open_standard_streams() -> None:
    """Where 0, 1 or 2 is closed, the next file or socket would get its number, and the log would
    be written into it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _give_up_stdout() -> None:
    """What is buffered goes nowhere, instead of failing again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
