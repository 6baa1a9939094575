# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration streams, recorded and played back.

A stream is recorded between two QEMUs that talk to each other, since the source
asks the destination what it understands.  The section "managed-ram" is taken
apart as docs/interop has it.
"""

import contextlib
import re
import socket
import struct
import threading

SECTION = b"\x0bmanaged-ram"
# After the name: instance and version
START_LEN = len(SECTION) + 8
# What ends a section's part, and begins the next one: the other one's number is
# small, that of this section follows. Less than that occurs in pages, too.
NEXT_PART = rb"\x7e\x00\x00\x00.\x02"
HEADER = struct.Struct(">HHI")
END = 0
CHUNK = 1 << 16


class Record:
    """A record: where it is in the stream, and what it is."""

    def __init__(self, stream, offset):
        self.type, _, length = HEADER.unpack_from(stream, offset)
        self.offset = offset
        self.end = offset + HEADER.size + length


def records(stream, offset):
    """Those of one part of the section, which begins there."""
    while True:
        record = Record(stream, offset)
        yield record
        if record.type == END:
            return
        offset = record.end


def first_records(stream):
    """The first record of each type: {type: Record}."""
    start = stream.index(SECTION)
    next_part = re.compile(NEXT_PART + re.escape(stream[start - 4:start]),
                           re.DOTALL)
    found = {}
    offset = start + START_LEN
    while True:
        for record in records(stream, offset):
            found.setdefault(record.type, record)
            offset = record.end
        part = next_part.search(stream, offset)
        if not part:
            return found
        offset = part.end()


class Recorder:
    """Stands between source and destination, and keeps what the former says.

    stream   what has come so far
    """

    def __init__(self, path, destination):
        """path: of a socket to make; destination: that of the other's."""
        self.stream = bytearray()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._destination = destination
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self):
        source, _ = self._listener.accept()
        other = socket.socket(socket.AF_UNIX)
        other.connect(self._destination)
        back = threading.Thread(target=self._pass_on,
                                args=(other, source, bytearray()))
        back.start()
        self._pass_on(source, other, self.stream)
        back.join()
        source.close()
        other.close()

    @staticmethod
    def _pass_on(one, other, kept):
        with contextlib.suppress(OSError):
            while data := one.recv(CHUNK):
                kept += data
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def close(self):
        """When both sides have ended."""
        self._threads[0].join()
        self._listener.close()


def play(stream, path):
    """Send a stream to who listens there, whether it wants it or not."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(CHUNK):
                pass


def damaged(stream, record, fixed):
    """Streams that end with a record of which a byte is another one.

    fixed: bytes of its payload that are looked at
    """
    whole = stream[:record.end]
    for offset in range(record.offset, record.offset + HEADER.size + fixed):
        wrong = bytearray(whole)
        wrong[offset] ^= 0xff
        yield bytes(wrong)

