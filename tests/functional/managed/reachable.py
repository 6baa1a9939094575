# SPDX-License-Identifier: GPL-2.0-or-later
"""Let other users reach the build, wherever it lies.

Some tests run QEMU as "nobody", who cannot reach a build below /root, say.
They run in a mount namespace of their own, in which the folder that is closed
to others is an empty one with nothing but the way to what the tests need.
"""

import ctypes
import os
import stat
import sys
from pathlib import Path

from . import environment

CLONE_NEWNS = 0x20000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source, target, kind, flags, data=None):
    """The system call: mount(8) would not take descriptors as they are."""
    if _libc.mount(os.fsencode(source), os.fsencode(target), kind, flags,
                   data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def closed_folder(path):
    """The uppermost folder on the way to a path that others cannot pass."""
    for folder in (*reversed(path.parents), path):
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None


def _outermost(paths):
    """Without those that lie below another one."""
    return sorted(path for path in paths
                  if not any(other in path.parents for other in paths))


def _rebuild(folder, paths):
    """Replace a folder by an empty one with these paths below it."""
    fds = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in paths}
    _mount("tmpfs", folder, b"tmpfs", 0, b"mode=0755")
    for path, fd in fds.items():
        path.mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", path, None, MS_BIND | MS_REC)
        os.close(fd)


def make_reachable():
    """Do so for this process and those that it starts, if it is root."""
    needed = {environment.TOP, environment.BUILD, environment.QEMU,
              environment.SRC, Path(sys.prefix), Path(sys.base_prefix)}
    needed = {path.resolve() for path in needed if path.is_dir()}
    closed = {closed_folder(path) for path in needed} - {None}
    if not closed or os.geteuid() != 0:
        return
    here = os.getcwd()
    if _libc.unshare(CLONE_NEWNS) < 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    _mount("none", "/", None, MS_PRIVATE | MS_REC)
    for folder in _outermost(closed):
        _rebuild(folder, _outermost({path for path in needed
                                     if folder == path or
                                     folder in path.parents}))
    os.chdir(here if os.path.isdir(here) else "/")
