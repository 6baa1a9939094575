# SPDX-License-Identifier: GPL-2.0-or-later
"""Processor time that others take, where the machine is a virtual one.

It makes everything slow at once, disks too, for seconds or minutes, and strikes
the sides of a comparison unevenly.
"""

import contextlib
from pathlib import Path

# Of what processors could do: more makes a run worthless.
MOST = 0.02
# Fields of the first line of /proc/stat.
STEAL = 7
GUEST = 8


class Watch:
    """The share that was stolen, when it is over."""

    def __init__(self):
        self.share = 0


def _times():
    with Path("/proc/stat").open(encoding="ascii") as stat:
        # What guests get is part of user time, too.
        return [int(word) for word in stat.readline().split()[1:]][:GUEST]


@contextlib.contextmanager
def watched():
    """Watch what is stolen meanwhile."""
    watch = Watch()
    before = _times()
    yield watch
    spent = [after - then for after, then in zip(_times(), before)]
    watch.share = spent[STEAL] / max(sum(spent), 1)
