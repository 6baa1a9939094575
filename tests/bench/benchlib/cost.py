# SPDX-License-Identifier: GPL-2.0-or-later
"""What managed memory costs where nothing is swapped.

The baseline is the same QEMU with memory-backend-memfd,share=on.
"""

import contextlib
import os
import signal
import statistics
import time
from pathlib import Path

from managed.manager import Manager
from managed.sandbox import Sandbox
from managed.vm import GuestVM

from .report import absolute, compared

BOOT_TIMEOUT_S = 60
WORK_TIMEOUT_S = 300
RESIDENT_MIB = 400
RESIDENT_SECONDS = 8
FIRST_TOUCH_MIB = 700
IDLE_SECONDS = 20
STALL_SIZES_GIB = (1, 2, 4)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def booted(bench, managed, memory="1G", mib=RESIDENT_MIB):
    """A booted guest that fills its memory on request."""
    with Sandbox("bench") as box:
        manager = Manager(box) if managed else None
        if manager:
            manager.start()
        vm = GuestVM(box, manager=manager, memory=memory,
                     accel=bench.accel, disk=None,
                     parameters=f"mm.mib={mib} mm.threads=1")
        vm.launch()
        vm.guest.wait("ready", BOOT_TIMEOUT_S)
        yield vm, manager


def done(messages, phase):
    """The message with which the guest ends a phase."""
    return next(message for message in messages if message.word == "done"
                and message.fields.get("phase") == phase)


def rate(messages, phase):
    """Pages per second of a phase."""
    message = done(messages, phase)
    return message.number("pages") * 1000 / max(message.number("ms"), 1)


def measure_resident(bench):
    """Throughput of a guest all of whose memory is resident."""
    def once(managed):
        with booted(bench, managed) as (vm, _):
            vm.guest.command("fill", WORK_TIMEOUT_S)
            return rate(vm.guest.command(f"random {RESIDENT_SECONDS}",
                                         WORK_TIMEOUT_S), "random")
    yield compared("resident", "pages/s",
                   bench.pairs("resident", once), 0.98)


def measure_firsttouch(bench):
    """Throughput of a guest that touches memory for the first time."""
    def once(managed):
        with booted(bench, managed, mib=FIRST_TOUCH_MIB) as (vm, _):
            return rate(vm.guest.command("fill", WORK_TIMEOUT_S), "fill")
    yield compared("firsttouch", "pages/s",
                   bench.pairs("firsttouch", once), 0.8)


def metadata_bytes(vm):
    """What the memfds beside guest memory really occupy."""
    folder = Path(f"/proc/{vm.get_pid()}/fd")
    sizes = {}
    for link in folder.iterdir():
        target = os.readlink(link)
        if target.startswith("/memfd:managed-") and "-ram" not in target:
            status = os.stat(link)
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def cpu_seconds(pid):
    """CPU time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def measure_idle(bench):
    """Metadata of a full guest, and CPU time while it is idle."""
    metadata, idle = [], []
    for run in range(bench.runs):
        with booted(bench, True, mib=FIRST_TOUCH_MIB) as (vm, manager):
            vm.guest.command("fill", WORK_TIMEOUT_S)
            metadata.append(100 * metadata_bytes(vm) / vm.memory)
            pids = [manager.pid, manager.vm(vm).pager_pid]
            before = sum(map(cpu_seconds, pids))
            time.sleep(IDLE_SECONDS)
            used = sum(map(cpu_seconds, pids)) - before
            idle.append(100 * used / IDLE_SECONDS)
        bench.say(f"idle: run {run + 1} of {bench.runs}: {idle[-1]:.2f}% of a "
                  f"core, metadata {metadata[-1]:.3f}% of RAM")
    yield absolute("metadata", "% of RAM", metadata, "<= 0.3")
    yield absolute("idle", "% of a core", idle, "<= 0.5")


def kill_once(vm, manager):
    """Milliseconds from SIGKILL of the pager until QEMU is served again."""
    pid = manager.vm(vm).pager_pid
    start = time.time()
    os.kill(pid, signal.SIGKILL)
    when = vm.event_wait("MANAGED_MEMORY_RECOVERED", 60)["timestamp"]
    return 1000 * (when["seconds"] - start) + when["microseconds"] / 1000


def measure_stall(bench):
    """Stall after a pager kill under load, by size of the guest."""
    for gib in STALL_SIZES_GIB:
        # the guest's own page structures grow with it
        mib = gib * 960 - 280
        with booted(bench, True, memory=f"{gib}G", mib=mib) as (vm, manager):
            vm.guest.command("fill", WORK_TIMEOUT_S)
            command = f"random {2 * bench.runs + 2}"
            vm.guest.start(command)
            stalls = []
            for _ in range(bench.runs):
                time.sleep(1.5)
                stalls.append(kill_once(vm, manager))
            vm.guest.finish(command, WORK_TIMEOUT_S)
        bench.say(f"stall: {gib} GiB: {statistics.median(stalls):.1f} ms")
        yield absolute(f"stall.{gib}GiB", "ms", stalls,
                       "<= 200" if gib == 1 else None)
