"""What pyproject.toml can't say: which C extensions to build.

PYWEB_PURE=1    build none: the pure-Python engine alone, a py3-none-any wheel
PYWEB_WERROR=1  warnings of the C compiler are errors (CI)
"""

import os
import subprocess
import sysconfig
import tempfile

from setuptools import Extension, setup

# All in one library: see pyweb/_together.py.
MODULES = (
    "_fastparse",
    "_fastopen",
    "_fastsend",
    "_fastcache",
    "_fastclock",
    "_fastexchange",
    "_fastlook",
    "_fastlog",
    "_fastanswer",
    "_fastserve",
    "_fastfork",
    "_fastshares",
    "_fastlane",
    "_fastzygote",
    "_faststamps",
    "_fastporter",
)
PURE = os.environ.get("PYWEB_PURE", "") not in ("", "0")
FLAGS = ["-O2", "-fvisibility=hidden", "-ffunction-sections"]
if os.environ.get("PYWEB_WERROR"):
    FLAGS += ["-Wall", "-Wextra", "-Werror"]


# -z now: a forked child must not pay for lazy binding again and again. Functions by name: those
# that a child calls are ours, and so lie together; among the rest of each module, which Cython
# writes, they would be spread over three times as many pages to be faulted in. (lld and mold take
# the option, and sort nothing.)
LINK = [
    "-Wl,-z,now,-z,relro",
    "-Wl,-z,noseparate-code",
    "-Wl,--sort-section=name",
    "-Wl,--gc-sections",
]


def is_known(option: str) -> bool:
    """Does the linker take it? No linker must have any of them."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as scratch:
        command = [*compiler, "-shared", "-x", "c", os.devnull, option, "-o", f"{scratch}/a.so"]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False  # no compiler; the build says so


def library() -> Extension:
    link = [one for one in LINK if is_known(one)] if os.uname().sysname == "Linux" else []
    built = Extension(
        "pyweb._fast",
        [*(f"src/pyweb/{name}.pyx" for name in ("_fast", *MODULES)), "src/pyweb/octets.c"],
        include_dirs=["src/pyweb"],
        depends=[f"src/pyweb/{name}.h" for name in ("await", "heap", "kernel")],
        extra_compile_args=FLAGS,
        extra_link_args=link,
    )
    built.cython_c_in_temp = True
    return built


setup(
    ext_modules=[] if PURE else [library()],
)
