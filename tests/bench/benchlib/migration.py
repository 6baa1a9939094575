# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of which a share is swapped out migrates.

From one QEMU to another on this machine, each with the same limit: between two
managers that have a tier on the same storage ("managed") or a tier each
("local"), and between two memory cgroups.
"""

import statistics

from managed import hostswap

from . import migrating, pressure, report, sides

SHARES = (0, 50, 75, 95)
MEMORY_MIB, FIELD_MIB = 2048, 1400
BUSY_SHARE = 75
# Guests in which the same amount is in memory, whatever their size
SIZES_MIB = (512, 1024, 2048, 4096, 8192)
SIZES_FIELD, SIZES_LIMIT_MIB = 0.7, 160
# name: (that of its side, its medium)
SIDES = {"managed": ("managed", "shared"), "local": ("managed", "disk"),
         **{name: (name, "disk") for name in sides.BASELINES}}
# name of the value: (unit, more is better, goals by share)
ENTRIES = {
    "time": ("s", False, {75: 3.33, 95: 10}),
    "bytes": ("MiB", False, {75: 3.33, 95: 10}),
    "downtime": ("ms", False, dict.fromkeys(SHARES, 1)),
    "throughput": ("accesses/s", True, dict.fromkeys(SHARES[1:], 3)),
}
# What only a guest that is busy has
BUSY_ENTRIES = {
    **ENTRIES,
    "before": ("accesses/s", True, {}),
    "during": ("accesses/s", True, {}),
}


def _all_runs(bench, title, kinds, busy=False, **options):
    runs = {kind: [] for kind in kinds}
    for number in range(bench.runs):
        for kind in kinds if number % 2 else kinds[::-1]:
            side, medium = SIDES[kind]
            setup = sides.Setup(bench.accel, medium,
                                extra=migrating.NAMED_THREADS, **options)
            run = pressure.undisturbed(
                bench, f"{title}: {kind}", side,
                lambda side=side, setup=setup: migrating.once(
                    bench, side, setup, busy))
            runs[kind].append(run)
            shown = ", ".join(f"{name} {value:.4g}" for name, value
                              in run.values.items())
            bench.say(f"{title}: run {number + 1} of {bench.runs}, {kind}: "
                      f"{shown}")
    return runs


def _compared(title, runs, entries, share):
    for name, (unit, more_is_better, goals) in entries.items():
        yield report.compared(
            f"{title}.{name}", unit,
            pressure.best_baseline(runs, name, more_is_better),
            goals.get(share), more_is_better)
    # if it is as fast as before, no migration can be better
    yield report.absolute(f"{title}.throughput.kept", "percent",
                          [run.values["kept"] for run in runs["managed"]],
                          ">= 90")
    # what the threads that send have waited for
    yield report.absolute(f"{title}.faults", "pages",
                          [run.values["faults"] for run in runs["managed"]],
                          "<= 0")


def _add_to_curves(curves, runs):
    for name, lines in curves.items():
        for kind, line in lines.items():
            line.append(statistics.median(run.values[name]
                                          for run in runs[kind]))


def _curves(names, kinds):
    return {name: {kind: [] for kind in kinds} for name in names}


def _missing(bench, title):
    why = hostswap.missing()
    if why:
        bench.say(f"{title}: skipped: {why}")
    return why


def measure(bench):
    """Entries for each share, and curves; the guest is idle."""
    if _missing(bench, "migration"):
        return
    kinds = tuple(SIDES)
    curves = _curves(ENTRIES, kinds)
    for share in SHARES:
        title = f"migration.{share}"
        runs = _all_runs(bench, title, kinds, memory=MEMORY_MIB,
                         field=FIELD_MIB,
                         limit=migrating.limit_mib(share, FIELD_MIB))
        _add_to_curves(curves, runs)
        yield from _compared(title, runs, ENTRIES, share)
    for name, curve in curves.items():
        bench.keep_curve(f"migration: {name} by swapped share", SHARES, curve)


def measure_busy(bench):
    """Entries for a guest that works on what fits, half of it writes."""
    if _missing(bench, "migration-busy"):
        return
    title = f"migration.busy.{BUSY_SHARE}"
    runs = _all_runs(bench, title, tuple(SIDES), busy=True, memory=MEMORY_MIB,
                     field=FIELD_MIB,
                     limit=migrating.limit_mib(BUSY_SHARE, FIELD_MIB))
    bench.keep(title, runs)
    yield from _compared(title, runs, BUSY_ENTRIES, BUSY_SHARE)


def measure_growth(bench):
    """An entry for each size of a guest, and a curve."""
    if _missing(bench, "migration-growth"):
        return
    curves = _curves(("time", "bytes"), sides.ALL)
    for size in SIZES_MIB:
        title = f"migration.growth.{size}"
        runs = _all_runs(bench, title, sides.ALL, memory=size,
                         field=int(size * SIZES_FIELD), limit=SIZES_LIMIT_MIB)
        _add_to_curves(curves, runs)
        yield report.compared(f"{title}.time", "s",
                              pressure.best_baseline(runs, "time", False),
                              None, False)
    for name, curve in curves.items():
        bench.keep_curve(f"migration: {name} by MiB of guest memory, of which "
                         f"{SIZES_LIMIT_MIB} are in memory", SIZES_MIB, curve)
