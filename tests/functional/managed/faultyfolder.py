# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder that shows another one, and can be made to fail.

It is what a host sees of storage that other hosts see as well: these go on when
it fails here. A process of its own speaks the kernel's FUSE protocol, so that
stopping it is a storage that does not answer, and killing it one that is gone.
That the kernel keeps nothing for later makes all sides see the same.
"""

import collections
import ctypes
import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys

from .sandbox import die_with_parent

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
MAX_WRITE = 1 << 20
BUFFER = MAX_WRITE + 4096
OPEN_DIRECT_IO = 1
ROOT = 1
LOOKUP, FORGET, GETATTR, SETATTR = 1, 2, 3, 4
UNLINK, RENAME, LINK, OPEN, READ, WRITE, STATFS = 10, 12, 13, 14, 15, 16, 17
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    18, 20, 25, 26, 27, 28, 29)
CREATE, DESTROY, BATCH_FORGET, FALLOCATE, RENAME2 = 35, 38, 42, 43, 45
# Of INIT's answer: atomic O_TRUNC, large writes, asynchronous O_DIRECT, with
# which nobody is held up who does not wait for its end, as on NFS
INIT_FLAGS = 1 << 3 | 1 << 5 | 1 << 15
SET_MODE, SET_SIZE = 1 << 0, 1 << 3
# What can be made to fail, in the words of fail()
KINDS = {READ: "read", WRITE: "write", RENAME: "rename", RENAME2: "rename",
         SETATTR: "write", FALLOCATE: "write"}


def names(data):
    """Those that end a request."""
    return data.rstrip(b"\0").split(b"\0") if data else []


def pack_attr(status):
    """struct fuse_attr"""
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return ATTR.pack(status.st_ino, status.st_size, status.st_blocks,
                     *(time // 10 ** 9 for time in times),
                     *(time % 10 ** 9 for time in times), status.st_mode,
                     status.st_nlink, status.st_uid, status.st_gid, 0,
                     status.st_blksize, 0)


class Server:
    """Answers what the kernel asks."""

    def __init__(self, folder, device):
        self._device = device
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        # {node: O_PATH descriptor}: a node is the file's inode number there
        self._nodes = {ROOT: self._root}
        # How often the kernel has been told of each
        self._told = collections.Counter()
        self._failing = set()
        self._late = set()
        self._hanging = set()
        # Requests that are not answered yet
        self._held = []
        # (code, node, data) of what has been answered with an error only
        self._owed = []
        self._calls = {
            LOOKUP: self._lookup, GETATTR: self._getattr,
            SETATTR: self._setattr, UNLINK: self._unlink,
            RENAME: lambda node, data: self._rename(data[8:]),
            RENAME2: lambda node, data: self._rename(data[16:]),
            LINK: self._link, OPEN: self._open, READ: self._read,
            WRITE: self._write, STATFS: self._statfs, RELEASE: self._release,
            FSYNC: self._fsync, FLUSH: lambda node, data: b"",
            INIT: self._init, OPENDIR: lambda node, data: struct.pack(
                "<QII", 0, 0, 0),
            READDIR: self._readdir, RELEASEDIR: lambda node, data: b"",
            CREATE: self._create, FALLOCATE: self._fallocate,
            DESTROY: lambda node, data: b""}

    def run(self, commands):
        """Until the folder is unmounted."""
        while True:
            ready = select.select([self._device, commands], [], [])[0]
            if commands in ready:
                words = commands.readline().split()
                if words == ["count"]:
                    print(len(self._held), flush=True)
                elif words == ["pay"]:
                    print(self._pay(), flush=True)
                else:
                    self._command(*words)
                    print("done", flush=True)
            if self._device in ready and not self._serve():
                return

    def _command(self, what, *kinds):
        """What fails, or hangs, from now on"""
        setattr(self, f"_{what}", set(kinds))
        held, self._held = self._held, []
        for request in held:
            self._handle(request)

    def _pay(self):
        """Carry out what is owed; how much it was."""
        owed, self._owed = self._owed, []
        for code, node, data in owed:
            self._calls[code](node, data)
        return len(owed)

    def _serve(self):
        """One request; False: there are no more."""
        try:
            request = os.read(self._device, BUFFER)
        except OSError as err:
            return err.errno in (errno.EINTR, errno.ENOENT)
        return self._handle(request)

    def _handle(self, request):
        _, code, unique, node, *_ = IN_HEADER.unpack_from(request)
        if KINDS.get(code) in self._hanging:
            self._held.append(request)
        elif code == FORGET:
            self._forget(node, *struct.unpack_from("<Q", request,
                                                   IN_HEADER.size))
        elif code == BATCH_FORGET:
            for pair in struct.iter_unpack("<QQ", request[IN_HEADER.size + 8:]):
                self._forget(*pair)
        else:
            error, answer = self._answer(code, node, request[IN_HEADER.size:])
            header = OUT_HEADER.pack(OUT_HEADER.size + len(answer), -error,
                                     unique)
            try:
                os.write(self._device, header + answer)
            except OSError as err:
                # Who asked does not want to know any more.
                return err.errno == errno.ENOENT
        return True

    def _answer(self, code, node, data):
        if code not in self._calls:
            return errno.ENOSYS, b""
        if KINDS.get(code) in self._failing:
            return errno.EIO, b""
        if KINDS.get(code) in self._late:
            self._owed.append((code, node, data))
            return errno.ENOTCONN, b""
        try:
            return 0, self._calls[code](node, data)
        except OSError as err:
            return err.errno, b""

    @staticmethod
    def _init(_node, data):
        major, minor, readahead, _ = struct.unpack_from("<4I", data)
        return struct.pack("<4IHHIIHHI28x", major, min(minor, 31), readahead,
                           INIT_FLAGS, 64, 48, MAX_WRITE, 1, 0, 0, 0)

    def _forget(self, node, times):
        """The kernel does not know of it any more."""
        self._told[node] -= times
        if self._told[node] <= 0 and node in self._nodes and node != ROOT:
            os.close(self._nodes.pop(node))

    def _stat(self, node):
        return os.stat(self._nodes[node])

    def _path(self, node):
        """To what has been opened as O_PATH, whatever its name is now."""
        return f"/proc/self/fd/{self._nodes[node]}"

    def _entry(self, name):
        """Look a name up, and answer what it is."""
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._root)
        status = os.stat(found)
        if status.st_ino in self._nodes:
            os.close(found)
        else:
            self._nodes[status.st_ino] = found
        self._told[status.st_ino] += 1
        return struct.pack("<4QII", status.st_ino, 0, 0, 0, 0, 0) + pack_attr(
            status)

    def _lookup(self, _node, data):
        return self._entry(names(data)[0])

    def _getattr(self, node, _data):
        return struct.pack("<QII", 0, 0, 0) + pack_attr(self._stat(node))

    def _setattr(self, node, data):
        valid, _, _, size = struct.unpack_from("<IIQQ", data)
        mode, = struct.unpack_from("<I", data, 68)
        if valid & SET_MODE:
            os.chmod(self._path(node), stat.S_IMODE(mode))
        if valid & SET_SIZE:
            os.truncate(self._path(node), size)
        return self._getattr(node, data)

    def _unlink(self, _node, data):
        os.unlink(names(data)[0], dir_fd=self._root)
        return b""

    def _rename(self, data):
        old, new = names(data)
        os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)
        return b""

    def _link(self, _node, data):
        old, = struct.unpack_from("<Q", data)
        name = names(data[8:])[0]
        os.link(self._path(old), name, dst_dir_fd=self._root)
        return self._entry(name)

    def _open(self, node, data):
        flags, = struct.unpack_from("<I", data)
        flags &= os.O_ACCMODE | os.O_TRUNC
        return struct.pack("<QII", os.open(self._path(node), flags),
                           OPEN_DIRECT_IO, 0)

    def _create(self, _node, data):
        flags, mode = struct.unpack_from("<2I", data)
        name = names(data[16:])[0]
        file = os.open(name, flags & (os.O_ACCMODE | os.O_TRUNC | os.O_EXCL) |
                       os.O_CREAT, mode, dir_fd=self._root)
        return self._entry(name) + struct.pack("<QII", file, OPEN_DIRECT_IO, 0)

    @staticmethod
    def _read(_node, data):
        file, offset, size = struct.unpack_from("<QQI", data)
        return os.pread(file, size, offset)

    @staticmethod
    def _write(_node, data):
        file, offset, size = struct.unpack_from("<QQI", data)
        return struct.pack("<II", os.pwrite(file, data[40:40 + size], offset),
                           0)

    def _statfs(self, _node, _data):
        fs = os.statvfs(self._root)
        return struct.pack("<5Q4I24x", fs.f_blocks, fs.f_bfree, fs.f_bavail,
                           fs.f_files, fs.f_ffree, fs.f_bsize, fs.f_namemax,
                           fs.f_frsize, 0)

    @staticmethod
    def _release(_node, data):
        os.close(struct.unpack_from("<Q", data)[0])
        return b""

    @staticmethod
    def _fsync(_node, data):
        os.fsync(struct.unpack_from("<Q", data)[0])
        return b""

    def _readdir(self, _node, data):
        _, offset, size = struct.unpack_from("<QQI", data)
        answer = b""
        for number, name in enumerate(sorted(os.listdir(self._root)), 1):
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", 0xffffffff, number, len(raw), 0) + raw
            entry += bytes(-len(entry) % 8)
            if number > offset:
                if len(answer) + len(entry) > size:
                    break
                answer += entry
        return answer

    @staticmethod
    def _fallocate(_node, data):
        file, offset, length, mode = struct.unpack_from("<QQQI", data)
        if mode:
            raise OSError(errno.EOPNOTSUPP, "only reservations")
        os.posix_fallocate(file, offset, length)
        return b""


class FaultyFolder:
    """A folder at path that shows what lies in another one."""

    def __init__(self, box, path, folder):
        self.path = str(path)
        self._folder = str(folder)
        self._box = box
        self._process = None
        self._log = box.log("folder")
        box.on_exit(self._log.close)
        for made in (self.path, self._folder):
            os.makedirs(made, exist_ok=True)
        box.on_exit(self.remove)
        self.bring_back()

    def bring_back(self):
        """Have it there; who has used it before sees nothing of that."""
        # Ended by remove().
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", __name__, self.path,
             self._folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, env={
                **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        self._box.know(self._process.pid)
        self._wait_done()

    def fail(self, *kinds):
        """From now on these end in EIO: read, write, rename."""
        self._tell("failing", *kinds)

    def fail_for_now(self, *kinds):
        """These end in ENOTCONN, but see carry_out()."""
        self._tell("late", *kinds)

    def carry_out(self):
        """Do what has failed for now, as a network does that has come back.

        Returns how many requests these were.
        """
        self._say("pay")
        return int(self._process.stdout.readline())

    def hang_at(self, *kinds):
        """These are not answered, as long as they are among them."""
        self._tell("hanging", *kinds)

    def held(self):
        """How many requests hang because of that"""
        self._say("count")
        return int(self._process.stdout.readline())

    def _tell(self, *words):
        self._say(*words)
        self._wait_done()

    def _say(self, *words):
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def _wait_done(self):
        assert self._process.stdout.readline() == "done\n", "no such folder"

    def hang(self):
        """Nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        """What was held up is answered."""
        self._process.send_signal(signal.SIGCONT)

    def remove(self):
        """It is gone for good for those who use it; once."""
        if not self._process:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()
        self._process = None
        subprocess.run(["umount", "--lazy", self.path], check=False,
                       stderr=subprocess.DEVNULL)


def main(path, folder):
    """Serve until there is nobody to serve any more."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = (f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,"
               "default_permissions")
    if libc.mount(b"folder", os.fsencode(path), b"fuse", 0,
                  options.encode()) < 0:
        raise OSError(ctypes.get_errno(), "mount")
    print("done", flush=True)
    Server(folder, device).run(sys.stdin)


if __name__ == "__main__":
    main(*sys.argv[1:])
