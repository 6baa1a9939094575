# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests with a manager and guests have in common.

The guests are small and busy: 512 MiB of RAM, of which a quarter may be
resident, and 300 MiB of stamped pages.
"""

import contextlib
import os
import signal
import sys
import time
import unittest
from pathlib import Path

from . import environment
from .manager import OWN_FILES, Manager
from .sandbox import Sandbox
from .vm import GuestVM

BOOT_TIMEOUT_S = 90
WORK_TIMEOUT_S = 120
RECOVERY_TIMEOUT_S = 30
MIB = environment.MIB


class GuestTest(unittest.TestCase):
    """A sandbox, a manager that runs, and guests that tests boot."""

    memory = "512M"
    limit = "128M"
    work_mib = 300
    manager_options = ()

    @classmethod
    def setUpClass(cls):
        environment.build_guest()

    def setUp(self):
        program = Path(sys.argv[0]).name.removeprefix("test-")
        self.box = self.enterContext(Sandbox(
            program + "-" + self._testMethodName.removeprefix("test_")))
        self.manager = self.make_manager()
        self.manager.start()

    def make_manager(self):
        """A manager that is not started yet."""
        return Manager(self.box, *self.manager_options)

    def second_box(self):
        """A sandbox for what is to be another host's."""
        return self.enterContext(Sandbox(f"{self.box.name}-destination"))

    def second_manager(self, box=None, **options):
        """A manager with a run folder and a tier of its own, which runs.

        options   of the Manager
        """
        manager = Manager(box or self.second_box(), **options)
        manager.start()
        return manager

    def make_vm(self, **options):
        """A guest on managed memory that is not started yet."""
        return GuestVM(self.box, **{
            "manager": self.manager, "limit": self.limit,
            "memory": self.memory, "parameters": "mm.threads=4", **options})

    def boot(self, **options):
        """Boot a guest on managed memory and wait for its agent."""
        vm = self.make_vm(**options)
        vm.launch()
        vm.guest.wait("ready", BOOT_TIMEOUT_S)
        return vm

    def fill(self, vm, mib=None):
        """Have the guest stamp more memory than may be resident."""
        vm.guest.command(f"fill {mib or self.work_mib}", WORK_TIMEOUT_S)

    def verify(self, vm):
        """Every stamped page is right, and all of them were looked at."""
        vm.guest.command("verify", WORK_TIMEOUT_S)

    def start_load(self, vm, phase="random"):
        """Have the guest work until stop_load()."""
        vm.guest.start(f"{phase} 0")
        vm.guest.wait("progress", WORK_TIMEOUT_S, phase=phase)

    def stop_load(self, vm, phase="random"):
        """End it; every page that it has checked was right."""
        vm.guest.send("stop")
        vm.guest.finish(f"{phase} 0", WORK_TIMEOUT_S)

    def assert_progress(self, vm, timeout=10, phase="random"):
        """The guest's load gets something done from now on."""
        vm.guest.new_messages()
        first = vm.guest.wait("progress", timeout, phase=phase)
        vm.guest.wait_for(
            lambda message: message.word == "progress" and
            message.number("pages") > first.number("pages"), timeout,
            "progress of the guest")

    def finish(self, vm):
        """Verify everything, look for errors, and power off."""
        self.verify(vm)
        result = vm.guest.command("result", WORK_TIMEOUT_S)[0]
        self.assertEqual(result.fields["status"], "pass")
        self.assertGreater(result.number("checked"), 0)
        state = self.manager.vm(vm)
        self.assertEqual(set(state.errors.values()), {0}, state.errors)
        self.assertEqual(state.pages["lost"], 0)
        self.assert_no_more_is_used(vm)
        vm.poweroff()
        self.wait_no_files()

    def assert_no_more_is_used(self, vm, manager=None):
        """Neither of memory nor of the tier, than what the pager tells.

        Some pages may be on their way in or out.
        """
        state = (manager or self.manager).vm(vm)
        if state.hard_limit is not None:
            self.assertLessEqual(vm.resident_bytes(), state.hard_limit + MIB)
        self.assertLessEqual(state.tier_content, state.swapped + 4 * MIB)

    def assert_swaps(self, vm):
        """The guest does not fit, and was swapped out and in."""
        state = self.manager.vm(vm)
        self.assertLessEqual(state.resident, state.hard_limit)
        self.assertGreater(state.swapped, 0)
        self.assertGreater(state.faults["swap-in"], 0)

    def wait(self, condition, what, timeout=10):
        """Wait until condition() is true; return its value."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                self.fail(f"{what}: not within {timeout} s")
            time.sleep(0.01)

    @staticmethod
    def vm_files_of(manager):
        """What lies in the run folder besides the manager's own files."""
        return sorted(set(os.listdir(manager.run)) - OWN_FILES)

    def vm_files(self):
        """The same, of the only manager."""
        return self.vm_files_of(self.manager)

    def wait_no_files(self, timeout=5):
        """Wait until nothing is left of any VM."""
        self.wait(lambda: not self.vm_files(), "removal of the VM's files",
                  timeout)

    def kill_pager(self, vm):
        """SIGKILL; return the process ID that it had."""
        pid = self.manager.vm(vm).pager_pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_recovered(self, vm):
        """Wait until QEMU says that it has a new pager."""
        return vm.event_wait("MANAGED_MEMORY_RECOVERED", RECOVERY_TIMEOUT_S)

    def stop_process(self, pid):
        """SIGSTOP, and SIGCONT when the test ends at the latest."""
        os.kill(pid, signal.SIGSTOP)
        self.box.on_exit(self.continue_process, pid)

    @staticmethod
    def continue_process(pid):
        """SIGCONT, if there still is such a process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    @staticmethod
    def tier_files(box):
        """Files of a tier that some process holds open, or lie there."""
        tier = os.path.join(box.disk, "tier")
        found = os.listdir(tier) if os.path.isdir(tier) else []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if target.startswith(tier + "/"):
                        found.append(f"process {pid}: {target}")
            except OSError:
                # The process, or only its descriptor, has gone meanwhile.
                continue
        return found

    @staticmethod
    def is_alive(pid):
        """Whether a process is there and not a zombie."""
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] not in "ZX"
