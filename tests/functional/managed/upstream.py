# SPDX-License-Identifier: GPL-2.0-or-later
"""What is used of QEMU's own Python packages, from the materialised tree."""

import asyncio
import sys

from . import environment

PATH = environment.SRC / "python"
if not (PATH / "qemu/machine").is_dir():
    raise environment.SetupError(f"no QEMU sources in {environment.SRC}; "
                                 "run 'make'")
sys.path.insert(0, str(PATH))

# pylint: disable=wrong-import-position,unused-import
from qemu.machine import QEMUMachine  # noqa: E402,F401
from qemu.machine.machine import QEMUMachineError  # noqa: E402,F401
from qemu.machine.machine import VMLaunchFailure  # noqa: E402,F401
from qemu.qmp import QMPError  # noqa: E402,F401
from qemu.qmp.legacy import QEMUMonitorProtocol  # noqa: E402,F401

# The synchronous QMP client takes the thread's event loop, which newer
# versions of Python do not make by themselves.
asyncio.set_event_loop(asyncio.new_event_loop())
