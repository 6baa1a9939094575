# SPDX-License-Identifier: GPL-2.0-or-later
"""Temporary folders and child processes of one test.

Pagers are not our children but the manager's, and outlive it when a test
kills it. To find them again, the test's process becomes the "child
subreaper": the kernel makes it the parent of every descendant that loses its
own. Children also get a signal when the test itself dies, so that not even
SIGKILL on it leaves a QEMU behind.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import environment

PR_SET_CHILD_SUBREAPER = 36
END_TIMEOUT_S = 10


class LeakError(Exception):
    """Processes were left behind that should have ended by themselves."""


def die_with_parent(extra=()):
    """Words before a command that make it end together with the test.

    The parent is the thread that starts it, so this is for the main thread.
    """
    return ["setpriv", "--pdeathsig", "KILL", *extra, "--"]


def children(parent="self"):
    """Process IDs of all children, adopted ones included."""
    pids = set()
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        pids.update(int(pid) for pid in path.read_text().split())
    return pids


def describe(pid):
    """Name and ID of a process, for messages."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "process"
    return f"{name} ({pid})"


class Sandbox:
    """Owns all that a test makes; see the package for its use.

    run    short path for sockets, in the system's temporary folder
    disk   folder for disk images and tiers, on the build's file system
    logs   output of all processes, kept after the test
    """

    # Children that subprocess objects wait for: those of all sandboxes, as a
    # test may have more than one.
    _waited_for = set()

    def __init__(self, name):
        self.name = name
        self.logs = environment.BUILD / "check" / f"{name}-logs"
        self._stack = contextlib.ExitStack()
        self._known = set()

    def __enter__(self):
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self._become_subreaper()
        self._catch_signals()
        self._known = children()
        self._stack.callback(self._check_leaks)
        self.run = self._folder("qemu-mm-", None)
        self.disk = self._folder(f"{self.name}-disk-",
                                 environment.BUILD / "check")
        return self

    def __exit__(self, *exception):
        if exception[0] is None:
            self._stack.close()
            return
        try:
            self._stack.close()
        except LeakError as leak:
            # The first error tells more.
            print(f"# {leak}", file=sys.stderr)

    def on_exit(self, function, *args, **kwargs):
        """Call function(...) at the end, before all that came earlier."""
        self._stack.callback(function, *args, **kwargs)

    def log(self, name):
        """Open a new log file for writing bytes."""
        # The file is owned by the caller.
        # pylint: disable=consider-using-with
        return open(self.logs / f"{name}.log", "ab", buffering=0)

    def reap_orphans(self):
        """Collect adopted children that have ended.

        Only for children that no subprocess object waits for: those that
        the manager left behind.
        """
        for pid in self._strangers():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def adopted(self):
        """Descriptions of the living processes that we adopted."""
        self.reap_orphans()
        return [describe(pid) for pid in sorted(self._strangers())]

    def know(self, pid):
        """A child that a subprocess object waits for."""
        self._waited_for.add(pid)

    def _folder(self, prefix, parent):
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        # For a QEMU that runs as another user.
        os.chmod(path, 0o755)
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def _strangers(self):
        return children() - self._known - self._waited_for

    @staticmethod
    def _become_subreaper():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")

    @staticmethod
    def _catch_signals():
        def leave(number, _frame):
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGHUP, leave)

    def _check_leaks(self):
        """Wait until all strangers have ended; kill the rest and complain."""
        deadline = time.monotonic() + END_TIMEOUT_S
        left = self.adopted()
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = self.adopted()
        for pid in self._strangers():
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT_S
        while self.adopted() and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            raise LeakError(f"left behind by {self.name} and killed: "
                            + ", ".join(left))
