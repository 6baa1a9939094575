# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that use KVM in the emulated host, and a base class for their tests.

Everything is small, since all of it is emulated: a guest of 192 MiB with a
resident limit of 72 MiB boots in a few seconds.
"""

import contextlib
import os
import time
import unittest
from pathlib import Path

from managed.guest import GuestError
from managed.manager import Manager, ManagerError
from managed.sandbox import Sandbox
from managed.vm import GuestVM

from . import host

MEMORY = "192M"
LIMIT = "72M"
FILL_MIB = 85
MIB = 1 << 20
BOOT_TIMEOUT_S = 180
PHASE_TIMEOUT_S = 120
# Managed memory refuses guests that could run guests themselves.
CPU = "host,svm=off"


def threads_in_fault():
    """Stacks of all threads that wait for a pager, by the kernel's word."""
    found = []
    for stack in Path("/proc").glob("[0-9]*/task/[0-9]*/stack"):
        with contextlib.suppress(OSError):
            text = stack.read_text()
            if "handle_userfault" in text:
                found.append(f"{stack}: {' '.join(text.split())}")
    return found


class KvmTest(unittest.TestCase):
    """A manager, and guests that it serves."""

    manager_options = ()

    def setUp(self):
        self.box = self.enterContext(Sandbox(
            self._testMethodName.removeprefix("test_").replace("_", "-")))
        self.manager = Manager(self.box, *self.manager_options)
        self.manager.start()

    def _callTestMethod(self, method):
        try:
            super()._callTestMethod(method)
        except GuestError as err:
            with contextlib.suppress(OSError, ManagerError):
                for state in self.states():
                    print(f"# {state.reply}")
            waiting = threads_in_fault()
            time.sleep(1)
            print(f"# {err}\n# in a fault: {waiting}\n# and a second later: "
                  f"{threads_in_fault()}", flush=True)
            if not waiting and self.emulation_broke(str(err)):
                os._exit(host.BROKEN)
            raise

    def emulation_broke(self, text):
        """Whether it is the emulation of SVM that has broken a guest.

        The guest has reset itself, its kernel is in trouble, or it is silent;
        and nothing that is ours is wrong: no page, no error, and nobody waits,
        neither by the pager's nor by the kernel's word.
        """
        signs = ("QEMU's status is 0", "stack guard page", "Kernel panic",
                 "BUG: ", "Oops", "soft lockup", "rcu: INFO", "segfault",
                 "blocked for more than", "from the guest within")
        if "MM: BAD" in text or not any(sign in text for sign in signs):
            return False
        return all(not any(state.errors.values()) and
                   not state.pages["lost"] and not state.stalled_threads
                   for state in self.states())

    def states(self):
        """What managers say about all guests."""
        return self.manager.vms()

    def make(self, cpu=CPU, limit=LIMIT, extra=(), **kwargs):
        """Make a guest; other arguments are those of GuestVM."""
        return GuestVM(self.box, manager=self.manager, memory=MEMORY,
                       limit=limit, accel="kvm",
                       extra=("-cpu", cpu, *extra), **kwargs)

    def boot(self, **kwargs):
        """Boot a guest; arguments are those of make()."""
        vm = self.make(**kwargs)
        vm.launch()
        self.wait_ready(vm)
        return vm

    def wait_ready(self, vm):
        """Wait until the guest's agent answers."""
        ready = vm.guest.wait("ready", BOOT_TIMEOUT_S)
        print(f"# guest ready: {ready.text}", flush=True)
        self.assertTrue(vm.command("query-kvm")["enabled"])

    def fill(self, vm, mib=FILL_MIB):
        """Stamp more memory than may be resident, so that some is swapped."""
        vm.guest.command(f"fill {mib}", PHASE_TIMEOUT_S)
        state = self.check_limit(vm)
        self.assertGreater(state.swapped, 0)
        self.assertGreater(state.pages["written"], 0)

    def verify(self, vm):
        """Compare all pages, and the sums since the boot."""
        vm.guest.command("verify", PHASE_TIMEOUT_S)
        result = vm.guest.command("result", 10)[0]
        self.assertEqual(result.fields["status"], "pass")
        self.assertEqual(result.number("bad"), 0)
        return result

    def check_limit(self, vm):
        """The guest is within its limit, by the kernel's count too."""
        state = self.manager.vm(vm)
        self.assertFalse(state.stale)
        print(f"# resident {state.resident >> 20} MiB of "
              f"{state.hard_limit >> 20} MiB, swapped {state.swapped >> 20} "
              f"MiB, faults {state.faults}", flush=True)
        self.assertLessEqual(state.resident, state.hard_limit)
        self.assertLessEqual(vm.resident_bytes(), state.hard_limit)
        return state

    def check_gone(self, vm):
        """Nothing of the VM is left with the manager."""
        left = set(os.listdir(self.manager.run)) - {
            "manager.lock", "attach.sock", "qmp.sock"}
        self.assertEqual((self.manager.vms(), left), ([], set()), vm)

    def operate(self, name, **arguments):
        """Run an operation of the manager to its end; return what it says."""
        self.manager.command(name, **arguments)
        event = self.manager.event("MANAGED_VM_OPERATION_COMPLETED",
                                   PHASE_TIMEOUT_S)
        self.assertIsNotNone(event, name)
        operation = event["data"]["operation"]
        self.assertEqual(operation["status"], "done", operation)
        return operation
