# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire protocol, for tests that play QEMU or a pager.

Numbers and structures are read from include/managed-memory/proto.h:

    pack("MmMsgHello", version_min=1, name=b"x")    the rest is zero
    unpack("MmMsgHello", payload).name              arrays are tuples, texts
                                                    and byte arrays are bytes
"""

import array
import re
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

PROTO_H = (Path(__file__).resolve().parents[3]
           / "include/managed-memory/proto.h")

MAX_FDS = 8
MAX_BYTES = 65536
TIMEOUT_S = 15

_SCALARS = {"uint8_t": "B", "uint32_t": "I", "uint64_t": "Q"}


class _Header:
    """What there is in proto.h, by name."""

    def __init__(self):
        text = re.sub(r"/\*.*?\*/", "", PROTO_H.read_text(), flags=re.S)
        self.numbers = {}
        for name, value in re.findall(r"#define (MM_\w+) (\d+)\b", text):
            self.numbers[name] = int(value)
        for name, shift in re.findall(r"(MM_\w+) = 1 << (\d+)", text):
            self.numbers[name] = 1 << int(shift)
        for body in re.findall(r"typedef enum \w+ \{(.*?)\}", text, re.S):
            for number, name in enumerate(re.findall(r"MM_\w+", body)):
                self.numbers[name] = number
        self.structs = {}
        for body, name in re.findall(
                r"typedef struct \w+ \{(.*?)\} (\w+);", text, re.S):
            self.structs[name] = list(self._members(body))

    def _members(self, body):
        """(name, element, count) of each member."""
        for kind, name, size in re.findall(r"(\w+) (\w+)(?:\[(\w*)\])?;",
                                           body):
            if size.isdigit():
                count = int(size)
            else:
                count = self.numbers[size] if size else None
            if kind in self.structs:
                for inner, element, number in self.structs[kind]:
                    yield f"{name}.{inner}", element, number
            elif kind == "char" or (kind == "uint8_t" and count):
                yield name, "s", count
            elif kind in _SCALARS:
                yield name, _SCALARS[kind], count


_HEADER = _Header()
NUMBERS = _HEADER.numbers
NAMES = {number: name.removeprefix("MM_MSG_")
         for name, number in reversed(NUMBERS.items())
         if name.startswith("MM_MSG_") and name not in ("MM_MSG_MAX_FDS",
                                                        "MM_MSG_MAX")}
HEADER = struct.Struct("=IIQ")


def _layout(name):
    """The struct module's code, without padding: the header has none."""
    return "=" + "".join(f"{count or ''}{element}" for _, element, count
                         in _HEADER.structs[name])


def pack(name, /, **values):
    """The bytes of a structure; values that are not given are zero."""
    flat = []
    for member, element, count in _HEADER.structs[name]:
        value = values.pop(member.replace(".", "_"), None)
        if element == "s":
            flat.append(value or b"")
        elif count is None:
            flat.append(value or 0)
        else:
            flat.extend(value or [0] * count)
    if values:
        raise TypeError(f"{name} has no members {', '.join(values)}")
    return struct.pack(_layout(name), *flat)


def unpack(name, data):
    """The members of a structure."""
    flat = iter(struct.unpack(_layout(name), data))
    members = {}
    for member, element, count in _HEADER.structs[name]:
        single = element == "s" or count is None
        members[member.replace(".", "_")] = (
            next(flat) if single else tuple(next(flat) for _ in range(count)))
    return SimpleNamespace(**members)


class Message:
    """A message that was received; descriptors are the receiver's."""

    def __init__(self, data, fds):
        number, self.length, self.seq = HEADER.unpack_from(data)
        self.type = NAMES.get(number, str(number))
        self.payload = data[HEADER.size:]
        self.fds = fds

    def error(self):
        """(errno, text) of an ERROR."""
        error = unpack("MmMsgError", self.payload)
        return error.err, text_of(error.text)

    def __str__(self):
        if self.type == "ERROR":
            return "ERROR {}: {}".format(*self.error())
        return self.type


def text_of(field):
    """The text in a field of fixed size."""
    return field.split(b"\0")[0].decode()


def encode(kind, seq=0, payload=b"", length=None):
    """Header and payload; length overrides the right one."""
    number = NUMBERS["MM_MSG_" + kind] if isinstance(kind, str) else kind
    size = len(payload) if length is None else length
    return HEADER.pack(number, size, seq) + payload


def send(sock, kind, seq=0, payload=b"", fds=()):
    """Send one message."""
    send_raw(sock, encode(kind, seq, payload), fds)


def send_raw(sock, data, fds=()):
    """Send any bytes and descriptors as one datagram."""
    control = []
    if fds:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                    array.array("i", fds))]
    sock.sendmsg([data], control)


def receive(sock, timeout=TIMEOUT_S):
    """Receive one message; None at the end."""
    sock.settimeout(timeout)
    data, fds, _, _ = socket.recv_fds(sock, MAX_BYTES, MAX_FDS)
    return Message(data, fds) if data else None


def connect(path):
    """Connect to a socket of the protocol."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(TIMEOUT_S)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock
