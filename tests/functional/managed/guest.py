# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line to the agent in the guest.

The agent (tests/guest/guest-workload.c) sends lines that start with "MM: ";
a thread of ours reads them all the time, so that the guest never waits for us
and every line has the time at which it came. Signs of a broken guest, such
as wrong pages or a kernel panic, end every wait with an error.
"""

import contextlib
import re
import socket
import threading
import time

PREFIX = "MM: "
TROUBLE = re.compile(r"MM: BAD |Kernel panic|BUG: |Oops|Out of memory:"
                     r"|soft lockup|hung_task|blocked for more than"
                     r"|rcu: INFO|segfault|I/O error")


class GuestError(Exception):
    """The guest is broken, gone, late, or reported a failure."""


class Message:
    """One line of the agent: a word and what belongs to it.

    word    first word of the line, such as "progress"
    fields  the key=value words as a dictionary of strings
    text    all after the first word
    time    time.monotonic() when the line was complete
    """

    def __init__(self, line, when):
        self.word, _, self.text = line[len(PREFIX):].partition(" ")
        self.fields = dict(item.split("=", 1)
                           for item in self.text.split() if "=" in item)
        self.time = when

    def number(self, key):
        """A field as an integer."""
        return int(self.fields[key])

    def __str__(self):
        return f"{self.word} {self.text}"


class GuestConsole:
    """Reads and writes one guest's serial port.

    Wrong pages that a test causes itself are announced by expect_trouble.
    tell_end is called when the guest is gone, and says how it has ended;
    examine when it has not said in time what it had to say.
    """

    def __init__(self, sock, log, tell_end=str, examine=str):
        self.expect_trouble = False
        self._tell_end = tell_end
        self._examine = examine
        self.trouble = []
        self.messages = []
        self.last_time = time.monotonic()
        self._next = 0
        self._closed = False
        self._sock = sock
        self._log = log
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, line):
        """Send a line to the agent."""
        try:
            self._sock.sendall(line.encode() + b"\n")
        except OSError as err:
            raise GuestError(f"cannot send '{line}': {err}") from err

    def wait(self, word, timeout, **fields):
        """Wait for the next message "word" with these fields.

        Messages up to the one that is returned count as seen.
        """
        return self.wait_for(
            lambda message: message.word == word and
            all(message.fields.get(key) == value
                for key, value in fields.items()),
            timeout, f"'{word}'")

    def wait_for(self, matches, timeout, what):
        """Wait for the next message that satisfies a function."""
        message = self._wait_until(matches, time.monotonic() + timeout)
        if message is None:
            self._examine()
            raise GuestError(f"no {what} from the guest within {timeout} s; "
                             f"{self._latest()}")
        return message

    def _wait_until(self, matches, deadline):
        """The message, or None if it does not come in time."""
        with self._changed:
            while True:
                while self._next < len(self.messages):
                    self._next += 1
                    if matches(self.messages[self._next - 1]):
                        return self.messages[self._next - 1]
                self._check()
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def command(self, line, timeout):
        """Have the agent run a command; return its messages until its end."""
        first = self.start(line)
        self.finish(line, timeout)
        return self.messages[first:self._next]

    def start(self, line):
        """Have the agent start a command; return the number of messages."""
        with self._changed:
            self._next = len(self.messages)
        self.send(line)
        return self._next

    def finish(self, line, timeout):
        """Wait for the end of a command; raise GuestError if it failed."""
        name = line.split()[0]
        end = self.wait_for(
            lambda message: message.word in ("ok", "failed") and
            message.fields.get("cmd") == name, timeout, f"end of '{line}'")
        if end.word == "failed":
            raise GuestError(f"the guest's '{line}' failed: {end.text}; "
                             f"{self._latest()}")
        return end

    def new_messages(self):
        """All messages that were not seen yet, without waiting."""
        with self._changed:
            new = self.messages[self._next:]
            self._next = len(self.messages)
            self._check()
            return new

    def silent_s(self):
        """Seconds since the guest last sent anything."""
        return time.monotonic() - self.last_time

    def close(self):
        """Stop reading."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)
        self._log.close()

    def _check(self):
        if self.trouble and not self.expect_trouble:
            raise GuestError(f"the guest is in trouble: {self.trouble[0]}")
        if self._closed:
            raise GuestError(f"the guest is gone; {self._tell_end()}"
                             f"{self._latest()}")

    def _latest(self):
        if not self.messages:
            return "it has not said anything yet"
        return "it last said: " + "; ".join(str(message) for message
                                            in self.messages[-3:])

    def _read(self):
        pending = b""
        while True:
            try:
                data = self._sock.recv(4096)
            except OSError:
                data = b""
            if not data:
                break
            self._log.write(data)
            pending += data
            *lines, pending = pending.split(b"\n")
            self._take(lines)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, lines):
        now = time.monotonic()
        with self._changed:
            self.last_time = now
            for line in lines:
                text = line.decode(errors="replace").strip()
                if TROUBLE.search(text):
                    self.trouble.append(text)
                # A kernel message may have got into the line before it.
                start = text.find(PREFIX)
                if start >= 0:
                    self.messages.append(Message(text[start:], now))
            self._changed.notify_all()
