# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated host's disk: programs, their libraries, Python and the tests.

What is there is copied from this machine, libraries and Python to the same
paths. The image is made anew when a file has changed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from managed import environment

from . import initramfs

IMAGE_BYTES = 4 << 30
PROGRAMS = ("qemu-system-x86_64", "qemu-memory-manager", "qemu-memory-pager")
FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin",
            "efi-virtio.rom")
# Parts of Python's library that are large and not needed.
PYTHON_WITHOUT = ("site-packages", "dist-packages", "test", "idlelib",
                  "lib2to3", "ensurepip", "tkinter", "distutils",
                  "turtledemo", "config-*", "pydoc_data")
FILES = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    "etc/group": "root:x:0:\nkvm:x:105:\nnogroup:x:65534:\n",
}
HERE = Path(__file__).resolve().parent


class Root:
    """Collects what the disk has to hold, then makes it.

    files  source by path on the disk
    """

    def __init__(self, folder, more, modules):
        """
        folder   for the image and what is needed to make it
        more     files besides those that are always there
        modules  drivers besides those
        """
        self.folder = folder
        self._modules = modules
        self.image = folder / "root.img"
        self.initrd = folder / "initrd"
        self.files = {}
        self._collect()
        for target, path in more.items():
            self._add_program(path, target)

    def build(self):
        """Make image and initramfs, if they are not up to date."""
        stamp = self.folder / "inputs"
        inputs = self._inputs()
        if stamp.exists() and stamp.read_text() == inputs:
            return
        stamp.unlink(missing_ok=True)
        initramfs.build(self.folder / "initramfs", self.initrd,
                        self._modules)
        tree = self.folder / "root"
        shutil.rmtree(tree, ignore_errors=True)
        self._lay_out(tree)
        self._make_image(tree)
        shutil.rmtree(tree)
        stamp.write_text(inputs)

    def _collect(self):
        self._add_python()
        self._add_tests()
        for name in PROGRAMS:
            path = Path(environment.program(name))
            self._add_program(
                path, "build/qemu" / path.relative_to(environment.QEMU))
        self._add_program(Path(shutil.which("setpriv")), "usr/bin/setpriv")
        self.files["usr/bin/busybox"] = initramfs.busybox()
        self.files["start"] = HERE / "start"
        for name in ("vmlinuz", "initrd", "version"):
            self.files[f"build/guest/{name}"] = environment.GUEST / name
        self._add_firmware()

    def _add_tests(self):
        functional = HERE.parents[1]
        for folder in (functional / "managed", functional / "kvm"):
            self._add_tree(folder, "fork" / folder.relative_to(
                environment.TOP), ("__pycache__",))
        self._add_tree(environment.SRC / "python/qemu",
                       "build/src/python/qemu", ("__pycache__",))
        self._add_tree(environment.TOP / "include/managed-memory",
                       "fork/include/managed-memory")

    def _add_tree(self, folder, target, without=()):
        """Add all files of a folder, in other folders too."""
        for path in sorted(folder.iterdir()):
            if any(path.match(word) for word in without):
                continue
            if path.is_dir():
                self._add_tree(path, f"{target}/{path.name}", without)
            else:
                self.files[f"{target}/{path.name}"] = path

    def _add_program(self, path, target):
        """Add a program and the libraries that it is linked with."""
        self.files[str(target)] = path
        self._add_libraries(path)

    def _add_libraries(self, path):
        output = subprocess.run(["ldd", str(path)], capture_output=True,
                                text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", output):
            self.files[_merged(library)] = Path(library)

    def _add_python(self):
        interpreter = Path(sys.executable).resolve()
        self._add_program(interpreter, _merged(str(interpreter)))
        self.files["usr/bin/python3"] = interpreter
        library = Path(sysconfig.get_paths()["stdlib"])
        self._add_tree(library, _merged(str(library)), PYTHON_WITHOUT)
        for module in (library / "lib-dynload").glob("*.so"):
            self._add_libraries(module)

    def _add_firmware(self):
        """Add what guests need, at the same places in the build folder."""
        output = subprocess.run(
            [environment.program("qemu-system-x86_64"), "-L", "help"],
            capture_output=True, text=True, check=True).stdout
        folders = [Path(line) for line in output.splitlines()]
        for name in FIRMWARE:
            found = [folder / name for folder in folders
                     if (folder / name).exists()]
            if not found:
                raise environment.SetupError(f"there is no {name} in any of "
                                             + ", ".join(map(str, folders)))
            self.files[f"build/qemu/qemu-bundle/usr/share/qemu/{name}"] = \
                found[0]

    def _inputs(self):
        """Text that changes when the image has to be made anew."""
        stamps = {"modules": self._modules}
        for target, path in self.files.items():
            status = os.stat(path)
            stamps[target] = [str(path), status.st_size, status.st_mtime_ns]
        for path in (HERE / "root.py", HERE / "initramfs.py"):
            stamps[str(path)] = path.read_text()
        text = json.dumps(stamps, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _lay_out(self, tree):
        for name in ("dev", "proc", "sys", "run", "etc", "build/check",
                     "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "tmp"):
            (tree / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (tree / name).symlink_to(f"usr/{name}")
        (tree / "tmp").chmod(0o1777)
        for target, path in self.files.items():
            (tree / target).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path.resolve(), tree / target)
        for target, text in FILES.items():
            (tree / target).write_text(text)
        commands = subprocess.run([str(initramfs.busybox()), "--list"],
                                  capture_output=True, text=True, check=True)
        for name in commands.stdout.split():
            path = tree / "usr/bin" / name
            if not path.exists():
                path.symlink_to("busybox")
        (tree / "usr/bin/env").unlink()
        (tree / "usr/bin/env").symlink_to("busybox")

        # The emulated processor would be slow at this.
        subprocess.run([sys.executable, "-m", "compileall", "-q",
                        "--invalidation-mode", "unchecked-hash",
                        str(tree / "fork"), str(tree / "build/src")],
                       check=True)

    def _make_image(self, tree):
        self.image.unlink(missing_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        mkfs = environment.find_program("mkfs.ext4", "e2fsprogs")
        subprocess.run([mkfs, "-q", "-F", "-E", "root_owner=0:0", "-d",
                        str(tree), str(self.image)], check=True)


def _link_or_copy(path, target):
    """Times stay as they are: Python compares them with compiled modules."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)


def _merged(path):
    """Where a file lies, relative to /, with /lib and /bin in /usr."""
    return re.sub(r"^/(usr/)?(bin|sbin|lib|lib64)/", r"usr/\2/",
                  path).lstrip("/")
