# SPDX-License-Identifier: GPL-2.0-or-later
"""Block devices of a test: good ones, and one that can be made to fail."""

import contextlib
import json
import os
import signal
import subprocess
import time

from . import environment
from .sandbox import die_with_parent
from .upstream import QEMUMonitorProtocol, QMPError

START_TIMEOUT_S = 20
EIO = 5


class LoopDevice:
    """A block device over a file, with a name of its own in a folder.

    path is a link, as those of logical volumes are.
    """

    def __init__(self, box, path, size=None, file=None):
        """Over an existing file, or a new one of so many bytes."""
        self.path = str(path)
        self.file = str(file or f"{box.disk}/{os.path.basename(path)}.img")
        if size:
            self._set_file_size(size)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.node = self._losetup("--find", "--show", "--direct-io=on",
                                  self.file).strip()
        box.on_exit(self.remove)
        os.symlink(self.node, self.path)

    def resize(self, size):
        """Make it larger, as lvextend does."""
        self._set_file_size(size)
        self._losetup("--set-capacity", self.node)

    def is_claimed(self):
        """Whether somebody keeps others away from it."""
        try:
            os.close(os.open(self.node, os.O_RDONLY | os.O_EXCL))
        except OSError:
            return True
        return False

    def remove(self):
        """Once: the device is gone when the last user is."""
        if self.node:
            self._losetup("--detach", self.node)
            os.unlink(self.path)
            self.node = None

    def _set_file_size(self, size):
        with open(self.file, "ab") as image:
            image.truncate(size)

    @staticmethod
    def _losetup(*args):
        return subprocess.run(["losetup", *args], check=True, text=True,
                              stdout=subprocess.PIPE).stdout


class FaultyDevice:
    """A block device over a file that a storage daemon exports by FUSE.

    Its requests go through the daemon's block layer, which injects errors,
    and can be stopped or killed. The file's bytes lie in the file image.
    """

    def __init__(self, box, path, size):
        self.image = f"{path}.raw"
        self._export = f"{path}.fuse"
        self._socket = os.path.join(box.run, "storage.sock")
        os.makedirs(os.path.dirname(self.image), exist_ok=True)
        for name in (self.image, self._export):
            with open(name, "wb") as file:
                file.truncate(size if name == self.image else 0)
        self._log = box.log("storage")
        box.on_exit(self._log.close)
        box.on_exit(self._end)
        self._daemon = self._start(box)
        self._qmp = QEMUMonitorProtocol(self._socket)
        self._connect()
        self.loop = LoopDevice(box, path, file=self._export)

    def _start(self, box):
        # Ended by _end().
        # pylint: disable=consider-using-with
        daemon = subprocess.Popen(
            [*die_with_parent(), environment.program("qemu-storage-daemon"),
             "--blockdev", self._json(
                 {"driver": "file", "node-name": "disk", "aio": "threads",
                  "filename": self.image, "cache": {"direct": True}}),
             *self._bad("read"), *self._bad("write"),
             "--blockdev", self._json(self._top("disk")),
             "--export", f"fuse,id=export,node-name=top,writable=on,"
             f"mountpoint={self._export}",
             "--chardev", f"socket,id=qmp,path={self._socket},server=on,"
             "wait=off", "--monitor", "chardev=qmp"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        box.know(daemon.pid)
        return daemon

    @staticmethod
    def _json(value):
        return json.dumps(value)

    def _bad(self, kind):
        """A node that fails all requests of a kind."""
        return ["--blockdev", self._json(
            {"driver": "blkdebug", "node-name": f"no-{kind}", "image": "disk",
             "inject-error": [{"event": "none", "iotype": kind,
                               "errno": EIO}]})]

    @staticmethod
    def _top(file):
        return {"driver": "raw", "node-name": "top", "file": file}

    def _connect(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._qmp.connect()
                break
            except (OSError, QMPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        while not os.path.getsize(self._export):
            assert time.monotonic() < deadline, "no FUSE export"
            time.sleep(0.05)

    def fail(self, kind):
        """From now on all reads, or writes, end in EIO; None: they work."""
        self._qmp.command("blockdev-reopen", options=[
            self._top(f"no-{kind}" if kind else "disk")])

    def hang(self):
        """Nothing is answered."""
        self._daemon.send_signal(signal.SIGSTOP)

    def go_on(self):
        """What was held up is answered."""
        self._daemon.send_signal(signal.SIGCONT)

    def unplug(self):
        """The device is gone for good."""
        self._daemon.kill()
        self._daemon.wait()

    def _end(self):
        """When the loop device is gone."""
        self.go_on()
        # Without a daemon, that is the end of a file.
        with contextlib.suppress(OSError, EOFError, QMPError):
            self._qmp.close()
        self._daemon.terminate()
        try:
            self._daemon.wait(10)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        subprocess.run(["umount", "--lazy", self._export], check=False,
                       stderr=subprocess.DEVNULL)
