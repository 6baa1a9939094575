# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM or TCG, by trial.

That /dev/kvm can be opened says little: there are hosts where it creates VMs
which then do not run. So a guest is booted, within a time limit; the answer
is kept until host, QEMU or guest change.
"""

import json
import logging
import os
import sys

from . import environment
from .guest import GuestError
from .sandbox import Sandbox
from .vm import GuestVM, VmError

TRIAL_TIMEOUT_S = 15


def choose(wanted="auto"):
    """Return ("kvm" or "tcg", why)."""
    if wanted != "auto":
        return wanted, "as asked for"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no access to /dev/kvm"
    cache = environment.BUILD / "guest" / "accel.json"
    key = _fingerprint()
    try:
        saved = json.loads(cache.read_text())
        if saved["key"] == key:
            return saved["accel"], saved["why"]
    except (OSError, ValueError, KeyError):
        pass
    accel, why = _try_kvm()
    cache.write_text(json.dumps({"key": key, "accel": accel, "why": why}))
    return accel, why


def _fingerprint():
    """Changes when the trial has to be repeated."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    files = [environment.program("qemu-system-x86_64"),
             environment.GUEST / "vmlinuz", environment.GUEST / "initrd"]
    stamps = [os.stat(path).st_mtime for path in files]
    return json.dumps([boot, stamps])


def _try_kvm():
    print("trying whether KVM can boot a guest ...", file=sys.stderr)
    # QEMU may crash here, which is an answer and nothing to warn of.
    logging.disable(logging.WARNING)
    try:
        with Sandbox("kvm-trial") as box:
            vm = GuestVM(box, name="kvm-trial", accel="kvm", memory="256M",
                         disk=None)
            vm.launch()
            vm.guest.wait("ready", TRIAL_TIMEOUT_S)
            vm.kill()
    except (GuestError, VmError) as err:
        reason = str(err).strip().splitlines()[0]
        return "tcg", f"a trial boot with KVM failed: {reason}"
    finally:
        logging.disable(logging.NOTSET)
    return "kvm", "a trial boot worked"
