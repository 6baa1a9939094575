# SPDX-License-Identifier: GPL-2.0-or-later
"""Applications of Debian in a guest that has two thirds of what they need.

    redis     a key-value store, asked for all of its values equally often
    sqlite    a database in memory, read and changed at random
    compile   two compilers at the same time

The value is how long a fixed piece of work takes.
"""

import math
import subprocess
import time
from pathlib import Path

from managed import environment

from . import hostswap, pressure, report, sides, steal

APPS = ("redis", "sqlite", "compile")
MEMORY_MIB, LIMIT_MIB = 1024, 304
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


def _setup(bench, image):
    return sides.Setup(bench.accel, "disk", memory=MEMORY_MIB, limit=LIMIT_MIB,
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
                    run.better(app, _run(guest, app, "work"), False)
        run.stolen = watch.share
    return run


def _all_runs(bench, app, setup):
    runs = {side: [] for side in sides.ALL}
    for number in range(bench.runs):
        for side in sides.ALL if number % 2 else sides.ALL[::-1]:
            run = pressure.undisturbed(
                bench, f"apps: {app}: {side}", side,
                lambda side=side: _once(side, app, setup))
            runs[side].append(run)
            bench.say(f"apps: run {number + 1} of {bench.runs}, {side}: {app} "
                      f"{run.values[app]:.1f} s")
    return runs


def _mean(columns):
    """Geometric means of what each run gave for all apps."""
    return [math.prod(row) ** (1 / len(row)) for row in zip(*columns)]


def measure(bench, apps=APPS):
    """Entries for the report."""
    why = hostswap.missing()
    if why:
        bench.say(f"apps: skipped: {why}")
        return
    setup = _setup(bench, _build())
    ours, theirs = [], []
    for app in apps:
        both = pressure.best_baseline(_all_runs(bench, app, setup), app, False)
        ours.append(both[0])
        theirs.append(both[1])
        yield report.compared(f"app.{app}", "s", both, None, False)
    yield report.compared("app.mean", "s", (_mean(ours), _mean(theirs)), GOAL,
                          False)
