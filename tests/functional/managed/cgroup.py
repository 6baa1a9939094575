# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups, version 1, for a QEMU and what belongs to it."""

import os
import re
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
BYTES_FILE = "blkio.throttle.io_service_bytes"
UNLIMITED_BPS = 1 << 50


def available(controllers):
    """Whether we can make cgroups of these controllers."""
    return os.geteuid() == 0 and all(
        (ROOT / key / "cgroup.procs").exists() for key in controllers)


class Cgroups:
    """One new cgroup per controller; to be removed when it is empty."""

    def __init__(self, name, controllers):
        self.folders = {key: ROOT / key / name for key in controllers}
        for folder in self.folders.values():
            folder.mkdir()

    def remove(self):
        """The processes in it have ended, or are about to."""
        for folder in self.folders.values():
            deadline = time.monotonic() + 10
            while self._is_busy(folder) and time.monotonic() < deadline:
                time.sleep(0.1)
            folder.rmdir()

    def prefix(self):
        """Words before a command that make it run there."""
        joins = [f"echo $$ > {folder}/cgroup.procs"
                 for folder in self.folders.values()]
        return ["sh", "-c", "; ".join([*joins, 'exec "$@"']), "sh"]

    def number(self, controller, name):
        """Value of a file with one number."""
        return int((self.folders[controller] / name).read_text("ascii"))

    def set_memory_limit(self, size):
        """In bytes."""
        path = self.folders["memory"] / "memory.limit_in_bytes"
        path.write_text(str(size), encoding="ascii")

    def set_read_iops(self, path, count):
        """Reads per second of the disk that a file lies on."""
        self._throttle(path, "read_iops", count)

    def set_read_bps(self, path, count=UNLIMITED_BPS):
        """Bytes per second that may be read from the disk of a file."""
        self._throttle(path, "read_bps", count)

    def set_write_bps(self, path, count=UNLIMITED_BPS):
        """Bytes per second that may be written to the disk of a file."""
        self._throttle(path, "write_bps", count)

    def count_disk(self, path):
        """Have disk() count the disk that a file lies on.

        Since Linux 6.10 nothing is counted on a disk that has never had a
        limit since the host has booted.
        """
        self.set_write_bps(path)

    def _throttle(self, path, what, value):
        device = os.stat(path).st_dev
        throttle = self.folders["blkio"] / f"blkio.throttle.{what}_device"
        throttle.write_text(
            f"{os.major(device)}:{os.minor(device)} {value}", "ascii")

    def shmem(self):
        """Bytes of shared memory that are charged."""
        text = (self.folders["memory"] / "memory.stat").read_text("ascii")
        return int(re.search(r"^shmem (\d+)$", text, re.M)[1])

    def disk(self, kind):
        """Bytes read from ("Read") or written to ("Write") all disks."""
        text = (self.folders["blkio"] / BYTES_FILE).read_text("ascii")
        return sum(int(number) for number in
                   re.findall(rf"^\S+ {kind} (\d+)$", text, re.M))

    def has(self, pid):
        """Whether a process is in all of them."""
        return all(str(pid) in (folder / "cgroup.procs").read_text("ascii")
                   .split() for folder in self.folders.values())

    @staticmethod
    def _is_busy(folder):
        return bool((folder / "cgroup.procs").read_text("ascii").strip())
