# SPDX-License-Identifier: GPL-2.0-or-later
"""Applications of Debian in a guest that has two thirds of what they need.

    redis     a key-value store, asked for all of its values equally often
    sqlite    a database in memory, read and changed at random
    compile   two compilers at the same time

The value is how long a fixed piece of work takes.

limit.app.NAME compares it with what kernel and disk allow: as long as where
all fits, and for each page that the side with the fewest such pages has waited
for a raw read and a round trip.
"""

import math
import subprocess
import time
from pathlib import Path

from managed import environment, hostswap

from . import pressure, raw, report, sides, steal

APPS = ("redis", "sqlite", "compile")
MEMORY_MIB, LIMIT_MIB = 1024, 304
# How many of an app's processes wait independently of each other.
IN_PARALLEL = {"compile": 2}
# Of the geometric mean.
GOAL = 1.3
SOURCES = Path(__file__).resolve().parents[1] / "apps"
MOUNT = ("mkdir -p /apps && mount -t ext4 -o ro /dev/vda /apps && "
         "mount -t proc proc /apps/proc && mount -t devtmpfs dev /apps/dev && "
         "mount -t tmpfs -o size=90% tmp /apps/tmp")


def _build():
    """The disk with the applications."""
    folder = environment.BUILD / "bench/apps"
    subprocess.run([SOURCES / "build.sh", folder], check=True)
    return folder / "apps.img"


def _setup(bench, image, limit=LIMIT_MIB):
    return sides.Setup(bench.accel, "disk", memory=MEMORY_MIB, limit=limit,
                       extra=("-drive", f"if=virtio,format=raw,readonly=on,"
                              f"cache=none,file={image}"))


def _run(guest, app, stage):
    """Seconds that it takes."""
    start = time.monotonic()
    guest.command(f"sh chroot /apps /mm/{app}.sh {stage}")
    return time.monotonic() - start


def _once(side, app, setup):
    """The best of a guest's tries."""
    run = pressure.Run()
    with sides.open_side(side, setup) as guest:
        guest.command(f"sh {MOUNT}")
        with steal.watched() as watch:
            _run(guest, app, "load")
            guest.settle()
            for variant in guest.variants():
                with guest.use_variant(variant):
                    before = guest.waits()
                    run.better("s", _run(guest, app, "work"), False)
                    run.better("waits", guest.waits() - before, False)
        run.stolen = watch.share
    return run


def _undisturbed(bench, number, app, side, name, setup):
    run = pressure.undisturbed(bench, f"apps: {app}: {name}", side,
                               lambda: _once(side, app, setup))
    bench.say(f"apps: run {number + 1} of {bench.runs}, {name}: {app} "
              f"{run.values['s']:.1f} s, waits {run.values['waits']}")
    return run


def _at_best(machine, app, runs, room):
    """Seconds that no pager could do without, if it is to wait as often."""
    waits = min(run.values["waits"] for run in runs)
    return (room.values["s"] + waits / IN_PARALLEL.get(app, 1) / 1e6
            * (machine.read_us + machine.round_trip_us))


def _all_runs(bench, app, image):
    """Of all sides, and what would have been possible beside each run."""
    runs = {side: [] for side in sides.ALL}
    limit = []
    for number in range(bench.runs):
        for side in sides.ALL if number % 2 else sides.ALL[::-1]:
            runs[side].append(_undisturbed(bench, number, app, side, side,
                                           _setup(bench, image)))
        room = _undisturbed(bench, number, app, "managed", "room",
                            _setup(bench, image, MEMORY_MIB))
        limit.append(_at_best(raw.measure(), app,
                              [runs[side][number] for side in sides.ALL],
                              room))
    return runs, limit


def _means(rows):
    """Of each run the geometric mean of what all apps gave."""
    return [math.prod(row) ** (1 / len(row)) for row in zip(*rows)]


def measure(bench, apps=APPS):
    """Entries for the report."""
    why = hostswap.missing()
    if why:
        bench.say(f"apps: skipped: {why}")
        return
    image = _build()
    ours, theirs, limits = [], [], []
    for app in apps:
        runs, limit = _all_runs(bench, app, image)
        both = pressure.best_baseline(runs, "s", False)
        ours.append(both[0])
        theirs.append(both[1])
        limits.append(limit)
        yield report.compared(f"app.{app}", "s", both, None, False)
        yield report.compared(f"limit.app.{app}", "s", (both[0], limit), None,
                              False)
    ours = _means(ours)
    yield report.compared("app.mean", "s", (ours, _means(theirs)), GOAL, False)
    yield report.compared("limit.app.mean", "s", (ours, _means(limits)), None,
                          False)
