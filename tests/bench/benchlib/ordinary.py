# SPDX-License-Identifier: GPL-2.0-or-later
"""Ordinary guests, which the kernel swaps, migrate: swap-aware-ram on and off.

Of either backend; the report has the one with the capability in the column of
managed memory, and the same one without it as the baseline.

    waits       pages that the source's cgroup has waited for
    lost        percent by which the source has less in memory, or more, after
                the migration than before
    zeros       MiB that the destination has allocated beyond what the source
                had
"""

from managed import hostswap

from . import migrating, pressure, report, sides

SHARE = 75
MEMORY_MIB, FIELD_MIB = 1024, 700
CAPABILITY = "swap-aware-ram"
# name of the value: (unit, more is better, goal)
ENTRIES = {
    "time": ("s", False, None),
    "bytes": ("MiB", False, None),
    "downtime": ("ms", False, None),
    "throughput": ("accesses/s", True, None),
    "waits": ("pages", False, 5),
}


def _runs(bench, kind):
    """Those with the capability, and those without."""
    both = {True: [], False: []}
    for number in range(bench.runs):
        for aware in (True, False) if number % 2 else (False, True):
            setup = sides.Setup(
                bench.accel, "disk", memory=MEMORY_MIB, field=FIELD_MIB,
                limit=migrating.limit_mib(SHARE, FIELD_MIB),
                extra=migrating.NAMED_THREADS,
                capabilities=[CAPABILITY] if aware else [])
            title = f"ordinary.{kind}: {'with' if aware else 'without'}"
            run = pressure.undisturbed(
                bench, title, kind,
                lambda setup=setup: migrating.once(bench, kind, setup))
            both[aware].append(run)
            shown = ", ".join(f"{name} {value:.4g}" for name, value
                              in run.values.items())
            bench.say(f"{title}: run {number + 1} of {bench.runs}: {shown}")
    return both


def measure(bench):
    """Entries for each backend."""
    why = hostswap.missing()
    if why:
        bench.say(f"ordinary: skipped: {why}")
        return
    for kind in sides.BASELINES:
        both = _runs(bench, kind)
        for name, (unit, more_is_better, goal) in ENTRIES.items():
            yield report.compared(
                f"ordinary.{kind}.{name}", unit,
                [[run.values[name] for run in both[aware]]
                 for aware in (True, False)], goal, more_is_better)
        for name, unit, goal in (("lost", "percent", "<= 5"),
                                 ("zeros", "MiB", "<= 0")):
            yield report.absolute(
                f"ordinary.{kind}.{name}", unit,
                [run.values[name] for run in both[True]], goal)
