"""Run a command as a hardened unit would have it run: its system calls filtered, no page both
writable and executable, no new rights.

    python confined.py UNIT COMMAND...

What the filter forbids is no error here but death (SIGSYS): a fallback must not hide it. Without
systemd, by the same means: libseccomp and prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 38, 65, 1
KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000
UNKNOWN = -1


def members(name: str) -> set[str]:
    """System calls of a set, as systemd has it."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in text.splitlines()[1:]]
    return {one for word in words if word and word[0] != "#" for one in members(word)}


def allowed(unit: str) -> set[str]:
    """The first line allows, those with ~ take away (systemd.exec(5))."""
    found: set[str] = members("@default")
    for value in re.findall(r"^SystemCallFilter=(.*)$", Path(unit).read_text(), re.M):
        calls = {call for name in value.lstrip("~").split() for call in members(name)}
        found = found - calls if value.startswith("~") else found | calls
    return found


def confine(unit: str) -> None:
    calls = allowed(unit)
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(KILL_PROCESS)))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number != UNKNOWN:
            seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)  # Linux 6.3; else it isn't tested
    if seccomp.seccomp_load(context) != 0:
        sys.exit("seccomp_load failed")


if __name__ == "__main__":
    confine(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
