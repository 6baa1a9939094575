# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration of a guest of which a share is swapped out, and its figures.

    time         seconds from start to end
    bytes        MiB sent
    downtime     milliseconds without a guest
    throughput   accesses/s in its first seconds over there, of what it had last
                 worked on here
    kept         that in percent of what it had here just before, which is all
                 that a migration can leave it

A guest that is busy goes on with that while it migrates; then there are also
its accesses/s before, during and after the migration, downtime included.
"""

import re
import time
from pathlib import Path

from . import pressure, sides

# What the guest has in memory besides its field, and which hardly is in use.
OWN_MIB = 110
# An idle guest has worked on as much of what is in memory (percent) before.
HOT_OF_LIMIT, HOT_SECONDS = 50, 6
AFTER_SECONDS = 10
# What one that is busy works on, in percent of its field: it dirties that all
# the time, and has to arrive all the same.
BUSY_PART = 2
# Of one that is busy: as long as it has to itself before the migration, and
# then at least until it has arrived.
LEAD_S, BUSY_SECONDS = 3, 60
TIMEOUT_S = 300
LOOK_S, END_S = 0.02, 10
PARAMETERS = {"max-bandwidth": 0, "downtime-limit": 300}
NAMED_THREADS = ("-name", "debug-threads=on")
# Those that send guest memory, by the first 15 characters of their names
SENDERS = re.compile(r"live_migration|multifdsend")
# /proc/PID/stat: fields after the name; page faults that had to wait
MAJOR_FAULTS = 9


def limit_mib(share, field):
    """At which that share (percent) of the guest's memory is swapped out."""
    return (OWN_MIB + field) * (100 - share) // 100


def _hot_part(setup):
    """What an idle guest has worked on, in percent of its field."""
    hot_mib = setup.limit * HOT_OF_LIMIT // 100
    return max(100 * hot_mib // setup.field, 1)


class Senders:
    """Pages that QEMU's threads which send have waited for.

    The kernel counts each, whoever has brought it in: what the process has
    more than the threads that are left is of those that have ended.
    """

    def __init__(self, vm):
        self._process = Path(f"/proc/{vm.get_pid()}")
        self._before = self._of_ended()

    def _of_ended(self):
        tasks = [task / "stat" for task in (self._process / "task").iterdir()]
        left = sum(_major_faults(task) for task in tasks)
        return _major_faults(self._process / "stat") - left

    def _any_left(self):
        return any(SENDERS.match((task / "comm").read_text("utf-8"))
                   for task in (self._process / "task").iterdir())

    def faults(self):
        """All together, once they have ended."""
        deadline = time.monotonic() + END_S
        while self._any_left():
            if time.monotonic() > deadline:
                raise sides.GuestMigrationError("it is sending still")
            time.sleep(LOOK_S)
        return self._of_ended() - self._before


def _major_faults(stat):
    return int(stat.read_text("utf-8").rpartition(")")[2].split()[MAJOR_FAULTS])


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
    senders = Senders(source.vm)
    for side in source, target:
        side.vm.command("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": True}
            for name in side.setup.capabilities])
    source.vm.command("migrate-set-parameters", **PARAMETERS)
    with target.limited():
        source.vm.command("migrate", uri=address)
        info = _wait_completed(source.vm)
        target.vm.event_wait("RESUME", TIMEOUT_S)
    return info, senders.faults()


def _rates(sample, begin_s, end_s):
    """Accesses/s before, between, and after these times of its timeline."""
    first, last = int(begin_s / sample.step_s), int(end_s / sample.step_s) + 1
    after = int(AFTER_SECONDS / sample.step_s)
    parts = (sample.timeline[:first], sample.timeline[first:last],
             sample.timeline[last:last + after])
    return [sum(part) / max(len(part), 1) / sample.step_s for part in parts]


def _busy(run, source, target, address):
    """It works while it migrates; what it says arrives over there."""
    line = f"access uniform {BUSY_SECONDS} {BUSY_PART}"
    source.vm.guest.start(line)
    begin = time.monotonic()
    time.sleep(LEAD_S)
    migrated = _migrate(source, target, address)
    end_s = time.monotonic() - begin
    with target.limited():
        target.vm.guest.finish(line, sides.WORK_TIMEOUT_S)
    sample = sides.Sample(target.vm.guest.messages)
    rates = _rates(sample, LEAD_S, end_s)
    run.values.update(zip(("before", "during", "throughput"), rates))
    run.timelines["throughput"] = sample.timeline
    return migrated


def once(bench, side, setup, busy=False):
    """The values of one migration between two sides of a kind."""
    run = pressure.Run()
    part = BUSY_PART if busy else _hot_part(setup)
    with sides.open_pair(side, setup) as (source, target, address):
        source.prepare()
        # what it has used last is in memory; the second time it waits for none
        source.access("uniform", HOT_SECONDS, part)
        run.values["before"] = source.access("uniform", HOT_SECONDS, part).rate
        before, waits = source.guest_bytes(), source.waits()
        if busy:
            info, faults = _busy(run, source, target, address)
        else:
            info, faults = _migrate(source, target, address)
        read = source.waits() - waits
        after, there = source.guest_bytes(), target.guest_bytes()
        more = target.allocated_bytes() - source.allocated_bytes()
        source.vm.kill()
        if not busy:
            run.values["throughput"] = target.access(
                "uniform", AFTER_SECONDS, part).rate
        target.command("compare")
    run.values.update({
        "kept": 100 * run.values["throughput"] / run.values["before"],
        "time": info["total-time"] / 1000, "downtime": info["downtime"],
        "bytes": info["ram"]["transferred"] / sides.MIB, "faults": faults,
        "waits": read, "lost": 100 * abs(after - before) / before,
        "zeros": max(more, 0) / sides.MIB})
    bench.say(f"{side}: source {before / sides.MIB:.0f} MiB resident, then "
              f"{after / sides.MIB:.0f}, it waited for {read} pages, {faults} "
              f"of them to be sent; target {there / sides.MIB:.0f} MiB")
    return run
