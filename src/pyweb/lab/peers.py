"""The servers that pyweb is compared with, as data: where each is found, how it is got, and how it
is started so that its work is equal.

Equal: the file, the port of 127.0.0.1, a line in a log for each request, a worker for each CPU
where a server has workers, and as large a backlog as it lets itself be told. Else each has what its
own documentation recommends; its configuration is in conf/. Not here: how a server is started and
ended (guests.py), and what is asked of it (contest.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What the configurations and programs of others are in.
FILES = Path(__file__).parent / "conf"
# Where Debian has servers, which not everybody's PATH has.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Of Apache, by distribution.
_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/libexec/apache2")
BACKLOG = 2048


@dataclass(frozen=True)
class Setting:
    """What a server is told. `directory`: its own, empty; `file`: what it serves, at the path of
    its name; `user`: that its processes are to be of, where it wants to be told; None: nothing.
    `logs`: a line for each request; False: none, of those who `may_be_silent`."""

    port: int
    directory: Path
    file: Path
    workers: int
    user: str | None = None
    python: str = sys.executable
    logs: bool = True

    @property
    def site(self) -> Path:
        return self.file.parent

    @property
    def log(self) -> Path:
        return self.directory / "access.log"


@dataclass(frozen=True)
class Start:
    """`words`: the command. `configuration`: its text, written to `directory`/configuration, which
    the command names, or of the program that it is told to run. `log`: the name of its access log
    in `directory`."""

    words: tuple[str, ...]
    configuration: str = ""
    environ: tuple[tuple[str, str], ...] = ()
    log: str = "access.log"


@dataclass(frozen=True)
class Peer:
    """`process`: what a connection, or a request, gets. `find`: its program, or None. `get`: the
    command that brings it. `version`: words after its program that make it tell. `keeps`: it keeps
    connections. `may_be_silent`: see Setting. `notes`: what is not equal."""

    name: str
    process: str
    find: Callable[[], str | None]
    get: str
    version: tuple[str, ...]
    start: Callable[[str, Setting], Start]
    keeps: bool = True
    may_be_silent: bool = False
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What is said where it is not installed."""
        return f"{self.name} is not installed: {self.get}"


def _program(*names: str) -> Callable[[], str | None]:
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    return lambda: next((found for name in names if (found := shutil.which(name, path=path))), None)


def _module(name: str) -> Callable[[], str | None]:
    """A package of this interpreter: its program is the interpreter."""
    return lambda: sys.executable if importlib.util.find_spec(name) else None


def _beside(name: str) -> Callable[[], str | None]:
    """A program that pip has put beside this interpreter: another's would run another Python."""
    return lambda: shutil.which(name, path=str(Path(sys.executable).parent))


def configuration(setting: Setting) -> Path:
    return setting.directory / "configuration"


def _text(name: str) -> str:
    return (FILES / name).read_text("utf-8")


def _filled(name: str, setting: Setting, **more: str) -> str:
    known = {"port": str(setting.port), "directory": str(setting.directory),
             "site": str(setting.site), "workers": str(setting.workers)}  # fmt: skip
    # $h, %{...}i and the like are Apache's own: only what is ours is filled in.
    return string.Template(_text(name)).safe_substitute(known | more)


def _apache(program: str, setting: Setting) -> Start:
    modules = next((path for path in _MODULES if Path(path).is_dir()), _MODULES[0])
    user = f"User {setting.user}\nGroup {setting.user}" if setting.user else ""
    log = f'CustomLog "{setting.log}" combined' if setting.logs else ""
    text = _filled("apache.conf", setting, modules=modules, user=user, log=log)
    return Start((program, "-f", str(configuration(setting)), "-DFOREGROUND"), text)


def _nginx(program: str, setting: Setting) -> Start:
    user = f"user {setting.user};" if setting.user else ""
    log = f"{setting.log} combined_here buffer=64k flush=1s" if setting.logs else "off"
    text = _filled("nginx.conf", setting, user=user, log=log)
    errors = str(setting.directory / "error.log")
    return Start((program, "-e", errors, "-c", str(configuration(setting))), text)


def _lighttpd(program: str, setting: Setting) -> Start:
    text = _filled("lighttpd.conf", setting)
    return Start((program, "-D", "-f", str(configuration(setting))), text)


def _mini_httpd(program: str, setting: Setting) -> Start:
    words = (program, "-D", "-h", "127.0.0.1", "-p", str(setting.port), "-d", str(setting.site),
             "-l", str(setting.log), "-i", str(setting.directory / "pid"))  # fmt: skip
    return Start((*words, "-u", setting.user) if setting.user else words)


def _http_server(program: str, setting: Setting) -> Start:
    return Start(
        (program, "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1",
         "--directory", str(setting.site), str(setting.port)),
        log="stderr.log",
    )  # fmt: skip


def _forking(program: str, setting: Setting) -> Start:
    script = str(FILES / "forking.py")
    words = (program, script, str(setting.port), str(setting.site), str(setting.log))
    return Start(words, _text("forking.py"))


def _plainfork(program: str, setting: Setting) -> Start:
    words = (program, "-m", "pyweb.lab.plainfork", str(setting.port))
    return Start((*words, str(setting.file), str(setting.log)))


def _wsgi(setting: Setting) -> tuple[tuple[str, str], ...]:
    return (("PYWEB_LAB_FILE", str(setting.file)), ("PYTHONDONTWRITEBYTECODE", "1"))


def _gunicorn(program: str, setting: Setting) -> Start:
    words = (program, "-m", "gunicorn", "--chdir", str(FILES), "-b", f"127.0.0.1:{setting.port}",
             "-w", str(setting.workers), "--backlog", str(BACKLOG), "--worker-tmp-dir", "/dev/shm",
             "--access-logfile", str(setting.log), "app")  # fmt: skip
    return Start(words, _text("app.py"), environ=_wsgi(setting))


def _granian(program: str, setting: Setting) -> Start:
    form = '%(addr)s - - [%(time)s] "%(method)s %(path)s %(protocol)s" %(status)d - "-" "-"'
    words = (program, "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(setting.port),
             # A worker that is told to end before it has started does not hear it.
             "--workers-kill-timeout", "2",
             "--workers", str(setting.workers), "--backlog", str(BACKLOG), "--no-ws",
             "--blocking-threads", "1",
             "--working-dir", str(FILES), "--access-log", "--access-log-fmt", form,
             "app:application")  # fmt: skip
    return Start(words, _text("app.py"), environ=_wsgi(setting), log="stdout.log")


def _uwsgi(program: str, setting: Setting) -> Start:
    form = '%(addr) - - [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(rsize) "-" "-"'
    words = (program, "--http-socket", f"127.0.0.1:{setting.port}", "--master", "--need-app",
             "--die-on-term", "--processes", str(setting.workers), "--chdir", str(FILES),
             "--wsgi-file", "app.py", "--listen", str(_somaxconn()), "--add-header",
             "Connection: close", "--logger", f"file:{setting.log}", "--log-format", form,
             "--virtualenv", sys.prefix)  # fmt: skip
    return Start(words, _text("app.py"), environ=_wsgi(setting))


def _somaxconn() -> int:
    """uWSGI does not start when it is told more."""
    with contextlib.suppress(OSError):
        return min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text("ascii")))
    return 100


def _bjoern(program: str, setting: Setting) -> Start:
    words = (program, str(FILES / "app.py"), str(setting.port), str(setting.workers))
    return Start((*words, str(setting.log)), _text("app.py"), environ=_wsgi(setting))


def _pyweb(*options: str) -> Callable[[str, Setting], Start]:
    def start(program: str, setting: Setting) -> Start:
        words = (program, "-m", "pyweb", str(setting.port), "-d", str(setting.site),
                 "--access-log", str(setting.log) if setting.logs else "off")  # fmt: skip
        return Start((*words, *(one.format(workers=setting.workers) for one in options)))

    return start


def _own(name: str, process: str, *options: str) -> Peer:
    return Peer(name, process, lambda: sys.executable, "", ("-m", "pyweb", "--version"),
                _pyweb(*options), may_be_silent=True)  # fmt: skip


_BY_AN_APP = "serves the file by a WSGI application"
_CLOSES = "closes after each answer"

FORK, PREFORK, THREAD = "pyweb fork", "pyweb prefork", "pyweb thread"
AGAIN, PREFORK_AGAIN = f"{FORK} again", f"{PREFORK} again"
PLAIN, APACHE = "the article's kind", "apache"

OWN = (
    _own(FORK, "a process for each connection"),
    _own(AGAIN, "the same once more: what differs is noise"),
    _own(PREFORK, "a pool of workers", "--mode", "prefork", "--workers", "{workers}"),
    _own(PREFORK_AGAIN, "the same once more", "--mode", "prefork", "--workers", "{workers}"),
    _own(THREAD, "threads of one process", "--mode", "thread"),
)

OTHERS = (
    _own("pyweb spares", "a process for each connection, forked beforehand", "--spares", "8"),
    Peer(APACHE, "a process of a pool for each connection", _program("apache2", "httpd"),
         "apt install apache2", ("-v",), _apache, may_be_silent=True,
         notes=("a kept connection holds a process, so there are 100, and up to 150",)),
    Peer("nginx", "workers with an event loop each", _program("nginx"), "apt install nginx",
         ("-v",), _nginx, may_be_silent=True, notes=("its log is written in pieces of 64 KB",)),
    Peer("lighttpd", "workers with an event loop each", _program("lighttpd"),
         "apt install lighttpd", ("-v",), _lighttpd, notes=("its log is buffered",)),
    Peer("mini_httpd", "a process for each connection, in C", _program("mini_httpd"),
         "apt install mini-httpd", ("-V",), _mini_httpd, keeps=False, notes=(_CLOSES,)),
    Peer(PLAIN, "a process for each connection, in Python", lambda: sys.executable, "",
         ("--version",), _plainfork, keeps=False,
         notes=(_CLOSES,)),
    Peer("http.server", "a thread for each connection", lambda: sys.executable, "",
         ("--version",), _http_server, notes=("lets 5 connections wait, and writes head and content"
                " apart with Nagle's algorithm on: its command line can't be told otherwise",)),
    Peer("ForkingMixIn", "a process for each connection", lambda: sys.executable, "",
         ("--version",), _forking),
    Peer("gunicorn", "a pool of workers, a request at a time", _module("gunicorn"),
         "pip install gunicorn", ("-m", "gunicorn", "--version"), _gunicorn, keeps=False,
         notes=(_BY_AN_APP, _CLOSES + " (worker class sync)")),
    Peer("granian", "workers in Rust with a thread for Python", _beside("granian"),
         "pip install granian", ("--version",), _granian, notes=(_BY_AN_APP,)),
    Peer("uwsgi", "a pool of workers, a request at a time", _beside("uwsgi"),
         "pip install uwsgi (it needs gcc and python3-dev)", ("--version",), _uwsgi, keeps=False,
         notes=(_BY_AN_APP, _CLOSES + " (http-socket)")),
    Peer("bjoern", "workers with an event loop each", _module("bjoern"),
         "pip install bjoern (it needs gcc, python3-dev and libev-dev)",
         ("-c", "from importlib.metadata import version; print('bjoern', version('bjoern'))"),
         _bjoern,
         notes=(_BY_AN_APP, "has no log: the application writes it")),
)  # fmt: skip

PEERS = (*OWN, *OTHERS)
# Of a quick run: the classes that there are, one or two of each.
AT_A_GLANCE = (APACHE, "nginx", "mini_httpd", PLAIN, "http.server", "gunicorn")
BY_NAME = {peer.name: peer for peer in PEERS}
