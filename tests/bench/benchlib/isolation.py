# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest notices of another one that faults as fast as it can.

Both have one vCPU and half a field too much, and swap to the same disk. The
value is how many times the first guest's p99 is what it is alone.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

from managed import hostswap

from . import report, sides

SECONDS = 8
STORM_SECONDS = SECONDS + 4
MEMORY_MIB, LIMIT_MIB, FIELD_MIB = 512, 192, 288
# What an operator grants each VM of a disk that many share.
LIMITS = "throttling.iops-total=1000,throttling.bps-total=64M"
SIDES = {"managed": "", "limited": LIMITS, "memfd": ""}


def _setup(bench, options):
    return sides.Setup(bench.accel, "disk", memory=MEMORY_MIB,
                       limit=LIMIT_MIB, field=FIELD_MIB, cpus=1,
                       tier_options=options)


@contextlib.contextmanager
def _storm(guest):
    """It goes on for longer than whoever looks at it."""
    with ThreadPoolExecutor(1) as pool:
        storm = pool.submit(guest.access, "uniform", STORM_SECONDS)
        yield
        if storm.done():
            raise RuntimeError("the storm was over too early: "
                               f"{storm.exception() or 'it was short'}")
        storm.result()


def _once(bench, side):
    """p99 beside the storm, as a multiple of the p99 alone."""
    kind = "memfd" if side == "memfd" else "managed"
    setup = _setup(bench, SIDES[side])
    with sides.open_side(kind, _setup(bench, "")) as quiet, \
            sides.open_side(kind, setup) as stormy:
        quiet.prepare()
        stormy.prepare()
        alone = quiet.access("uniform", SECONDS).latency_us["p99"]
        with _storm(stormy):
            beside = quiet.access("uniform", SECONDS).latency_us["p99"]
    bench.say(f"isolation: {side}: p99 {alone:.0f} us alone, "
              f"{beside:.0f} us beside the other")
    return beside / alone


def measure(bench):
    """Entries for the report."""
    why = hostswap.missing()
    if why:
        bench.say(f"isolation: skipped: {why}")
        return
    values = {side: [] for side in SIDES}
    for number in range(bench.runs):
        order = list(SIDES) if number % 2 else list(SIDES)[::-1]
        for side in order:
            values[side].append(_once(bench, side))
    yield report.compared("isolation.unlimited", "times",
                          (values["managed"], values["memfd"]), None,
                          more_is_better=False)
    yield report.absolute("isolation.limited", "times", values["limited"],
                          "<= 2")
