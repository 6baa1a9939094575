# SPDX-License-Identifier: GPL-2.0-or-later
"""main() of programs that test in the emulated host.

Outside, a program boots the emulated host and has it run the same program
with the same arguments; inside, it runs its tests.
"""

import os
import sys
from pathlib import Path

from managed import tap

from . import host

# Set by the emulated host's script.
INSIDE = "EMULATED_HOST"


def main(limit_s, nodes=1, disk_iops=None, inside=tap.main, files=None):
    """Run the tests of the calling script.

    limit_s  time limit, with booting
    nodes    number of NUMA nodes of the emulated host
    disk_iops
             operations per second of its disk, None for no limit
    inside   what runs the tests
    files    function that makes more files for the emulated host's disk and
             returns them as {path there: path here}
    """
    if INSIDE in os.environ:
        inside()
        return
    program = Path(sys.argv[0]).resolve()
    arguments = [str(program.relative_to(host.TESTS)), *sys.argv[1:]]
    sys.exit(host.run(program.name, arguments, limit_s, nodes, disk_iops,
                      files() if files else {}))
