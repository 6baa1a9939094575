# SPDX-License-Identifier: GPL-2.0-or-later
"""Test cases for the manager.

The pagers are fake-pager, a program that speaks the protocol and has no
memory, so that it can also hang, crash and lie.
"""

import contextlib
import os
import re
import signal
import socket
import time
import unittest
from pathlib import Path

from . import proto
from .fakeqemu import FakeQemu, QemuProcess
from .manager import OWN_FILES, Manager
from .sandbox import Sandbox

FAKE_PAGER = Path(__file__).resolve().parents[1] / "fake-pager"
NOBODY = 65534



def is_alive(pid):
    """Whether a process that may be our orphan still runs."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rsplit(")", 1)[1].split()[0] not in "ZX"


class ManagerTest(unittest.TestCase):
    """A manager with fake pagers, and what to look at."""

    options = ()

    def setUp(self):
        self.box = self.enterContext(Sandbox(
            "manager-" + self._testMethodName.removeprefix("test_")))
        self.mode = Path(self.box.run) / "fake-pager.mode"
        self.pagers_do("")
        os.environ["FAKE_PAGER"] = str(self.mode)
        self.manager = self.make_manager(*self.options)
        self.manager.start()

    def make_manager(self, *options, tier=None):
        """A manager that is not started yet."""
        return Manager(self.box, "--pager", str(FAKE_PAGER), *options,
                       tier=tier)

    def pagers_do(self, words):
        """Set the mode of all fake pagers."""
        self.mode.write_text(words)

    def attach(self, name="fake", **hello):
        """Attach in this process."""
        qemu = FakeQemu(self.manager.attach_path, name, **hello)
        self.box.on_exit(qemu.close)
        return qemu

    def attach_child(self, *args, **kwargs):
        """Attach in a new process."""
        return QemuProcess(self.box, self.manager.attach_path, *args, **kwargs)

    def connect(self):
        """A connection that has not said HELLO."""
        sock = proto.connect(self.manager.attach_path)
        self.box.on_exit(sock.close)
        return sock

    def only_vm(self):
        """The state of the only VM."""
        vms = self.manager.vms()
        self.assertEqual(len(vms), 1, vms)
        return vms[0]

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

    def wait_state(self, state, timeout=10):
        """Wait until the only VM is in a state."""
        return self.wait(
            lambda: next((vm for vm in self.manager.vms()
                          if vm.state == state), None),
            f"a VM that is {state}", timeout)

    def log(self):
        """All that the manager and its pagers have printed."""
        return (self.box.logs / "manager.log").read_text()

    def wait_log(self, pattern):
        """Wait until the log has this."""
        self.wait(lambda: re.search(pattern, self.log()),
                  f"'{pattern}' in the log")

    def kill_pager(self):
        """SIGKILL; return the process ID that it had."""
        pid = self.only_vm().pager_pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop_pager(self, pid):
        """SIGSTOP until the test ends."""
        os.kill(pid, signal.SIGSTOP)
        self.box.on_exit(self.continue_pager, pid)

    @staticmethod
    def continue_pager(pid):
        """SIGCONT, if there still is one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def vm_files(self):
        """What lies in the run folder besides the manager's own files."""
        return sorted(set(os.listdir(self.manager.run)) - OWN_FILES)

    def vm_file(self, suffix):
        """Path of the only file with this suffix."""
        names = [name for name in self.vm_files() if name.endswith(suffix)]
        self.assertEqual(len(names), 1, names)
        return Path(self.manager.run) / names[0]

    def wait_no_files(self):
        """Wait until nothing is left of any VM."""
        self.wait(lambda: not self.vm_files(), "removal of the VM's files")

    def raw_qmp(self):
        """A QMP connection that waits for nothing."""
        sock = socket.socket(socket.AF_UNIX)
        self.box.on_exit(sock.close)
        sock.connect(self.manager.qmp_path)
        sock.sendall(b'{"execute": "qmp_capabilities"}')
        time.sleep(0.1)
        return sock

    def descriptors(self):
        """Number of the manager's open descriptors."""
        return len(os.listdir(f"/proc/{self.manager.pid}/fd"))

    def assert_serves(self):
        """Somebody else can attach, and quickly."""
        start = time.monotonic()
        other = self.attach_child(name="other")
        self.assertIn("uuid", other.reply)
        self.assertLess(time.monotonic() - start, 2)
        other.kill()
        self.wait_no_files()

    def assert_closed(self, sock, number, words):
        """The answer is ERROR with these words, and then the end."""
        msg = proto.receive(sock)
        self.assertEqual(msg.type, "ERROR", msg)
        self.assertEqual(msg.error()[0], number, msg)
        self.assertRegex(msg.error()[1], words)
        self.assertIsNone(proto.receive(sock))
