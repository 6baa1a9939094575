# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do not fit: managed memory against the kernel's swap.

A run boots each side once, in an order that changes, and has the guest work
by all patterns. Of the baseline the best variant counts, pattern by pattern:
whoever uses it would tune it. Managed memory, which has nothing to tune, has as
many tries, since a later one meets what earlier ones have brought in.
"""

from managed import hostswap
from managed.guest import GuestError

from . import report, sides, steal

PATTERN_SECONDS = 8
# Of the field, so that it fits: what is woken up, and then works.
WAKE_PART = 40
WAKE_SECONDS = 12
SHIFT_SECONDS = 16
# To forget what an earlier one has brought in.
BLUR_SECONDS = 5
SHRINK_MIB = 256
# Full speed is this share of what the end of the timeline shows.
FULL_SPEED = 0.9
STEPS_IN_A_ROW = 3
# A guest on the kernel's swap may be killed for want of memory.
BASELINE_TRIES = 3
# A machine whose processors others take tells nothing.
UNDISTURBED_TRIES = 3


class Run:
    """What one boot of one side gave: values by name."""

    def __init__(self):
        self.values = {}
        self.timelines = {}
        self.stolen = 0

    def better(self, name, value, more_is_better, timeline=None):
        """Keep the best of all variants."""
        old = self.values.get(name)
        if old is None or (value > old) == more_is_better:
            self.values[name] = value
            self.timelines[name] = timeline


def steady(timeline):
    """Typical accesses per step."""
    ordered = sorted(timeline)
    return ordered[len(ordered) // 2]


def recovery_s(timeline, step_s, full):
    """Seconds until several steps in a row are at full speed."""
    good = 0
    for number, count in enumerate(timeline):
        good = good + 1 if count >= FULL_SPEED * full else 0
        if good == STEPS_IN_A_ROW:
            return max(number + 1 - STEPS_IN_A_ROW, 0) * step_s + step_s
    return len(timeline) * step_s


def run_patterns(guest, run):
    """Throughput and latency."""
    for pattern in ("uniform", "zipf", "sequential", "stride"):
        for variant in guest.variants():
            with guest.use_variant(variant):
                sample = guest.access(pattern, PATTERN_SECONDS)
            guest.check_limited()
            run.better(pattern, sample.rate, True, sample.timeline)
            for key in ("p50", "p99", "p999"):
                run.better(f"{pattern}.{key}", sample.latency_us[key], False)


def run_shift(guest, run):
    """Time until another working set has come in."""
    for variant in guest.variants():
        guest.access("uniform", BLUR_SECONDS)
        with guest.use_variant(variant):
            sample = guest.access("shift", SHIFT_SECONDS)
        half = len(sample.timeline) // 2
        full = steady(sample.timeline[half // 2:half])
        run.better("shift", recovery_s(sample.timeline[half:],
                                       sample.step_s, full),
                   False, sample.timeline)


def run_wake(guest, run):
    """Time until a guest that was swapped out is at full speed."""
    for variant in guest.variants():
        guest.access("uniform", 3, WAKE_PART)
        guest.shrink(guest.guest_bytes() * 9 // 10)
        with guest.use_variant(variant):
            sample = guest.access("uniform", WAKE_SECONDS, WAKE_PART)
        full = steady(sample.timeline[-len(sample.timeline) // 4:])
        run.better("wake", recovery_s(sample.timeline, sample.step_s, full),
                   False, sample.timeline)


def run_shrink(guest, run):
    """Time to take cold memory away."""
    guest.access("sequential", 3)
    run.better("shrink", guest.timed_shrink(SHRINK_MIB * sides.MIB), False)


PARTS = {"patterns": run_patterns, "shift": run_shift, "wake": run_wake,
         "shrink": run_shrink}


def boot_once(side, setup, parts):
    """One boot of one side; returns its Run."""
    run = Run()
    with sides.open_side(side, setup) as guest:
        with steal.watched() as watch:
            guest.prepare()
            for part in parts:
                part(guest, run)
        run.stolen = watch.share
        guest.command("compare")
    return run


def undisturbed(bench, name, side, once):
    """The least disturbed of some runs; once() is one of @side."""
    best = None
    for left in reversed(range(UNDISTURBED_TRIES)):
        run = _again(bench, name, side, once)
        if best is None or run.stolen < best.stolen:
            best = run
        if run.stolen <= steal.MOST:
            break
        bench.say(f"{name}: others took {run.stolen:.1%} of the processors"
                  + (", so once more" if left else ""))
    return best


def _again(bench, name, side, once):
    """One run; a baseline that the kernel kills, or spares, is tried again."""
    for _ in range(BASELINE_TRIES - 1):
        try:
            return once()
        except (GuestError, sides.NotLimitedError) as err:
            if side not in sides.BASELINES:
                raise
            bench.say(f"{name}: once more, since {err}")
    return once()


def all_runs(bench, name, setup, parts):
    """Runs of all sides, in an order that changes."""
    runs = {side: [] for side in sides.ALL}
    for number in range(bench.runs):
        order = sides.ALL if number % 2 else sides.ALL[::-1]
        for side in order:
            run = undisturbed(
                bench, f"{name}: {side}", side,
                lambda side=side: boot_once(side, setup, parts))
            runs[side].append(run)
            shown = ", ".join(f"{name} {value:.5g}" for name, value
                              in run.values.items() if "." not in name)
            bench.say(f"{name}: run {number + 1} of {bench.runs}, "
                      f"{side}: {shown}")
    return runs


def best_baseline(runs, name, more_is_better):
    """Pairs: our values, and of each run the better baseline's."""
    choose = max if more_is_better else min
    return ([run.values[name] for run in runs["managed"]],
            [choose(run.values[name] for run in both) for both
             in zip(*(runs[side] for side in sides.BASELINES))])


# name of the value: (unit, more is better, goals by medium)
ENTRIES = {
    "uniform": ("accesses/s", True, {"disk": 1.0, "compressed": 0.9}),
    "uniform.p99": ("us", False, {}),
    "uniform.p999": ("us", False, {"disk": 4, "compressed": 4}),
    "zipf": ("accesses/s", True,
             {"disk": 1.2, "compressed": 1.1, "mixed": 1.5}),
    "zipf.p999": ("us", False, {}),
    "sequential": ("accesses/s", True, {"disk": 3}),
    "stride": ("accesses/s", True, {"disk": 3}),
    "shift": ("s", False, {"disk": 2}),
    "wake": ("s", False, {"disk": 3}),
    "shrink": ("s", False, {"disk": 2}),
}


def measure(bench, medium, name=None, parts=tuple(PARTS), **setup):
    """All entries for one medium, or for guests that are set up otherwise.

    name: of the latter, which have no goals
    """
    title = name or medium
    why = hostswap.missing()
    if why:
        bench.say(f"{title}: skipped: {why}")
        return
    runs = all_runs(bench, title, sides.Setup(bench.accel, medium, **setup),
                    [PARTS[part] for part in parts])
    bench.keep(title, runs)
    for value, (unit, more_is_better, goals) in ENTRIES.items():
        if value in runs["managed"][0].values:
            yield report.compared(
                f"{title}.{value}", unit,
                best_baseline(runs, value, more_is_better),
                None if name else goals.get(medium), more_is_better)
