# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernel and disk allow at best, measured by raw-limits.c."""

import collections
import functools
import os
import subprocess
from pathlib import Path

from managed import environment
from managed.sandbox import Sandbox

FILE_MIB = 512
SOURCES = Path(__file__).resolve().parents[2]

# A read of 4 KiB, a fault that is filled at once, bytes written per second.
Machine = collections.namedtuple("Machine",
                                 "read_us round_trip_us write_bytes")


@functools.lru_cache(maxsize=None)
def _program():
    """raw-limits, compiled; it needs nothing of ours."""
    program = environment.BUILD / "bench" / "raw-limits"
    subprocess.run(["cc", "-O2", "-Wall", "-pthread", "-o", program,
                    SOURCES / "bench/raw-limits.c",
                    SOURCES / "platform/platform.c"], check=True)
    return program


def measure():
    """This machine, now."""
    with Sandbox("bench-raw") as box:
        text = subprocess.run([_program(), os.path.join(box.disk, "raw"),
                               str(FILE_MIB)], check=True, text=True,
                              stdout=subprocess.PIPE).stdout
    values = dict(line.split() for line in text.splitlines())
    return Machine(*(float(values[name]) for name in
                     ("read-us", "round-trip-us", "write-bytes")))
