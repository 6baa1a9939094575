# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a guest: it attaches to a manager.

FakeQemu does so in the test's own process. QemuProcess runs one in a process
of its own, which can have another user and can be killed:

    python3 -m managed.fakeqemu ATTACH_SOCKET NAME

prints what came of it as one line of JSON and stays until its input ends.
"""

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from . import proto

HELLO_SEQ = 77
HELLO_RESUME = proto.NUMBERS["MM_HELLO_RESUME"]
HELLO_FD_ZAP = proto.NUMBERS["MM_HELLO_FD_ZAP"]
HELLO_FD_UFFD_DEV = proto.NUMBERS["MM_HELLO_FD_UFFD_DEV"]

USERFAULTFD_IOC_NEW = 0xaa00
UFFDIO_API = 0xc018aa3f
UFFD_API = 0xaa


class Refused(Exception):
    """The manager has answered ERROR; number is its errno value."""

    def __init__(self, number, text):
        super().__init__(text)
        self.number = number


class FakeQemu:
    """A connection to the manager, handed over to a pager by it.

    It has no memory, but keeps what a QEMU without regions has to keep.

    sock   the connection
    fds    descriptors of HELLO_REPLY, in the order of MmHelloReplyFd
    holds  descriptors of HOLD messages by (kind, index)
    """

    def __init__(self, path, name="fake", **hello):
        """hello overrides fields of HELLO."""
        self.path = path
        self.name = name
        self.sock = None
        self.fds = []
        self.holds = {}
        self.uuid = self.cookie = b""
        self._uffd = None
        self._attach(**hello)

    def resume(self, **hello):
        """Connect again, as after the death of the pager."""
        self.disconnect()
        self._attach(HELLO_RESUME, **hello)

    def disconnect(self):
        """Drop the connection, keep the rest."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def close(self):
        """Drop everything."""
        self.disconnect()
        for fd in [*self.fds, *self.holds.values()]:
            os.close(fd)
        self.fds, self.holds = [], {}
        if self._uffd is not None:
            os.close(self._uffd)
            self._uffd = None

    def make_uffd(self):
        """Give a real pager a userfaultfd; keep it for resume."""
        device = self.fds[HELLO_FD_UFFD_DEV]
        self._uffd = fcntl.ioctl(device, USERFAULTFD_IOC_NEW,
                                 os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(self._uffd, UFFDIO_API,
                    struct.pack("=QQQ", UFFD_API, 0, 0))
        proto.send(self.sock, "UFFD", HELLO_SEQ + 1, b"", [self._uffd])
        assert self._read_message().type == "OK"

    def _attach(self, flags=0, **hello):
        self.sock = proto.connect(self.path)
        try:
            self.send_hello(flags, **hello)
            if flags & HELLO_RESUME and self._uffd is not None:
                self._send_back()
            self._read_reply()
        except BaseException:
            self.disconnect()
            raise

    def _send_back(self):
        """All that was kept, with no regions."""
        proto.send(self.sock, "RESUME_VM", 0,
                   proto.pack("MmMsgResumeVM", nr_holds=len(self.holds)),
                   [*self.fds[:HELLO_FD_ZAP], self._uffd])
        for (kind, index), fd in self.holds.items():
            proto.send(self.sock, "RESUME_HOLD", 0, proto.pack(
                "MmMsgHold", kind=kind, index=index), [fd])
        proto.send(self.sock, "RESUME_END")

    def send_hello(self, flags=0, version_min=1, version_max=1, uuid=None,
                   cookie=None):
        """Send HELLO, with the uuid and cookie that were given to us."""
        proto.send(self.sock, "HELLO", HELLO_SEQ, proto.pack(
            "MmMsgHello", version_min=version_min, version_max=version_max,
            flags=flags, pid=os.getpid(),
            uuid=self.uuid if uuid is None else uuid,
            cookie=self.cookie if cookie is None else cookie,
            name=self.name.encode()))

    def _read_reply(self):
        msg = self._read_message()
        while msg.type == "HOLD":
            hold = proto.unpack("MmMsgHold", msg.payload)
            self._keep(self.holds, (hold.kind, hold.index), msg.fds[0])
            msg = self._read_message()
        assert (msg.type, msg.seq) == ("HELLO_REPLY", HELLO_SEQ), msg
        for fd in self.fds:
            os.close(fd)
        self.fds = msg.fds
        reply = proto.unpack("MmMsgHelloReply", msg.payload)
        self.uuid, self.cookie = reply.uuid, reply.cookie

    @staticmethod
    def _keep(where, key, fd):
        if key in where:
            os.close(where[key])
        where[key] = fd

    def _read_message(self):
        msg = proto.receive(self.sock)
        if msg is None:
            raise EOFError("the manager has closed the connection")
        if msg.type == "ERROR":
            raise Refused(*msg.error())
        return msg


class QemuProcess:
    """A FakeQemu in a process of its own."""

    def __init__(self, box, path, name="child", prefix=(), wait=True):
        """prefix are words before the command, such as those of setpriv."""
        command = [*prefix, sys.executable, "-m", "managed.fakeqemu", path,
                   name]
        # Ended by kill() at the latest.
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        box.know(self.pid)
        box.on_exit(self.kill)
        self.reply = self.read_reply() if wait else None

    def read_reply(self):
        """What came of attaching: {"uuid": ...} or {"error": ...}."""
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "it has died"}

    def kill(self):
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()


def main():
    """The program."""
    try:
        qemu = FakeQemu(sys.argv[1], sys.argv[2])
        print(json.dumps({"uuid": qemu.uuid.hex()}), flush=True)
    except (Refused, EOFError, OSError) as err:
        print(json.dumps({"error": str(err)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
