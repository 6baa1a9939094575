# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guest in other sizes: half of its memory fits.

The rate of random accesses should not depend on how much memory there is.
"""

import statistics

from managed import hostswap

from . import pressure, report, sides

SIZES_MIB = (512, 1024, 2048, 4096, 8192)
LIMIT_SHARE = 1 / 2
FIELD_SHARE = 0.7
SECONDS = 6


def _uniform(guest, run):
    for variant in guest.variants():
        with guest.use_variant(variant):
            sample = guest.access("uniform", SECONDS)
        guest.check_limited()
        run.better("uniform", sample.rate, True, sample.timeline)


def measure(bench):
    """An entry for each size, and a curve."""
    why = hostswap.missing()
    if why:
        bench.say(f"growth: skipped: {why}")
        return
    curve = {side: [] for side in sides.ALL}
    for size in SIZES_MIB:
        setup = sides.Setup(bench.accel, "disk", memory=size,
                            limit=int(size * LIMIT_SHARE),
                            field=int(size * FIELD_SHARE))
        runs = pressure.all_runs(bench, f"growth: {size} MiB", setup,
                                 (_uniform,))
        for side, line in curve.items():
            line.append(statistics.median(run.values["uniform"]
                                          for run in runs[side]))
        yield report.compared(f"growth.{size}", "accesses/s",
                              pressure.best_baseline(runs, "uniform", True),
                              None)
    bench.keep_curve("growth: random accesses/s by MiB of guest memory",
                     SIZES_MIB, curve)
