# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated host's initramfs: drivers, and what mounts the disk."""

import re
import shutil
import subprocess
from pathlib import Path

from managed import environment

# Those they depend on are added.
MODULES = ("virtio_pci", "virtio_blk", "kvm", "kvm_amd", "tun", "vhost_net")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module.ko" || echo "cannot load $module"
done < /modules/order
mount -t ext4 /dev/vda /disk || { echo "no disk"; poweroff -f; }
mount --move /dev /disk/dev
umount /proc
exec switch_root /disk /start "$@"
"""


def build(work, output, more):
    """Make the initramfs in a file; work is a folder to do so.

    more   drivers besides those that are always there
    """
    shutil.rmtree(work, ignore_errors=True)
    for name in ("bin", "dev", "proc", "disk", "modules"):
        (work / name).mkdir(parents=True)
    shutil.copy(busybox(), work / "bin/busybox")
    (work / "init").write_text(INIT)
    (work / "init").chmod(0o755)
    order = []
    for name in (*MODULES, *more):
        _add_module(name, work / "modules", order)
    (work / "modules/order").write_text("".join(f"{name}\n"
                                                for name in order))
    names = "\n".join(str(path.relative_to(work))
                      for path in sorted(work.rglob("*")))
    with open(output, "wb") as archive:
        subprocess.run([str(busybox()), "cpio", "-o", "-H", "newc"], cwd=work,
                       input=names.encode(), stdout=archive, check=True,
                       stderr=subprocess.DEVNULL)


def busybox():
    """Path of a statically linked busybox."""
    return environment.GUEST / "initramfs/bin/busybox"


def _add_module(name, folder, order):
    """Add a module after those that it depends on.

    The kernel's package has no modules.dep, so the module is asked itself.
    """
    if name in order:
        return
    path = _find_module(name)
    if path is None:
        return
    depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
    for other in depends[1].decode().split(",") if depends else ():
        if other:
            _add_module(other, folder, order)
    shutil.copy(path, folder / f"{name}.ko")
    order.append(name)


def _find_module(name):
    """Path of a module, None if it is part of the kernel itself."""
    version = (environment.GUEST / "version").read_text().strip()
    top = environment.GUEST / "kernel/lib/modules" / version
    for spelling in (name, name.replace("_", "-")):
        found = sorted(Path(top).rglob(f"{spelling}.ko"))
        if found:
            return found[0]
        if f"/{spelling}.ko" in (top / "modules.builtin").read_text():
            return None
    raise environment.SetupError(f"the kernel {version} has no driver {name}")
