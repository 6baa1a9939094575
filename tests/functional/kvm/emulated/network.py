# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks between three emulated hosts.

Each is a cable between two of them, so that a test can cut one: host 2 has
10.77.1.2 at cable 1, and so on. A hub in QEMU would do with fewer, but loses
packets.
"""

# What is connected with what
CABLES = {"control-2": (1, 2), "control-3": (1, 3), "migration": (1, 2),
          "storage-1": (1, 3), "storage-2": (2, 3)}
HOSTS = 3

# Drivers that hosts on networks need besides
MODULES = ("virtio_net", "nfsv4", "nfsd", "fuse")


def address(cable, number):
    """Of a host; the script "start" gives it to the interface."""
    return f"10.77.{list(CABLES).index(cable)}.{number}"


def interface(cable):
    """What a host calls it, by the script "start"."""
    return f"cable{list(CABLES).index(cable)}"


def options(folder, number):
    """QEMU's options for one host; those with higher numbers start first.

    folder   for the sockets; a short path
    """
    words = []
    for index, (low, high) in enumerate(CABLES.values()):
        if number not in (low, high):
            continue
        server = "on" if number == high else "off"
        words += ["-netdev", f"stream,id=cable{index},server={server},"
                  f"addr.type=unix,addr.path={folder}/{index}", "-device",
                  f"virtio-net-pci,netdev=cable{index},romfile=,"
                  f"mac=52:54:00:77:{index:02x}:{number:02x}"]
    return words


def sockets(folder, number):
    """What is there when this host's QEMU has started."""
    return [f"{folder}/{index}" for index, (_, high)
            in enumerate(CABLES.values()) if number == high]
