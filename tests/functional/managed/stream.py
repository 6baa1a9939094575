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
import time

SECTION = b"\x0bmanaged-ram"
# After the name: instance and version
START_LEN = len(SECTION) + 8
# What ends a section's part, and begins the next one: the other one's number is
# small, that of this section follows. Less than that occurs in pages, too.
NEXT_PART = rb"\x7e\x00\x00\x00.[\x02\x03]"
HEADER = struct.Struct(">HHI")
END = 0
CHUNK = 1 << 16


class Record:
    """A record: where it is in the stream, and what it is."""

    def __init__(self, stream, offset):
        self.type, _, length = HEADER.unpack_from(stream, offset)
        self.offset = offset
        self.end = offset + HEADER.size + length


class Section:
    """The section's records in a stream, which may still be on its way."""

    def __init__(self, stream):
        self._stream = stream
        self._next_part = None
        # Where the next record is; without one, where to look for a part
        self._record = None
        self._end = 0

    def new_records(self):
        """Those whose header has come since the last call."""
        while self._find() and (len(self._stream) >=
                                self._record + HEADER.size):
            record = Record(self._stream, self._record)
            self._end = record.end
            self._record = None if record.type == END else record.end
            yield record

    def _find(self):
        """Whether it is known where the next record is."""
        if self._record is None and self._next_part is None:
            start = self._stream.find(SECTION)
            if start >= 0:
                self._record = start + START_LEN
                self._next_part = re.compile(
                    NEXT_PART + re.escape(self._stream[start - 4:start]),
                    re.DOTALL)
        elif self._record is None:
            part = self._next_part.search(self._stream, self._end)
            self._record = part and part.end()
        return self._record is not None


def first_records(stream):
    """The first record of each type: {type: Record}."""
    found = {}
    for record in Section(stream).new_records():
        found.setdefault(record.type, record)
    return found


class Recorder:
    """Stands between source and destination, and keeps what the former says.

    stream   what has come so far through the first connection
    """

    def __init__(self, path, destination):
        """path: of a socket to make; destination: that of the other's."""
        self.stream = bytearray()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._destination = destination
        # Of each connection the source's end, and the destination's
        self._pairs = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self._connect(self._listener.accept()[0])

    def _connect(self, source):
        destination = socket.socket(socket.AF_UNIX)
        first = not self._pairs
        self._pairs.append((source, destination))
        destination.connect(self._destination)
        for ends, take in (
                ((source, destination),
                 self._said if first else self._said_beside),
                ((destination, source), self._answered if first else bytes)):
            self._threads.append(threading.Thread(target=self._pass_on,
                                                  args=(*ends, take)))
            self._threads[-1].start()

    def _said(self, data):
        """What the destination gets of what the source says."""
        self.stream += data
        return data

    def _said_beside(self, data):
        """The same of further connections."""
        return data

    def _answered(self, data):
        """And the other way round."""
        return data

    @staticmethod
    def _pass_on(one, other, take):
        """take is called at the end, too: with nothing."""
        try:
            while data := one.recv(CHUNK):
                other.sendall(take(data))
            take(b"")
        except OSError:
            # As if they were connected: who sends has to hear of it.
            end(one)
        end(other, socket.SHUT_WR)

    def close(self):
        """When both sides have ended."""
        end(self._listener)
        while self._threads:
            self._threads.pop(0).join()
        for sock in (self._listener, *sum(self._pairs, ())):
            sock.close()


class Valve:
    """What goes one way through a Gate, or is kept there.

    kept   what has been kept
    """

    def __init__(self):
        self.kept = bytearray()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()

    def hold(self):
        """From now on all is kept, and so is the end."""
        self._open.clear()

    def take(self, data):
        """What of this gets through at once; without data, that is the end."""
        if not data:
            self._open.wait()
        with self._lock:
            if self._open.is_set():
                return data
            self.kept += data
            return b""

    def let_go(self, sock=None):
        """All that follows gets through, and what was kept before it."""
        with self._lock:
            kept, self.kept = self.kept, bytearray()
            self._open.set()
            # There may be nobody any more.
            with contextlib.suppress(OSError):
                if kept and sock:
                    sock.sendall(kept)


class Gate(Recorder):
    """One that also keeps what one side says, or cuts the connection.

    said, answered   a Valve each; the latter is for the destination's answers
    """

    # pylint: disable=too-many-arguments
    def __init__(self, path, destination, limit=None, then="cut", lag=0):
        """
        limit   of the stream so far, how much of it comes through, or None
        then    what is done with the rest: "cut" or "hold"
        lag     seconds by which what comes beside the stream is later
        """
        self._limit = limit
        self._cuts = then == "cut"
        self._lag = lag
        self.said = Valve()
        self.answered = Valve()
        super().__init__(path, destination)

    def let_go(self):
        """What was kept gets through, and all that follows."""
        source, destination = self._pairs[0]
        self.said.let_go(destination)
        self.answered.let_go(source)

    def let_last_words_go(self):
        """What the source has said gets through; it takes no answers."""
        self.answered.hold()
        self.said.let_go(self._pairs[0][1])

    def cut(self):
        """There is no connection any more, as far as both can tell."""
        for sock in sum(self._pairs, ()):
            end(sock)
        for valve in (self.said, self.answered):
            valve.let_go()

    def close(self):
        self.cut()
        super().close()

    def _said(self, data):
        before = len(self.stream)
        super()._said(data)
        size = self._limit and self._limit(self.stream)
        if size is not None and size <= len(self.stream):
            self._limit = None
            first = max(0, size - before)
            with contextlib.suppress(OSError):
                self._pairs[0][1].sendall(data[:first])
            data = data[first:]
            if self._cuts:
                self.cut()
                return b""
            self.said.hold()
        return self.said.take(data)

    def _said_beside(self, data):
        time.sleep(self._lag)
        return data

    def _answered(self, data):
        return self.answered.take(data)


def end(sock, how=socket.SHUT_RDWR):
    """End a connection, if it is still there."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)


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

