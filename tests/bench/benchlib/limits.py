# SPDX-License-Identifier: GPL-2.0-or-later
"""How near the pager comes to what kernel and disk allow.

    limit.fault   a fault on a page that lies on the disk, against a raw read
                  of 4 KiB and the round trip of a fault that is filled at once
    limit.evict   bytes per second that are taken from a guest, against what
                  can be written
    limit.uniform accesses per second, against those of a guest that needs a raw
    limit.zipf    read and a round trip for each page that cannot be in memory,
                  and else as long as where all is; its most popular pages are
                  in memory, as many as its limit allows

The limits are measured beside each run: see raw.py.
"""

from . import raw, report, sides

SECONDS = 8
# Half of the accesses are faults, so that the third quartile is one's median.
FAULT = {"memory": 512, "limit": 192, "field": 384, "cpus": 1}
EVICT = {"memory": 1024, "limit": 1024, "field": 700, "noise": 100}
EVICT_BYTES = 512 * sides.MIB
PAGE_BYTES = 4096
# Percent of the field, less than the limit: to see how long a hit takes.
HIT_PART = 30
ZIPF_EXPONENT = 0.99


def _faults(bench):
    """Median of a fault in us, and rates of accesses by pattern."""
    with sides.open_side(
            "managed", sides.Setup(bench.accel, "disk", **FAULT)) as guest:
        guest.prepare()
        samples = {pattern: guest.access(pattern, SECONDS)
                   for pattern in ("uniform", "zipf")}
        rates = {pattern: sample.rate for pattern, sample in samples.items()}
        rates["hit"] = max(guest.access("uniform", SECONDS // 2,
                                        HIT_PART).rate for _ in range(2))
        return samples["uniform"].latency_us["p75"], rates


def _misses():
    """Of an access, by pattern, if what is wanted most is in memory."""
    popular, all_pages = (FAULT[name] * sides.MIB // PAGE_BYTES
                          for name in ("limit", "field"))
    weights = [rank ** -ZIPF_EXPONENT for rank in range(1, all_pages + 1)]
    return {"uniform": 1 - popular / all_pages,
            "zipf": sum(weights[popular:]) / sum(weights)}


def _best_rate(miss, hit_rate, fault_us):
    """Accesses per second of one processor."""
    return 1 / (1 / hit_rate + miss * fault_us / 1e6)


def _evict_rate(bench):
    with sides.open_side(
            "managed", sides.Setup(bench.accel, "disk", **EVICT)) as guest:
        guest.prepare()
        # As raw-limits does: blocks that were written before are faster.
        guest.shrink(EVICT_BYTES)
        guest.access("sequential", SECONDS)
        return EVICT_BYTES / guest.timed_shrink(EVICT_BYTES)


def measure(bench):
    """Entries for the report."""
    misses = _misses()
    faults, evictions = ([], []), ([], [])
    rates = {pattern: ([], []) for pattern in misses}
    for run in range(bench.runs):
        machine = raw.measure()
        at_best = machine.read_us + machine.round_trip_us
        fault, reached = _faults(bench)
        faults[0].append(fault)
        faults[1].append(at_best)
        for pattern, miss in misses.items():
            rates[pattern][0].append(reached[pattern])
            rates[pattern][1].append(_best_rate(miss, reached["hit"],
                                                at_best))
        evictions[0].append(_evict_rate(bench) / sides.MIB)
        evictions[1].append(machine.write_bytes / sides.MIB)
        bench.say(f"limit: run {run + 1} of {bench.runs}: a fault "
                  f"{fault:.0f} us, at best {machine.read_us:.0f} + "
                  f"{machine.round_trip_us:.0f} us; out {evictions[0][-1]:.0f} "
                  f"MiB/s, at best {evictions[1][-1]:.0f} MiB/s")
    yield report.compared("limit.fault", "us", faults, 0.87,
                          more_is_better=False)
    yield report.compared("limit.evict", "MiB/s", evictions, 0.6)
    for pattern, both in rates.items():
        yield report.compared(f"limit.{pattern}", "accesses/s", both, None)
