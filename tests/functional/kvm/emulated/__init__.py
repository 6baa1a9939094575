# SPDX-License-Identifier: GPL-2.0-or-later
"""Run tests in an emulated host in which KVM works.

Where tests run, /dev/kvm is often missing or of no use. QEMU emulates a
processor with SVM, though, and Debian's kernel runs KVM on it; so a test
program boots such a host, with all it needs on a disk, and runs itself there:

    #!/usr/bin/env python3
    import unittest
    from emulated import lane
    from managed.vm import GuestVM

    class Boot(unittest.TestCase):
        ...

    if __name__ == "__main__":
        lane.main(limit_s=100)

The emulated host is the same everywhere: Linux 6.1, two processors, cgroup
v2, ext4 on a virtio disk. Its output is the output of the program.

    lane       main() of the test programs
    host       boots the emulated host, or three, prints what comes of it
    network    cables between three of them
    peer       what the first one tells the others to do
    root       its disk
    initramfs  its drivers
    start      its only script
    guests     guests that use KVM in there
"""

import sys
from pathlib import Path

# For the package "managed".
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
