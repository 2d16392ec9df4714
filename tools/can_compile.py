"""Exit 0 if a C extension can be built here: a compiler, and the headers of this Python."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path


def can_compile() -> bool:
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(command) is not None and header.exists()


if __name__ == "__main__":
    sys.exit(not can_compile())
