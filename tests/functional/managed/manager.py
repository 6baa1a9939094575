# SPDX-License-Identifier: GPL-2.0-or-later
"""The manager's process and its QMP monitor."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time

from . import environment
from .sandbox import die_with_parent
from .state import VmState
from .upstream import QEMUMonitorProtocol, QMPError

START_TIMEOUT_S = 20
END_TIMEOUT_S = 10
QMP_TIMEOUT_S = 20
# What lies in the run folder when there is no VM
OWN_FILES = {"attach.sock", "manager.lock", "qmp.sock", "write-budgets"}


class ManagerError(Exception):
    """The manager did not do what it should."""


class ManagerQmp(QEMUMonitorProtocol):
    """QMP client; other than the inherited one, it does not wait for ever."""

    def connect_within(self, timeout):
        """Connect and negotiate."""
        self._sync(self._qmp.connect(self._address), timeout)
        self.settimeout(timeout)


class Manager:
    """A qemu-memory-manager with its own run folder and tier.

    It can be killed and started again while guests run; its run folder
    stays.
    """

    def __init__(self, box, *args, tier=None, config=None):
        """
        args are added to the command line; tier is that of --tier, config a
        file that has tiers instead.
        """
        self.box = box
        self.run = os.path.join(box.run, "manager")
        self.attach_path = os.path.join(self.run, "attach.sock")
        self.qmp_path = os.path.join(self.run, "qmp.sock")
        self._args = ["--run-dir", self.run,
                      *(["--config", config] if config else
                        ["--tier", tier or f"file,path={box.disk}/tier"]),
                      *args]
        self._process = None
        self._qmp = None
        self._log = box.log("manager")
        box.on_exit(self._log.close)
        box.on_exit(self.stop)

    def start(self):
        """Start it and wait until its monitor answers."""
        os.makedirs(self.run, exist_ok=True)
        command = [environment.program("qemu-memory-manager"), *self._args]
        # Ended by stop() at the latest.
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(die_with_parent() + command,
                                         stdin=subprocess.DEVNULL,
                                         stdout=self._log, stderr=self._log)
        self.box.know(self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._connect():
            if self._process.poll() is not None:
                raise ManagerError("the manager ended at start: "
                                   + self.last_words())
            if time.monotonic() > deadline:
                raise ManagerError(f"the manager's monitor {self.qmp_path} "
                                   f"does not answer: {self.last_words()}")
            time.sleep(0.02)

    @property
    def pid(self):
        """Process ID, None if it does not run."""
        return self._process.pid if self.is_running() else None

    def is_running(self):
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self):
        """End it as a service manager does."""
        self._end(signal.SIGTERM)

    def kill(self):
        """End it without a chance to clean up; guests and pagers go on."""
        self._end(signal.SIGKILL)

    def command(self, name, /, **arguments):
        """Run a QMP command; underscores in argument names become dashes."""
        if self._qmp is None and not self._connect():
            raise ManagerError(f"no connection to {self.qmp_path}")
        arguments = {key.replace("_", "-"): value
                     for key, value in arguments.items()}
        return self._qmp.command(name, **arguments)

    def event(self, name, timeout):
        """Wait for a QMP event; None if it does not come in time."""
        deadline = time.monotonic() + timeout
        while self._qmp is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            with contextlib.suppress(asyncio.TimeoutError):
                event = self._qmp.pull_event(wait=left)
                if event["event"] == name:
                    return event
        return None

    def vms(self):
        """The state of all VMs."""
        self.box.reap_orphans()
        return [VmState(reply) for reply in self.command("query-managed-vms")]

    def vm(self, qemu):
        """The state of the VM that a GuestVM runs."""
        pid = qemu.get_pid()
        for state in self.vms():
            if state.qemu_pid == pid:
                return state
        raise ManagerError("the manager does not list QEMU, process "
                           f"{pid}")

    def wait_vm(self, qemu, condition, timeout, what):
        """Query until condition(state) is true; return the state."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.vm(qemu)
            if condition(state):
                return state
            if time.monotonic() > deadline:
                raise ManagerError(f"{what}: not within {timeout} s; the "
                                   f"manager says {state.reply}")
            time.sleep(0.05)

    def last_words(self):
        """The last lines that it has printed."""
        path = self.box.logs / "manager.log"
        lines = path.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "(it has not printed anything)"

    def _connect(self):
        qmp = ManagerQmp(self.qmp_path, nickname="manager")
        try:
            qmp.connect_within(QMP_TIMEOUT_S)
        except (QMPError, OSError):
            return False
        except asyncio.TimeoutError:
            raise ManagerError("the manager's monitor accepts connections, "
                               "but does not answer") from None
        self._qmp = qmp
        return True

    def _end(self, number):
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._disconnect()
        try:
            status = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ManagerError("the manager did not end within "
                               f"{END_TIMEOUT_S} s") from None
        finally:
            self._process = None
        if number == signal.SIGTERM and status not in (0, -number):
            raise ManagerError(f"the manager ended with status {status}: "
                               + self.last_words())

    def _disconnect(self):
        qmp, self._qmp = self._qmp, None
        if qmp is not None:
            # It may be gone already; that is no news here.
            with contextlib.suppress(Exception):
                qmp.close()
