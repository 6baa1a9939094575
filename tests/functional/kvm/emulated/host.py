# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot the emulated host and have it run a program.

The emulation of SVM in the base is not sound: now and then the emulated host
or its guest gets an interrupt after #VMEXIT although GIF is 0, with the wrong
GS base, and dies of it. It does so without managed memory, too (one of two
runs with an ordinary guest). With one processor per node, and so without
interrupts between processors as a rule, that is rare. A program is run again
if the emulated host has died, or if it ends with BROKEN, see guests.py.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

from managed import environment

from . import network
from .root import Root

TESTS = Path(__file__).resolve().parents[2]
MEMORY_MIB = 2048
LOGS_BYTES = 64 << 20
START_S = 30
OTHERS_END_S = 20
STATUS = re.compile(rb"EMULATED-HOST-STATUS (\d+)")

# With five-level page tables, TCG of the base breaks programs.
CPU = "max,la57=off"

# Exit status of a program whose guest was broken by the emulation.
BROKEN = 75
ATTEMPTS = 3

KERNEL_ARGS = ("console=ttyS0 loglevel=4 panic=-1 tsc=reliable "
               "mitigations=off")


# pylint: disable=too-many-arguments
def run(name, arguments, limit_s, nodes, disk_iops, files, connected):
    """Run a program in an emulated host; return its exit status.

    name       for the folder with the logs
    arguments  the program, relative to the functional tests, and its own
    limit_s    seconds after which the emulated host is killed
    nodes      number of NUMA nodes
    disk_iops  operations per second of the disk, None for no limit
    files      more files for the disk: {path there: path here}
    connected  whether there are three of them
    """
    root = _build(name if files else "connected" if connected else "common",
                  files, network.MODULES if connected else ())
    for attempt in range(1, ATTEMPTS + 1):
        logs = environment.BUILD / "check" / f"{name}-logs-{attempt}"
        _prepare(logs)
        with _others(root, logs, arguments, connected) as (options, others):
            status, lines = _run_once(logs, limit_s, others, _command(
                root, logs, arguments, nodes, disk_iops, options))
        _unpack(logs)
        if status not in (None, BROKEN):
            break
        print(f"# attempt {attempt} of {ATTEMPTS}: the emulation has broken "
              f"its host or guest, see {logs}", flush=True)
    print("".join(lines), end="")
    if status in (None, BROKEN):
        print(f"Bail out! The emulation has broken {ATTEMPTS} times",
              flush=True)
        return 1
    return status


def _prepare(logs):
    """Make the folder and the empty archive."""
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with open(logs / "logs.tar", "wb") as archive:
        archive.truncate(LOGS_BYTES)


@contextlib.contextmanager
def _others(root, logs, arguments, connected):
    """The other hosts, which run; what the first one needs to be with them.

    They end when the first one has gone.
    """
    if not connected:
        yield (), []
        return
    others = []
    with tempfile.TemporaryDirectory(prefix="qemu-mm-") as folder:
        try:
            for number in range(network.HOSTS, 1, -1):
                own = logs / f"host-{number}"
                _prepare(own)
                others.append(_start(own / "output.log", _command(
                    root, own, arguments, 1, None,
                    network.options(folder, number), number)))
                _wait_sockets(network.sockets(folder, number))
            yield network.options(folder, 1), others
        finally:
            for qemu in others:
                _end(qemu)
    for number in range(2, network.HOSTS + 1):
        _unpack(logs / f"host-{number}")


def _start(log, command):
    """Start a QEMU, for _end()."""
    # The group is what scripts/run-tests kills.
    with open(log, "wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL, stdout=output)


def _end(qemu):
    """It ends by itself, or by force."""
    try:
        qemu.wait(OTHERS_END_S)
    except subprocess.TimeoutExpired:
        qemu.kill()
        qemu.wait()


def _wait_sockets(paths):
    deadline = time.monotonic() + START_S
    while not all(os.path.exists(path) for path in paths):
        if time.monotonic() > deadline:
            raise environment.SetupError("the emulated hosts' networks are "
                                         "not there")
        time.sleep(0.05)


def _run_once(logs, limit_s, others, command):
    """Return the program's exit status, None without one, and its output.

    Nothing can come of it once one of the other hosts has gone.
    """
    # The group is what scripts/run-tests kills.
    # pylint: disable=consider-using-with
    qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    timer = threading.Timer(limit_s, qemu.kill)
    timer.start()
    for other in others:
        threading.Thread(target=lambda one=other: (one.wait(), qemu.kill()),
                         daemon=True).start()
    try:
        return _relay(qemu.stdout)
    finally:
        if not timer.is_alive():
            print(f"# {logs.name}: killed after {limit_s} s", flush=True)
        timer.cancel()
        qemu.kill()
        qemu.wait()


def _build(name, files, modules):
    """Make the disk and the initramfs, unless they are up to date."""
    environment.build_guest()
    folder = environment.BUILD / "kvm" / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = Root(folder, files, modules)
        root.build()
    return root


def _command(root, logs, arguments, nodes, disk_iops, options, number=1):
    command = [
        environment.program("qemu-system-x86_64"), "-nodefaults",
        "-display", "none", "-no-reboot", "-machine", "q35",
        "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(nodes),
        "-m", f"{MEMORY_MIB}M",
        "-serial", f"file:{logs / 'console.log'}", "-serial", "stdio",
        "-kernel", str(environment.GUEST / "vmlinuz"),
        "-initrd", str(root.initrd),
        "-append", f"{KERNEL_ARGS} EMULATED_NUMBER={number} -- "
        + " ".join(arguments), *options]
    # What is written to the disk goes to a temporary file.
    slow = f",throttling.iops-total={disk_iops}" if disk_iops else ""
    for name, path, more in (("root", root.image, "on" + slow),
                             ("logs", logs / "logs.tar", "off")):
        command += ["-drive", f"if=none,id={name},format=raw,cache=unsafe,"
                    f"werror=report,snapshot={more},file={path}",
                    "-device", f"virtio-blk-pci,drive={name}"]
    for node in range(nodes if nodes > 1 else 0):
        command += ["-object", f"memory-backend-ram,id=node{node},"
                    f"size={MEMORY_MIB // nodes}M",
                    "-numa", f"node,nodeid={node},memdev=node{node},"
                    f"cpus={node}"]
    return command


def _relay(output):
    """Print comments at once; return the exit status and the other lines."""
    lines = []
    for line in output:
        end = STATUS.match(line)
        if end:
            return int(end[1]), lines
        text = line.decode(errors="replace").rstrip("\r\n") + "\n"
        if text.startswith("#"):
            print(text, end="", flush=True)
        else:
            lines.append(text)
    return None, lines


def _unpack(logs):
    """Make files of the archive that the emulated host has left."""
    path = logs / "logs.tar"
    try:
        with tarfile.open(path) as archive:
            archive.extractall(logs)
    except (tarfile.TarError, EOFError) as err:
        print(f"# no logs from the emulated host: {err}")
    path.unlink()
