# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a manager and Linux guests on managed memory, and talk to them.

    with Sandbox("name") as box:
        manager = Manager(box)
        manager.start()
        vm = GuestVM(box, manager=manager, limit="256M")
        vm.launch()
        vm.guest.wait("ready", 60)
        vm.guest.command("fill 400", 60)

Whatever way the with block is left, the guests, the manager, its pagers and
all files are gone afterwards; what had to be removed by force is an error.

The modules, from the bottom up:

    environment  where programs are, what the host can do
    reachable    the build for users that cannot reach it
    sandbox      temporary folders and child processes of one test
    upstream     QEMU's own Python packages
    guest        the serial line to the agent in the guest
    proto        the wire protocol, read from its header
    fakeqemu     a QEMU without a guest, for tests of the manager alone
    state        what the manager says about a VM
    manager      the manager's process and its QMP
    vm           QEMU with a guest
    accel        KVM or TCG, by trial
    cgroup       cgroups of version 1
    hostswap     the kernel's swap, and memory cgroups that make use of it
    libvirt      a libvirtd of the test's own, with one domain
    case         what tests with a manager and guests have in common
    migration    what tests of migration have in common
    faultyfolder a folder that can be made to fail
    faulttest    tables of what can go wrong with one
    managertest  what tests of the manager alone have in common
    stream       migration streams, recorded, cut and played back
    tap          run unittest cases and print TAP
"""
