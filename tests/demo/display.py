# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo shows: a live line while it runs, a table at the end."""

import shutil
import sys
import time

MIB = 1 << 20
PLAIN_INTERVAL_S = 5


class LiveLine:
    """One line that is rewritten on a terminal, and printed now and then
    elsewhere."""

    def __init__(self, stream=sys.stdout):
        self._stream = stream
        self._live = stream.isatty()
        self._start = time.monotonic()
        self._last = -PLAIN_INTERVAL_S
        self._topic = None

    def update(self, topic, text):
        """Show text; topic tells which stage of the demo it is about."""
        now = time.monotonic()
        line = f"{now - self._start:5.1f} s  {text}"
        if self._live:
            # A line that wraps cannot be replaced.
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\033[K{line[:width]}")
        elif topic != self._topic or now - self._last >= PLAIN_INTERVAL_S:
            self._stream.write(line + "\n")
            self._last = now
        self._topic = topic
        self._stream.flush()

    def say(self, text):
        """Print a line that stays."""
        elapsed = time.monotonic() - self._start
        clear = "\r\033[K" if self._live else ""
        print(f"{clear}{elapsed:5.1f} s  {text}", file=self._stream,
              flush=True)

    def clear(self):
        """Remove the live line."""
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()


def live_text(progress, state):
    """The live line: what the guest does, and what the manager says."""
    text = "booting"
    if progress is not None:
        fields = {"pct": "0", "pages": "0", "idle-ms": "0", **progress.fields}
        text = "{phase:<7}{pct:>4}%  {pages:>8} pages".format(**fields)
        if int(fields["idle-ms"]) >= 100:
            text += f"  waiting {fields['idle-ms']} ms"
    return (f"{text} | {state.resident // MIB} of "
            f"{(state.limit or state.size) // MIB} MiB resident, "
            f"{state.swapped // MIB} swapped")


def _mib(count):
    return f"{count / MIB:.1f} MiB"


def _pages(state, kinds):
    parts = [f"{kind} {state.pages[kind]}" for kind in kinds]
    return ", ".join(parts)


def table_rows(outcome):
    """(name, value) for every line of the final table."""
    state = outcome.state
    result = outcome.result.fields
    yield "guest memory", _mib(state.size)
    yield "resident limit", (f"{_mib(state.limit)}, hard limit "
                             f"{_mib(state.hard_limit)}")
    yield "resident", (f"{_mib(state.resident)}, at most "
                       f"{_mib(outcome.peak_resident)}; the kernel counts at "
                       f"most {_mib(outcome.peak_kernel)}")
    yield "swapped", (f"{_mib(state.swapped)}, at most "
                      f"{_mib(outcome.peak_swapped)}")
    yield "zero or same-filled", _mib(state.zero)
    yield "never populated", _mib(state.never_populated)
    for kind, count in state.faults.items():
        yield f"faults: {kind}", str(count)
    yield "pages moved", _pages(state, ("populated", "read", "written",
                                        "evicted", "evicted-zero"))
    yield "fault latency", ", ".join(
        f"{name} {state.latency_us[key]:.0f} us" for name, key in
        (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")))
    yield "pages verified", f"{result['checked']}, wrong: {result['bad']}"
    yield "disk pages", (f"{result['disk-written']} written, "
                         f"{result['disk-read']} read (O_DIRECT)")
    yield "longest wait in guest", (f"{int(result['gap-us']) / 1000:.1f} ms "
                                    f"(phase {result['gap-phase']})")
    if outcome.stall_ms is None:
        yield "stall after the kill", "the pager was not killed"
    else:
        yield "stall after the kill", (
            f"{outcome.stall_ms:.0f} ms from SIGKILL to recovery; longest "
            f"wait in the guest then {outcome.kill_gap_us / 1000:.1f} ms")
    for name, moved in zip(("migration", "as any QEMU does it"),
                           outcome.moves):
        yield name, (f"{moved.seconds:.2f} s, {_mib(moved.sent_bytes)} sent, "
                     f"{moved.read_pages} swapped pages read, down for "
                     f"{moved.downtime_ms} ms")


def print_table(outcome):
    """Print the final table."""
    rows = list(table_rows(outcome))
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    print()
