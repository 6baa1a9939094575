# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what can go wrong with a migration, and in which phase of it.

Each cell is one migration of a busy guest that does not fit: it is brought to a
phase, something happens, and then exactly one side has the guest, with every
page right, and the other side has nothing left of it. The guest goes on to the
next cell from where it is by then.
"""

import contextlib
import os
import signal
import time

from . import sandbox, stream
from .case import MIB, WORK_TIMEOUT_S
from .migration import (COMPLETED, ENDLESS, FAST, MIGRATE_TIMEOUT_S,
                        MigrationTest)

END_TIMEOUT_S = 10
OUTAGE_S = 1
# Of QMP, when something else waits
ANSWER_TIMEOUT_S = 2
# Sent when a migration is taken to be in the middle of a round
SOME_BYTES = 8 * MIB
LATER_ROUND = 2

SETUP = "setup"
FIRST = "first round"
LATER = "later round"
PRE_SWITCHOVER = "pre-switchover"
# All has been sent, the destination's word that it has arrived has not come.
DEVICE = "device"
# The last one is COMPLETED: it has.

# What becomes of the guest
STAYS = "stays"         # the migration has failed, or been cancelled
LEAVES = "leaves"       # it has not
RETURNS = "returns"     # it has not, but the source is started again
TAKEN = "taken"         # it has failed, but the destination has it all the same
DIES = "dies"           # it is gone, and nobody may think otherwise
LOST = "lost"           # so is it, with who had it last

RECORDS = {0: "END", 1: "HELLO", 2: "NEVER", 3: "ZERO", 4: "DATA", 5: "SYNC",
           6: "PLACES", 7: "FILL", 8: "ROOM"}
MULTIFD = {"capabilities": {"multifd": True},
           "parameters": {"multifd-channels": 2}}
# Where a record is cut: (which byte, what the destination says of a record)
PLACES = {
    "header": (lambda record: record.offset + 3,
               "the stream ends within the section"),
    "payload": (lambda record: record.end - 1,
                "the stream ends within record {kind}"),
    "end": (lambda record: record.end,
            "the stream ends within the section"),
}
# END and SYNC have no payload.
CUTS = [(kind, place) for kind in (1, 2, 3, 4, 0) for place in PLACES
        if kind or place != "payload"]


class Side:
    """A manager with its pagers, and the guest that is there, if any."""

    def __init__(self, manager):
        self.manager = manager
        self.vm = None
        # How many descriptors there are without a guest
        self.idle = self.descriptors()

    def state(self):
        """What the manager says about the guest; None: it knows of none."""
        pid = self.vm.get_pid()
        return next((state for state in self.manager.vms()
                     if state.qemu_pid == pid), None)

    def files(self):
        """What VMs have in the run folder and in the tier."""
        return (MigrationTest.vm_files_of(self.manager) +
                MigrationTest.tier_files(self.manager.box))

    def descriptors(self):
        """How many each process has: {what: number}."""
        pids = {"manager": self.manager.pid}
        if self.vm:
            pids.update(QEMU=self.vm.get_pid(), pager=self.state().pager_pid)
        return {what: len(os.listdir(f"/proc/{pid}/fd"))
                for what, pid in pids.items()}


class FaultTest(MigrationTest):
    """One guest per test, which migrates to and fro."""

    memory = "256M"
    limit = "64M"
    work_mib = 110
    # What a guest sends that has just been filled: quicker than to boot one
    filled = None
    # Whether it sends all of it: what is elsewhere is another guest's later,
    # but what has never been populated is sent, and populated, for that
    sends_all = False
    # Kinds of errors that a test makes
    made_errors = frozenset()
    # Phases in which the source's guest has never stood still, in which it
    # does before all is sent, and in which the migration has ended
    live = (SETUP, FIRST, LATER)
    paused = (PRE_SWITCHOVER, DEVICE)
    ended = (COMPLETED,)

    def setUp(self):
        super().setUp()
        self.here = Side(self.manager)
        self.there = Side(self.make_second_manager())
        self.vms = 0
        self.gate = None
        # How many descriptors there are where a guest is
        self.busy = None
        self.addCleanup(self.kill_guests)

    def make_second_manager(self):
        return self.second_manager()

    # ---- a guest, and where it can go ----

    def prepare(self, side):
        """A QEMU that waits for a guest; the socket on which it does so.

        Whether it goes on there is up to us, as it is to any management.
        """
        self.vms += 1
        side.vm, path = self.make_target(side.manager, f"vm{self.vms}",
                                         ("-S",))
        return path

    def new_guest(self):
        """Have a busy guest here, which does not fit."""
        path = self.prepare(self.here)
        if self.filled is None:
            FaultTest.filled = self.fill_and_record(path)
        else:
            stream.play(self.filled, path)
        self.wait_status(self.here.vm, COMPLETED)
        self.here.vm.command("cont")
        self.start_load(self.here.vm)
        self.busy = self.busy or self.here.descriptors()

    def fill_and_record(self, path):
        """What a guest that comes from there sends to who listens here."""
        vm = self.boot(disk=None)
        self.fill(vm)
        vm.command("migrate-set-capabilities", capabilities=[
            {"capability": "managed-ram", "state": not self.sends_all}])
        recorder = stream.Recorder(f"{path}-recorder", path)
        vm.command("migrate-set-parameters", **FAST)
        vm.command("migrate", uri=f"unix:{path}-recorder")
        self.wait_status(vm, COMPLETED)
        vm.kill()
        recorder.close()
        return bytes(recorder.stream)

    def kill_guests(self):
        """While there still are managers that their pagers belong to"""
        for side in (self.here, self.there):
            if side.vm:
                side.vm.kill()

    def finish_guest(self):
        """The guest has never seen anything wrong, and goes."""
        vm = self.here.vm
        if vm:
            self.stop_load(vm)
            result = vm.guest.command("result", WORK_TIMEOUT_S)[0]
            self.assertEqual(result.fields["status"], "pass")
            vm.poweroff()
        self.here.vm = None
        for side in (self.here, self.there):
            self.assert_nothing_left(side)

    # ---- phases ----

    def wait_status(self, vm, wanted, timeout=None):
        """Most ends come soon."""
        super().wait_status(vm, wanted, timeout or (
            END_TIMEOUT_S if wanted in ("failed", "cancelled") else
            MIGRATE_TIMEOUT_S))

    def begin(self, phase, capabilities=(), parameters=(), **gate):
        """Begin a migration from here to there, for a phase to be reached.

        gate   more of the Gate that it goes through
        """
        path = self.prepare(self.there)
        self.gate = stream.Gate(f"{path}-gate", path, **gate)
        self.box.on_exit(self.gate.close)
        if phase == SETUP:
            self.gate.answered.hold()
        self.here.vm.get_qmp_events()
        self.send(self.here.vm, self.there.vm, f"{path}-gate",
                  ENDLESS if phase in self.live and phase != SETUP else FAST,
                  {"pause-before-switchover": phase in self.paused,
                   **dict(capabilities)}, parameters)

    def reach(self, phase):
        """Wait for a phase; it lasts until go_on()."""
        source = self.here.vm
        if phase == SETUP:
            self.wait(lambda: self.gate.answered.kept, "an answer")
        elif phase == FIRST:
            self.wait(lambda: len(self.gate.stream) > SOME_BYTES,
                      "the first round")
            self.assertEqual(self.rounds(source), 1)
        elif phase == LATER:
            self.wait_rounds(source, LATER_ROUND)
        elif phase == COMPLETED:
            self.wait_status(source, COMPLETED)
        else:
            self.wait_status(source, PRE_SWITCHOVER)
        if phase == DEVICE:
            self.gate.answered.hold()
            source.command("migrate-continue", state=PRE_SWITCHOVER)
            self.wait(lambda: self.gate.answered.kept, "the last answer",
                      MIGRATE_TIMEOUT_S)
        self.assertEqual(self.status(source), "active" if phase in
                         (FIRST, LATER) else phase)

    def go_on(self, phase):
        """Nothing is in the way of the migration any more."""
        source = self.here.vm
        source.command("migrate-set-parameters", **FAST)
        if phase == PRE_SWITCHOVER:
            source.command("migrate-continue", state=PRE_SWITCHOVER)
        self.gate.let_go()
        self.wait_status(source, COMPLETED)

    # ---- outcomes ----

    def cell(self, fault, phase, outcome):
        """One migration."""
        if not self.here.vm:
            self.new_guest()
        self.begin(phase)
        self.reach(phase)
        after = fault(self, phase)
        if outcome in (LEAVES, RETURNS) and self.here.vm.is_running():
            self.go_on(phase)
        if after:
            after()
        self.finish_cell(phase, outcome)

    def finish_cell(self, phase, outcome):
        """Exactly one side has the guest, whole; nothing is left elsewhere."""
        {LEAVES: self.leave, TAKEN: self.leave, RETURNS: self.come_back,
         STAYS: self.assert_is_back, DIES: self.die,
         LOST: self.lose}[outcome](phase)
        if self.there.vm:
            self.there.vm.kill()
            self.there.vm = None
        self.gate.close()
        self.assert_nothing_left(self.there)
        if self.here.vm:
            self.assert_whole()
        else:
            self.assert_nothing_left(self.here)

    def leave(self, _phase):
        """The destination's guest can run."""
        self.wait(lambda: self.run_state(self.there) == "paused",
                  "the destination's guest")
        self.move()
        self.here.vm.command("cont")

    def come_back(self, _phase):
        """The source's guest runs again, though it has left."""
        self.assertEqual(self.run_state(self.here), "postmigrate")
        self.here.vm.command("cont")

    def die(self, _phase):
        """The source is gone, and the destination does not have all."""
        self.assert_refused()
        self.here.vm = None

    def lose(self, _phase):
        """The destination has had the guest alone, and has ended."""
        self.fail("only with storage that both see")

    @staticmethod
    def run_state(side):
        """That of the guest."""
        return side.vm.command("query-status")["status"]

    def move(self):
        """What was there is here now, and the other way round."""
        self.here, self.there = self.there, self.here

    def assert_is_back(self, phase):
        """The source's guest runs, if it has ever stood still."""
        source = self.here.vm
        self.wait(lambda: self.run_state(self.here) == "running",
                  "the source's guest")
        names = [event["event"] for event in source.get_qmp_events()]
        self.assertEqual("STOP" in names, phase not in self.live, names)

    def assert_refused(self, why=""):
        """The destination has ended by itself, and says why."""
        target = self.there.vm
        target.wait(END_TIMEOUT_S)
        self.assertEqual(target.exitcode(), 1, target.get_log())
        self.assertIn(why or "load of migration failed", target.get_log())

    def assert_whole(self):
        """Each page that the guest has is right, and no more is used."""
        vm = self.here.vm
        self.stop_load(vm)
        self.verify(vm)
        state = self.here.state()
        self.assertEqual({name for name, number in state.errors.items()
                          if number} - self.made_errors, set())
        self.assertEqual(state.pages["lost"], 0)
        self.assertGreater(state.swapped, 0)
        self.assert_no_more_is_used(vm, self.here.manager)
        # What is looked for where it is gone
        self.assertTrue(self.here.files())
        self.wait(lambda: self.pagers() == self.wanted_pagers(),
                  "an end of all other pagers")
        self.start_load(vm)
        self.busy = self.busy or self.here.descriptors()
        self.assert_descriptors(self.here, self.busy)

    def assert_nothing_left(self, side):
        """Neither VM nor pager, nor anything of a file."""
        self.wait(lambda: not side.manager.vms(), "the end of the VM")
        self.wait(lambda: not side.files(),
                  f"the end of {side.files()}")
        self.assert_descriptors(side, side.idle)
        self.wait(lambda: self.pagers() == self.wanted_pagers(),
                  f"the end of all pagers but {self.wanted_pagers()}")

    def pagers(self):
        """All that the managers have started; some may be ours by now."""
        parents = ("self", self.here.manager.pid, self.there.manager.pid)
        return [pid for parent in parents for pid in sandbox.children(parent)
                if self.is_alive(pid) and
                "qemu-memory-pag " in sandbox.describe(pid)]

    def wanted_pagers(self):
        """That of the guest"""
        return [self.here.state().pager_pid] if self.here.vm else []

    def assert_descriptors(self, side, wanted):
        """As many as there were at the beginning, sooner or later."""
        self.wait(lambda: side.descriptors() == wanted,
                  f"{wanted} descriptors, of {side.descriptors()}")

    # ---- faults; some return what is to be done when all else is ----

    def cancel(self, phase):
        """By the user. After completion that comes too late."""
        source = self.here.vm
        source.command("migrate_cancel")
        self.wait_status(source, COMPLETED if phase in self.ended else
                         "cancelled")

    def cancel_when_target_hangs(self, phase):
        """The migration thread is in a write then, which is ended."""
        self.stop_process(self.there.vm.get_pid())
        self.wait(lambda: self.sent_nothing_for(0.3), "an end of sending")
        self.cancel(phase)

    def sent_nothing_for(self, seconds):
        """The stream has not become longer meanwhile."""
        before = len(self.gate.stream)
        time.sleep(seconds)
        return len(self.gate.stream) == before

    def cut(self, phase):
        """The network's end"""
        self.gate.cut()
        self.wait_failed(phase)

    def wait_failed(self, phase):
        """The source notices when it has something to say."""
        if phase == PRE_SWITCHOVER:
            self.here.vm.command("migrate-continue", state=PRE_SWITCHOVER)
        self.wait_status(self.here.vm, "failed")

    def kill_source(self, _phase):
        """What it has said gets there, and answers do not matter."""
        self.gate.answered.hold()
        self.here.vm.kill()
        self.gate.let_last_words_go()

    def kill_target(self, phase):
        """What it has said and is on its way is lost with it."""
        self.there.vm.kill()
        if self.gate.said.kept or self.gate.answered.kept:
            self.gate.cut()
        if phase not in self.ended:
            self.wait_failed(phase)

    def kill_pager_of(self, side):
        """Another one takes over."""
        os.kill(side.state().pager_pid, signal.SIGKILL)
        self.wait_recovered(side.vm)

    def kill_source_pager(self, _phase):
        self.kill_pager_of(self.here)

    def kill_target_pager(self, _phase):
        self.kill_pager_of(self.there)

    def kill_manager_of(self, side):
        """The migration does not need one."""
        side.manager.kill()
        return lambda: self.restart_manager(side)

    def restart_manager(self, side):
        """It finds who is there."""
        side.manager.start()
        self.wait(lambda: side.state() and side.state().is_served,
                  "adoption of the pager")

    @staticmethod
    def kill_all_of(side):
        """Neither pager nor manager for some time: who needs a page waits."""
        pager = side.state().pager_pid
        side.manager.kill()
        os.kill(pager, signal.SIGKILL)
        time.sleep(OUTAGE_S)

    def kill_all_at_source(self, _phase):
        self.kill_all_of(self.here)
        self.restart_manager(self.here)

    def kill_all_at_target(self, _phase):
        self.kill_all_of(self.there)
        self.restart_manager(self.there)

    def cancel_without_source_pager(self, _phase):
        """It ends when the migration thread has the page it waits for."""
        self.kill_all_of(self.here)
        self.here.vm.command_within(ANSWER_TIMEOUT_S, "migrate_cancel")
        self.restart_manager(self.here)
        self.wait_status(self.here.vm, "cancelled")

    def cancel_without_target_pager(self, _phase):
        """The source need not wait for the destination, which may end."""
        self.kill_all_of(self.there)
        self.here.vm.command_within(ANSWER_TIMEOUT_S, "migrate_cancel")
        self.wait_status(self.here.vm, "cancelled")
        self.there.manager.start()

    def kill_source_manager(self, _phase):
        return self.kill_manager_of(self.here)

    def kill_target_manager(self, _phase):
        return self.kill_manager_of(self.there)

    @contextlib.contextmanager
    def named(self, name):
        """Errors say in which cell they were."""
        start = time.monotonic()
        try:
            yield
        except Exception as err:
            raise AssertionError(f"{name}: {err!r}") from err
        print(f"# {name}: {time.monotonic() - start:.1f} s", flush=True)

    def table(self, *rows):
        """Of each row: a fault, {phase: outcome}."""
        for fault, cells in rows:
            for phase, outcome in cells.items():
                with self.named(f"{fault.__name__}, {phase}"):
                    self.cell(fault, phase, outcome)
        self.finish_guest()


class CutAt:
    """Tells a Gate to cut at the first record of a type."""

    def __init__(self, kind, where):
        """where: of a Record, the byte at which the stream is to end"""
        self._kind = kind
        self._where = where
        self._section = None
        self.size = None

    def __call__(self, so_far):
        self._section = self._section or stream.Section(so_far)
        for record in self._section.new_records():
            if self.size is None and record.type == self._kind:
                self.size = self._where(record)
        return self.size


class CutTest(FaultTest):
    """The stream ends at, or within, a record of the section."""

    def cut(self, kind, place, **how):
        """Both sides notice; the source's guest never does."""
        where, why = PLACES[place]
        # A part of the section is complete then; what is not is the stream.
        why = ("load of migration failed" if (kind, place) == (0, "end") else
               f"managed memory cannot be loaded: {why.format(kind=kind)}")
        cut_at = CutAt(kind, where)
        if not self.here.vm:
            self.new_guest()
        self.begin(FIRST, limit=cut_at, **how)
        self.wait_status(self.here.vm, "failed")
        self.assertIsNotNone(cut_at.size)
        self.assert_refused(why)
        self.finish_cell(FIRST, STAYS)

    def cut_all(self, cells, **how):
        """cells: pairs of a type and a place"""
        for kind, place in cells:
            with self.named(f"{RECORDS[kind]}, {place}"):
                self.cut(kind, place, **how)
        self.finish_guest()
