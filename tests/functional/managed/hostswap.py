# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's swap, and memory cgroups that make a guest use it.

Only what is in such a cgroup is short of memory, so that nothing else on the
host is swapped; but a swap device is the host's, and page-cluster is, too.
"""

import contextlib
import errno
import os
import re
import subprocess
import time
from pathlib import Path

PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
ZRAM_CONTROL = Path("/sys/class/zram-control")
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
REMOVE_TIMEOUT_S = 20
RECLAIM_TIMEOUT_S = 60
RECLAIM_STEP = 8 << 20


class HostError(Exception):
    """This host cannot do what is wanted; the text says what is missing."""


def missing():
    """Why there can be no comparison with the kernel's swap, or None."""
    if os.geteuid() != 0:
        return "only root can add swap and make cgroups"
    if not os.path.exists("/proc/swaps"):
        return "this kernel has no swap"
    if MemoryCgroup.version() is None:
        return "there is no memory cgroup"
    return None


class MemoryCgroup:
    """A new cgroup with a limit, version 1 or 2."""

    def __init__(self, name):
        self.version_used = self.version()
        root = V1 if self.version_used == 1 else V2
        self.folder = root / name
        self.folder.mkdir()
        if self.version_used == 1:
            self._write("memory.swappiness", 100)
            # It gives up on pages that are being written: rather wait.
            self._write("memory.oom_control", 1)

    @staticmethod
    def version():
        """1, 2, or None where there is none."""
        if (V1 / "memory.limit_in_bytes").exists():
            return 1
        controllers = V2 / "cgroup.subtree_control"
        if controllers.exists() and "memory" in controllers.read_text("ascii"):
            return 2
        return None

    def _write(self, name, value):
        (self.folder / name).write_text(str(value), encoding="ascii")

    def prefix(self):
        """Words before a command that make it run there."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; '
                'exec "$@"', "sh"]

    def set_limit(self, size):
        """In bytes; reclaims what is over it before it returns.

        Version 1 gives up when a few turns have not sufficed, so it goes down
        in steps, and is asked again.
        """
        name = ("memory.limit_in_bytes" if self.version_used == 1
                else "memory.max")
        deadline = time.monotonic() + RECLAIM_TIMEOUT_S
        step = size
        while True:
            try:
                self._write(name, step)
                if step == size:
                    return
            except OSError as err:
                if err.errno != errno.EBUSY:
                    raise
                if time.monotonic() > deadline:
                    raise HostError("the kernel cannot reclaim down to "
                                    f"{size} bytes") from err
            step = max(size, self.usage() - RECLAIM_STEP)

    def usage(self):
        """Bytes that are charged."""
        name = ("memory.usage_in_bytes" if self.version_used == 1
                else "memory.current")
        return int((self.folder / name).read_text("ascii"))

    def _counted(self, name):
        text = (self.folder / "memory.stat").read_text("ascii")
        return int(re.search(rf"^{name} (\d+)$", text, re.M)[1])

    def shmem(self):
        """Bytes of shared memory that are charged, and so resident."""
        return self._counted("shmem")

    def anonymous(self):
        """Bytes in memory that no file is behind, mapped or not; tmpfs, too."""
        return sum(map(self._counted, ("inactive_anon", "active_anon",
                                       "unevictable")))

    def swap_cache(self):
        """Bytes that were just read from swap, or are about to go there."""
        anonymous = "rss" if self.version_used == 1 else "anon"
        return max(self._counted("inactive_anon") + self._counted("active_anon")
                   - self._counted(anonymous) - self.shmem(), 0)

    def major_faults(self):
        """How often somebody in it has waited for storage."""
        return self._counted("pgmajfault")

    def remove(self):
        """Once its processes have ended."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while True:
            try:
                self.folder.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _swapon(device, priority):
    subprocess.run(["mkswap", device], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", "-p", str(priority), device], check=True)


@contextlib.contextmanager
def swap_file(folder, size, priority=10):
    """Swap on a file's disk."""
    path = os.path.join(folder, f"mm-{os.getpid()}.swap")
    try:
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.posix_fallocate(file.fileno(), 0, size)
        _swapon(path, priority)
        try:
            yield
        finally:
            subprocess.run(["swapoff", path], check=True)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _new_zram():
    try:
        return int((ZRAM_CONTROL / "hot_add").read_text("ascii"))
    except OSError as err:
        raise HostError(f"cannot make a zram device: {err}") from err


@contextlib.contextmanager
def zram(size, algorithm, most=None, priority=100):
    """Swap on compressed memory; most: bytes that it may occupy."""
    number = _new_zram()
    block = Path(f"/sys/block/zram{number}")
    try:
        (block / "comp_algorithm").write_text(algorithm, "ascii")
        (block / "disksize").write_text(str(size), "ascii")
        if most:
            (block / "mem_limit").write_text(str(most), "ascii")
        _swapon(f"/dev/zram{number}", priority)
        try:
            yield
        finally:
            subprocess.run(["swapoff", f"/dev/zram{number}"], check=True)
    finally:
        (block / "reset").write_text("1", "ascii")
        (ZRAM_CONTROL / "hot_remove").write_text(str(number), "ascii")


@contextlib.contextmanager
def page_cluster(value):
    """2^value pages are read from swap at once."""
    before = PAGE_CLUSTER.read_text("ascii")
    PAGE_CLUSTER.write_text(str(value), "ascii")
    try:
        yield
    finally:
        PAGE_CLUSTER.write_text(before, "ascii")
