# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's guest migrates: between two managers, over a shared folder.

First with what is swapped out staying where it is, then as any QEMU migrates,
which reads all of it and sends it. The guest verifies its memory after each.
"""

import os
import time

from managed import environment
from managed.manager import Manager
from managed.vm import GuestVM

# Whatever is dirtied last may go in one go.
PARAMETERS = {"max-bandwidth": 0, "downtime-limit": 300}
TIMEOUT_S = 120
VERIFY_TIMEOUT_S = 120
POLL_S = 0.1


class MoveError(Exception):
    """The guest has not arrived; the text says why."""


class Move:
    """What one migration has taken.

    seconds, downtime_ms, sent_bytes   by QEMU's count
    read_pages                         that the source has read from its tiers
    """

    def __init__(self, info, read_pages):
        self.seconds = info["total-time"] / 1000
        self.downtime_ms = info["downtime"]
        self.sent_bytes = info["ram"]["transferred"]
        self.read_pages = read_pages


def tier(folder):
    """A manager's tier on storage that other hosts see."""
    return f"file,path={folder},shared=on"


def make_manager(box, folder):
    """The other host's; it has started."""
    manager = Manager(box, tier=tier(folder))
    manager.start()
    return manager


def _migrate(vm, address, say):
    vm.command("migrate-set-parameters", **PARAMETERS)
    vm.command("migrate", uri=address)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        info = vm.command("query-migrate")
        if info["status"] == "completed":
            return info
        if info["status"] == "failed" or time.monotonic() > deadline:
            raise MoveError("the migration is "
                            f"{info['status']}: {info.get('error-desc')}")
        if "ram" in info:
            say(f"migrating: {info['ram']['transferred'] // environment.MIB} "
                "MiB sent")
        time.sleep(POLL_S)


def move(vm, source, target, whole, say, **options):
    """Have the guest of a VM go to another one, and verify its memory.

    source, target   their managers
    whole            read and send what is swapped out, as any QEMU does
    say              shows a text for the moment
    options          of the new GuestVM

    Returns the new GuestVM, and a Move.
    """
    address = f"unix:{os.path.join(target.box.run, 'migration')}"
    there = GuestVM(target.box, manager=target, image=vm.disk_path,
                    extra=("-incoming", address), **options)
    there.launch()
    vm.command("migrate-set-capabilities", capabilities=[
        {"capability": "managed-ram", "state": not whole}])
    read = source.vm(vm).pages["read"]
    info = _migrate(vm, address, say)
    there.event_wait("RESUME", TIMEOUT_S)
    read = source.vm(vm).pages["read"] - read
    # Nothing of the host that it has left is needed any more.
    vm.kill()
    say("verifying")
    there.guest.command("verify", VERIFY_TIMEOUT_S)
    return there, Move(info, read)
