# SPDX-License-Identifier: GPL-2.0-or-later
"""main() of programs that test in the emulated host.

Outside, a program boots the emulated host and has it run the same program
with the same arguments; inside, it runs its tests.
"""

import os
import sys
from pathlib import Path

from managed import tap

from . import host, peer

# Set by the emulated host's script.
INSIDE = "EMULATED_HOST"


# pylint: disable=too-many-arguments
def main(limit_s, nodes=1, disk_iops=None, inside=tap.main, files=None,
         make_peer=None):
    """Run the tests of the calling script.

    limit_s  time limit, with booting
    nodes    number of NUMA nodes of the emulated host
    disk_iops
             operations per second of its disk, None for no limit
    inside   what runs the tests
    files    function that makes more files for the emulated host's disk and
             returns them as {path there: path here}
    make_peer
             there are three emulated hosts on networks; what makes the object
             whose methods the second and third one serve, see peer.py
    """
    if INSIDE in os.environ:
        if peer.number() > 1:
            peer.serve(make_peer(peer.number()))
        else:
            inside()
        return
    program = Path(sys.argv[0]).resolve()
    arguments = [str(program.relative_to(host.TESTS)), *sys.argv[1:]]
    sys.exit(host.run(program.name, arguments, limit_s, nodes, disk_iops,
                      files() if files else {}, make_peer is not None))
