# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guest on managed memory, and on what one would use instead.

    managed   a resident limit; tiers of the medium
    memfd     memory-backend-memfd,share=on, as libvirt configures it
    private   memory-backend-ram

The latter two run in a memory cgroup. Managed memory's limit is for guest
memory alone, so theirs is made to be that, too: it is the same number of bytes
and on top of that what else the cgroup holds, and follows this twice a second
while the guest works. A limit that is left alone gives the guest ever more:
QEMU's own memory, 60 MiB of which it hardly uses, is swapped out for its sake.

Media, with the kernel's counterpart:

    disk        a file tier, a swap file in the same folder
    compressed  a pool in memory, zram; both as large as need be, both by lz4
    mixed       a small pool over a file tier, a small zram over a swap file
    shared      one folder for both hosts, a swap file
"""

import contextlib
import itertools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from managed import environment, hostswap
from managed.manager import Manager
from managed.sandbox import Sandbox
from managed.vm import GuestVM

BOOT_TIMEOUT_S = 120
WORK_TIMEOUT_S = 600
MIB = 1 << 20
# Memory of the pool, and how much of a guest's is in as much of zram's.
MIXED_POOL_MIB = 48
MIXED_RATIO = 2.4
# Of a cgroup that is made to give up as much as possible.
SLACK_BYTES = 16 << 20
# How often a cgroup's limit follows what it holds besides the guest.
FOLLOW_S = 0.5
# To look costs time that is the guest's: at most one part in so many.
FOLLOW_SHARE = 50
# A guest that has more than this share of its limit was not short of memory.
TOLERANCE = 1.05
BACKENDS = {
    "memfd": "memory-backend-memfd,id=ram0,size={memory},share=on",
    "private": "memory-backend-ram,id=ram0,size={memory}",
}
TIERS = {
    "disk": ["file,path={disk}/tier"],
    "compressed": ["compressed,size=90%", "file,path={disk}/tier"],
    "mixed": [f"compressed,size={MIXED_POOL_MIB}M", "file,path={disk}/tier"],
    "shared": ["file,path={shared},shared=on"],
}
_numbers = itertools.count()


class NotLimitedError(Exception):
    """A guest has had more memory than it was to have: a worthless run."""


class GuestMigrationError(Exception):
    """A guest has not got to the other side."""


class Setup:
    """What is the same on all sides.

    memory, limit, field   of the guest, and what it works on, in MiB
    noise                  percent of each page that does not compress
    tier_options           further options of all tiers
    extra                  more words for QEMU's command line
    capabilities           of a migration, which are switched on
    """

    # pylint: disable=too-many-arguments
    def __init__(self, accel, medium, memory=1024, limit=512, field=700,
                 noise=33, cpus=2, tier_options="", extra=(), capabilities=()):
        self.accel = accel
        self.medium = medium
        self.memory = memory
        self.limit = limit
        self.field = field
        self.noise = noise
        self.cpus = cpus
        self.tier_options = tier_options
        self.extra = extra
        self.capabilities = capabilities

    def swap_bytes(self, guests=1):
        """Size of the kernel's swap: room for all, and for one more."""
        return (guests + 1) * self.memory * MIB

    def vm_options(self, incoming=None):
        """For GuestVM; incoming: the address that its guest comes to."""
        extra = ("-incoming", incoming) if incoming else ()
        return {"memory": f"{self.memory}M", "accel": self.accel,
                "cpus": self.cpus, "disk": None,
                "extra": (*self.extra, *extra)}


class Sample:
    """What came of one access pattern."""

    def __init__(self, messages):
        done = next(m for m in messages if m.word == "done")
        latency = next(m for m in messages if m.word == "latency")
        self.rate = 1000 * done.number("pages") / max(done.number("ms"), 1)
        self.latency_us = {key: latency.number(f"{key}-ns") / 1000
                           for key in ("p50", "p75", "p90", "p99", "p999",
                                       "max")}
        self.timeline = [int(count) for m in messages if m.word == "timeline"
                         for count in m.fields["counts"].split(",")]
        self.step_s = 0.1


class Guest:
    """A guest whose memory does not fit."""

    def __init__(self, vm, setup):
        self.vm = vm
        self.setup = setup

    def wait_ready(self):
        """Until it has booted."""
        self.vm.guest.wait("ready", BOOT_TIMEOUT_S)

    def prepare(self):
        """Write all that it will work on."""
        self.command(f"prepare {self.setup.field} {self.setup.noise}")
        self.settle()

    def settle(self):
        """Its memory has its content now: make the limit exact."""

    def limited(self):
        """A context in which it has no more than its limit, as it arrives."""
        return contextlib.nullcontext()

    def command(self, line):
        """Have it do something."""
        return self.vm.guest.command(line, WORK_TIMEOUT_S)

    def access(self, pattern, seconds, part=100):
        """Work by a pattern."""
        return Sample(self.command(f"access {pattern} {seconds} {part}"))

    def check_limited(self):
        """It has no more memory than it is to have."""
        resident = self.guest_bytes() / MIB
        if resident > TOLERANCE * self.setup.limit:
            raise NotLimitedError(f"{resident:.0f} MiB of the guest are "
                                  "resident, its limit is "
                                  f"{self.setup.limit} MiB")

    def guest_bytes(self):
        """Guest memory that is resident."""
        raise NotImplementedError

    def allocated_bytes(self):
        """Guest memory that is somewhere, in memory or not."""
        raise NotImplementedError

    def waits(self):
        """How often it has waited for a page from the tiers, or the swap."""
        raise NotImplementedError

    def shrink(self, size):
        """Take size bytes from it."""
        raise NotImplementedError

    def resize(self, limit):
        """Have it make do with so many MiB."""
        raise NotImplementedError

    def timed_shrink(self, size):
        """The same; how many seconds it has taken."""
        start = time.monotonic()
        self.shrink(size)
        return time.monotonic() - start

    def variants(self):
        """Names of settings to try, of which the best one counts."""
        return ("first try", "second try")

    def use_variant(self, name):
        """A context in which one of them is in force."""
        del name
        return contextlib.nullcontext()


class ManagedGuest(Guest):
    """On managed memory."""

    def __init__(self, vm, setup, manager):
        super().__init__(vm, setup)
        self.manager = manager

    def guest_bytes(self):
        """Guest memory that is resident."""
        return self.manager.vm(self.vm).resident

    def allocated_bytes(self):
        vm = self.manager.vm(self.vm)
        return vm.resident + vm.swapped

    def waits(self):
        """How often it has waited for a page from the tiers."""
        return self.manager.vm(self.vm).reply["faults"]["swap-in"]

    def shrink(self, size):
        """Take size bytes from it."""
        self.manager.command("managed-vm-evict", bytes=size,
                             vm=self.manager.vm(self.vm).uuid)
        self.manager.event("MANAGED_VM_OPERATION_COMPLETED", WORK_TIMEOUT_S)

    def resize(self, limit):
        """Have it make do with so many MiB."""
        self.manager.command("managed-vm-set-limit", limit=limit * MIB,
                             vm=self.manager.vm(self.vm).uuid)


class SwappedGuest(Guest):
    """On the kernel's swap."""

    def __init__(self, vm, setup, cgroup):
        super().__init__(vm, setup)
        self.cgroup = cgroup

    def wait_ready(self):
        super().wait_ready()
        self.limit()

    def settle(self):
        self.limit()

    def command(self, line):
        """Have it do something; meanwhile the limit is kept exact."""
        with self.limited():
            return super().command(line)

    @contextlib.contextmanager
    def limited(self):
        """A context in which its limit follows what else the cgroup holds."""
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self._follow, done)
            try:
                yield
            finally:
                done.set()
                following.result()

    def _follow(self, done):
        pause = FOLLOW_S
        while not done.wait(pause):
            start = time.monotonic()
            self.limit()
            pause = max(FOLLOW_S, FOLLOW_SHARE * (time.monotonic() - start))

    def limit(self):
        """The same for the guest as managed memory has, and all else."""
        self.cgroup.set_limit(self.setup.limit * MIB + self.other_bytes())

    def other_bytes(self):
        """What the cgroup holds besides the guest's memory."""
        return max(self.cgroup.usage() - self.guest_bytes(), 0)

    def guest_bytes(self):
        """Guest memory that is resident."""
        # Of a memfd, what is swapped out counts among its blocks, too.
        used = (self.cgroup.shmem() if self.vm.resident_bytes()
                else private_bytes(self.vm, "Rss"))
        return used + self.cgroup.swap_cache()

    def allocated_bytes(self):
        return self.vm.resident_bytes() or private_bytes(self.vm, "Rss", "Swap")

    def waits(self):
        """How often it has waited for a page from the swap."""
        return self.cgroup.major_faults()

    def shrink(self, size):
        """Take size bytes from it."""
        keep = max(self.guest_bytes() - size, 0)
        # What QEMU itself needs now would come back at once.
        self.cgroup.set_limit(keep + self.other_bytes() + SLACK_BYTES)
        self.limit()

    def resize(self, limit):
        """Have it make do with so many MiB."""
        self.setup.limit = limit
        self.limit()

    def variants(self):
        return ("page-cluster 0", "page-cluster 3")

    def use_variant(self, name):
        return hostswap.page_cluster(int(name[-1]))


def private_bytes(vm, *counts):
    """Of the mapping that is as large as the guest: sum of lines in smaps."""
    text = Path(f"/proc/{vm.get_pid()}/smaps").read_text("ascii")
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text):
        size = re.search(r"^Size:\s+(\d+) kB", part, re.M)
        if size and int(size[1]) * 1024 == vm.memory:
            return sum(int(re.search(rf"^{name}:\s+(\d+) kB", part, re.M)[1])
                       for name in counts) * 1024
    return 0


def _manager(setup, box, shared=None):
    """A manager with the tiers of the medium."""
    first, *others = [",".join(filter(None, [
        tier.format(disk=box.disk, shared=shared), setup.tier_options]))
                      for tier in TIERS[setup.medium]]
    options = [word for tier in others for word in ("--tier", tier)]
    manager = Manager(box, *options, tier=first)
    manager.start()
    return manager


@contextlib.contextmanager
def _managed_guest(setup, box, manager, name="guest", incoming=None):
    vm = GuestVM(box, name=name, manager=manager, limit=f"{setup.limit}M",
                 **setup.vm_options(incoming))
    vm.launch()
    guest = ManagedGuest(vm, setup, manager)
    try:
        if not incoming:
            guest.wait_ready()
        yield guest
    finally:
        vm.kill()


@contextlib.contextmanager
def _swap(setup, box, guests=1):
    size = setup.swap_bytes(guests)
    with contextlib.ExitStack() as stack:
        if setup.medium == "compressed":
            stack.enter_context(hostswap.zram(size, "lz4"))
        else:
            stack.enter_context(hostswap.swap_file(box.disk, size))
        if setup.medium == "mixed":
            # By its size: one that has no memory left fails its writes.
            size = int(MIXED_POOL_MIB * MIXED_RATIO) * MIB
            stack.enter_context(hostswap.zram(size, "lz4"))
        yield


@contextlib.contextmanager
def _cgroup(name):
    cgroup = hostswap.MemoryCgroup(name)
    try:
        yield cgroup
    finally:
        cgroup.remove()


@contextlib.contextmanager
def _swapped_guest(kind, setup, box, name="guest", incoming=None):
    backend = BACKENDS[kind].format(memory=f"{setup.memory}M")
    with _cgroup(f"mm-bench-{kind}-{next(_numbers)}") as cgroup:
        vm = GuestVM(box, name=name, backend=backend, prefix=cgroup.prefix(),
                     **setup.vm_options(incoming))
        vm.launch()
        guest = SwappedGuest(vm, setup, cgroup)
        try:
            if incoming:
                guest.limit()
            else:
                guest.wait_ready()
            yield guest
        finally:
            vm.kill()


@contextlib.contextmanager
def open_side(name, setup):
    """A context with a guest: "managed", "memfd" or "private"."""
    with Sandbox(f"bench-{name}-{next(_numbers)}") as box:
        with contextlib.ExitStack() as stack:
            if name != "managed":
                stack.enter_context(_swap(setup, box))
            yield stack.enter_context(_on_new_host(name, setup, box))


def _on_new_host(name, setup, box, shared=None, incoming=None):
    """A context with a guest that has tiers or a cgroup of its own."""
    if name == "managed":
        return _managed_guest(setup, box, _manager(setup, box, shared),
                              incoming=incoming)
    return _swapped_guest(name, setup, box, incoming=incoming)


@contextlib.contextmanager
def open_pair(name, setup):
    """A context with a guest, what it can migrate to, and its address."""
    with contextlib.ExitStack() as stack:
        def sandbox():
            return stack.enter_context(
                Sandbox(f"bench-{name}-{next(_numbers)}"))

        box = sandbox()
        if name != "managed":
            stack.enter_context(_swap(setup, box, 2))
        shared = Path(box.disk) / "shared"
        shared.mkdir()
        source = stack.enter_context(_on_new_host(name, setup, box, shared))
        # A sandbox takes for its own what is started after it.
        other = sandbox()
        address = f"unix:{other.run}/migration"
        yield source, stack.enter_context(
            _on_new_host(name, setup, other, shared, address)), address


@contextlib.contextmanager
def open_several(name, setup, count):
    """A context with a list of guests that have the medium in common."""
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(Sandbox(f"bench-{name}-{next(_numbers)}"))
        if name == "managed":
            manager = _manager(setup, box)
            guests = [_managed_guest(setup, box, manager, f"guest{number}")
                      for number in range(count)]
        else:
            stack.enter_context(_swap(setup, box, count))
            guests = [_swapped_guest(name, setup, box, f"guest{number}")
                      for number in range(count)]
        yield [stack.enter_context(guest) for guest in guests]


BASELINES = ("memfd", "private")
ALL = ("managed", *BASELINES)
