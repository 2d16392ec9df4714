"""python -m pyweb.lab, and pyweb-lab. What the laboratory needs beyond pyweb is told in a line."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = ("numpy", "rich")


def main() -> int:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"pyweb-lab needs {' and '.join(missing)}: pip install 'pyweb[lab]'", file=sys.stderr)
        return 2
    from .cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
