# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the programs of the build are, and what the host can do.

The environment variables are those that scripts/run-tests sets:

    BUILD  the build folder (default: build in the repository)
    QEMU   the folder with QEMU and our programs (default: BUILD/qemu)
    SRC    the materialised tree (default: BUILD/src)
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BUILD", TOP / "build")).absolute()
QEMU = Path(os.environ.get("QEMU", BUILD / "qemu")).absolute()
SRC = Path(os.environ.get("SRC", BUILD / "src")).absolute()

GUEST = BUILD / "guest"
MIB = 1 << 20

SYS_IO_URING_SETUP = 425
IO_URING_PARAMS_BYTES = 120


class SetupError(Exception):
    """Something is missing here; the text says what to do."""


def program(name):
    """Path of one of our programs in the build, wherever it is built."""
    for folder in (QEMU, QEMU / "memory-manager",
                   QEMU / "memory-manager/pager", QEMU / "managed-memory",
                   QEMU / "storage-daemon"):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    raise SetupError(f"{name} is not in {QEMU}; build it with 'make'")


def find_program(name, package):
    """Path of a program of the system, also one for administrators."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        raise SetupError(f"there is no {name}; "
                         f"install {package}")
    return found


def stock_program():
    """Path of Debian's own QEMU, which has none of our patches."""
    path = Path("/usr/bin/qemu-system-x86_64")
    if not os.access(path, os.X_OK):
        raise SetupError(f"{path} is missing; install it with "
                         "'scripts/install-packages check'")
    return str(path)


def build_guest():
    """Build the guest's kernel and initramfs unless they are up to date."""
    subprocess.run([str(TOP / "tests/guest/build.sh"), f"--output={GUEST}"],
                   check=True, stdout=sys.stderr)


def have_io_uring():
    """Whether this process may use io_uring; QEMU is started like it."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(IO_URING_PARAMS_BYTES)
    fd = libc.syscall(SYS_IO_URING_SETUP, 1, params)
    if fd < 0:
        return False
    os.close(fd)
    return True


def parse_size(text):
    """A size like 256M or 1G, or a plain number, in bytes."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    unit = text[-1:].upper()
    try:
        if unit in units:
            return int(float(text[:-1]) * (1 << units[unit]))
        return int(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a size like 256M or 1G") from None
