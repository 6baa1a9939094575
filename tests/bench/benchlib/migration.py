# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of which a share is swapped out migrates, while it does nothing.

From one QEMU to another on this machine, each with the same limit: between two
managers with a file tier each, and between two memory cgroups.

    time         seconds from start to end
    bytes        MiB sent
    downtime     milliseconds without a guest
    throughput   accesses/s in its first seconds over there, of what it had last
                 worked on here

The pages that the source reads into memory, and what either side has resident
before and after, are told as the runs go.
"""

import statistics
import time

from managed import hostswap

from . import pressure, report, sides

SHARES = (0, 50, 75, 95)
MEMORY_MIB, FIELD_MIB = 2048, 1400
# What the guest has in memory besides its field.
OWN_MIB = 110
# What it works on: fits into memory at all of the shares.
HOT_PART, HOT_SECONDS = 4, 6
AFTER_SECONDS = 10
TIMEOUT_S = 300
LOOK_S = 0.02
PARAMETERS = {"max-bandwidth": 0, "downtime-limit": 300}
# name of the value: (unit, more is better, goals by share)
ENTRIES = {
    "time": ("s", False, {75: 3.33, 95: 10}),
    "bytes": ("MiB", False, {75: 3.33, 95: 10}),
    "downtime": ("ms", False, dict.fromkeys(SHARES, 1)),
    "throughput": ("accesses/s", True, dict.fromkeys(SHARES[1:], 3)),
}


def limit_mib(share):
    """At which that share (percent) of the field is swapped out."""
    return OWN_MIB + FIELD_MIB * (100 - share) // 100


def _wait_completed(vm):
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        info = vm.command("query-migrate")
        if info["status"] == "completed":
            return info
        if info["status"] == "failed" or time.monotonic() > deadline:
            raise sides.GuestMigrationError(f"it is {info['status']}: {info}")
        time.sleep(LOOK_S)


def _migrate(source, target, address):
    source.vm.command("migrate-set-parameters", **PARAMETERS)
    with target.limited():
        source.vm.command("migrate", uri=address)
        info = _wait_completed(source.vm)
        target.vm.event_wait("RESUME", TIMEOUT_S)
    return info


def _once(bench, side, setup):
    run = pressure.Run()
    with sides.open_pair(side, setup) as (source, target, address):
        source.prepare()
        # an idle guest: what it has used last is in memory, and no more
        source.access("uniform", HOT_SECONDS, HOT_PART)
        before = source.guest_bytes()
        waits = source.waits()
        info = _migrate(source, target, address)
        read = source.waits() - waits
        after, there = source.guest_bytes(), target.guest_bytes()
        source.vm.kill()
        rate = target.access("uniform", AFTER_SECONDS, HOT_PART).rate
        target.command("compare")
    run.values = {"time": info["total-time"] / 1000,
                  "bytes": info["ram"]["transferred"] / sides.MIB,
                  "downtime": info["downtime"], "throughput": rate}
    bench.say(f"{side}: source {before / sides.MIB:.0f} MiB resident, then "
              f"{after / sides.MIB:.0f}, it waited for {read} pages; target "
              f"{there / sides.MIB:.0f} MiB")
    return run


def _all_runs(bench, share):
    runs = {side: [] for side in sides.ALL}
    for number in range(bench.runs):
        for side in sides.ALL if number % 2 else sides.ALL[::-1]:
            setup = sides.Setup(bench.accel, "disk", memory=MEMORY_MIB,
                                limit=limit_mib(share), field=FIELD_MIB)
            run = pressure.undisturbed(
                bench, f"migration.{share}: {side}", side,
                lambda side=side, setup=setup: _once(bench, side, setup))
            runs[side].append(run)
            shown = ", ".join(f"{name} {value:.4g}" for name, value
                              in run.values.items())
            bench.say(f"migration.{share}: run {number + 1} of {bench.runs}, "
                      f"{side}: {shown}")
    return runs


def measure(bench):
    """Entries for each share, and curves."""
    why = hostswap.missing()
    if why:
        bench.say(f"migration: skipped: {why}")
        return
    curves = {name: {side: [] for side in sides.ALL} for name in ENTRIES}
    for share in SHARES:
        runs = _all_runs(bench, share)
        for name, (unit, more_is_better, goals) in ENTRIES.items():
            for side, line in curves[name].items():
                line.append(statistics.median(run.values[name]
                                              for run in runs[side]))
            yield report.compared(
                f"migration.{share}.{name}", unit,
                pressure.best_baseline(runs, name, more_is_better),
                goals.get(share), more_is_better)
    for name, curve in curves.items():
        bench.keep_curve(f"migration: {name} by swapped share", SHARES, curve)
