# SPDX-License-Identifier: GPL-2.0-or-later
"""How many guests one host carries without anyone noticing.

A guest works on what is popular by Zipf's law in two thirds of its memory, as
fast as it can. The limit at which it has nine tenths of the speed that it has
without one is what it needs; to that comes what its pager takes. The value is
how many such guests fit into a host's memory.
"""

import re
from pathlib import Path

from managed import hostswap

from . import pressure, report, sides

HOST_MIB = 16 * 1024
SETUP = {"memory": 1024, "limit": 960, "field": 640, "cpus": 2}
FULL_SPEED = 0.9
SECONDS = 4
# Between these the need is looked for, this near.
LOWEST_MIB, NEAR_MIB = 128, 12
GOAL = 1.2


def _speed(guest):
    """Accesses per second, once what is popular has come in."""
    return max(guest.access("zipf", SECONDS).rate for _ in range(3))


def _need_mib(guest):
    """By halves; guests that are slower with more memory are not looked for."""
    full = _speed(guest)
    enough, too_little = guest.setup.limit, LOWEST_MIB
    while enough - too_little > NEAR_MIB:
        limit = (enough + too_little) // 2
        guest.resize(limit)
        if _speed(guest) >= FULL_SPEED * full:
            enough = limit
        else:
            too_little = limit
    return enough


def pager_mib(guest):
    """Memory of the pager that it does not share with others."""
    if not isinstance(guest, sides.ManagedGuest):
        return 0
    pid = guest.manager.vm(guest.vm).pager_pid
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+)", text,
                                              re.M)) / 1024


def _once(side, setup):
    run = pressure.Run()
    with sides.open_side(side, setup) as guest, guest.use_variant(
            guest.variants()[0]):
        guest.prepare()
        need = _need_mib(guest) + pager_mib(guest)
    run.values = {"density": HOST_MIB / need, "MiB": need}
    return run


def measure(bench):
    """Entries for the report."""
    why = hostswap.missing()
    if why:
        bench.say(f"density: skipped: {why}")
        return
    runs = {side: [] for side in sides.ALL}
    for number in range(bench.runs):
        for side in sides.ALL if number % 2 else sides.ALL[::-1]:
            runs[side].append(_once(side, sides.Setup(bench.accel, "disk",
                                                      **SETUP)))
            bench.say(f"density: run {number + 1} of {bench.runs}, {side}: a "
                      f"guest needs {runs[side][-1].values['MiB']:.0f} MiB")
    yield report.compared("density", "guests",
                          pressure.best_baseline(runs, "density", True), GOAL)
