"""python -m pyweb"""

import sys

# -m puts the current directory first, which is often what is served, and maybe what others may
# write to: an argparse.py in it must not be ours.
if not sys.flags.safe_path:
    del sys.path[0]

from .cli import main

sys.exit(main())
