# SPDX-License-Identifier: GPL-2.0-or-later
"""Many guests, on a host that does not have the memory for them.

    scaling     what one of 16 guests gets done, as a share of what one gets
                done alone, against the same share on the kernel's swap
    scaling.N   the same for N guests
"""

import statistics
from concurrent.futures import ThreadPoolExecutor

from managed import hostswap

from . import report, sides

COUNTS = (1, 2, 4, 8, 16)
SCALING = {"memory": 320, "limit": 144, "field": 200, "cpus": 1}
SECONDS = 6
SIDES = ("managed", "memfd")


def _sum_of_rates(guests):
    """Accesses per second of all, at the same time."""
    with ThreadPoolExecutor(len(guests)) as pool:
        return sum(sample.rate for sample in pool.map(
            lambda guest: guest.access("uniform", SECONDS), guests))


def _each_of_many(bench, side):
    """What each of so many gets done, by their number."""
    setup = sides.Setup(bench.accel, "disk", **SCALING)
    with sides.open_several(side, setup, COUNTS[-1]) as guests:
        for guest in guests:
            guest.prepare()
        return {count: _sum_of_rates(guests[:count]) / count
                for count in COUNTS}


def _all_runs(bench):
    """Rates of each side, in an order that changes."""
    runs = {side: [] for side in SIDES}
    for number in range(bench.runs):
        for side in SIDES if number % 2 else SIDES[::-1]:
            runs[side].append(_each_of_many(bench, side))
            rates = ", ".join(f"{count}: {rate:.0f}/s each" for count, rate
                              in runs[side][-1].items())
            bench.say(f"scaling: run {number + 1} of {bench.runs}, {side}: "
                      f"{rates}")
    return runs


def measure(bench):
    """An entry for each number of guests but one, and a curve."""
    why = hostswap.missing()
    if why:
        bench.say(f"scaling: skipped: {why}")
        return
    runs = _all_runs(bench)
    for count in COUNTS[1:]:
        last = count == COUNTS[-1]
        shares = [[run[count] / run[1] for run in runs[side]]
                  for side in SIDES]
        yield report.compared("scaling" if last else f"scaling.{count}",
                              "of one alone", shares, 1 if last else None)
    bench.keep_curve(
        "scaling: random accesses/s of each guest, by their number", COUNTS,
        {side: [statistics.median(run[count] for run in runs[side])
                for count in COUNTS] for side in SIDES})
