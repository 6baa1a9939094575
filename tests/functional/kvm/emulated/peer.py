# SPDX-License-Identifier: GPL-2.0-or-later
"""Emulated hosts that do what the tests on the first one tell them.

A host is an object with methods; that of another host is used like the one
that the tests have of their own host. Arguments, results and errors travel
over cables that are for nothing else.
"""

import os
import time
import traceback
from multiprocessing.connection import Client, Listener

from managed.guest import GuestError

from . import network

# Set by the emulated host's script, from 1.
NUMBER = "EMULATED_NUMBER"
PORT = 7777
CONNECT_TIMEOUT_S = 180
ANSWER_TIMEOUT_S = 240


class PeerError(Exception):
    """A host does not answer, or what it did has failed."""


def number():
    """Of this host."""
    return int(os.environ.get(NUMBER, "1"))


def serve(host):
    """Do what the first host wants, until it has no more wishes."""
    with Listener((network.address(f"control-{number()}",
                                   number()), PORT)) as listener:
        with listener.accept() as connection:
            while True:
                try:
                    name, args, kwargs = connection.recv()
                except EOFError:
                    return
                print(f"{time.monotonic():.1f} {name} {args} {kwargs}",
                      flush=True)
                connection.send(_call(host, name, args, kwargs))


def _call(host, name, args, kwargs):
    """The result, or the error: its text, and whether it is the guest's."""
    # Whatever it is, the test gets it.
    # pylint: disable=broad-except
    try:
        return True, getattr(host, name)(*args, **kwargs)
    except Exception as err:
        traceback.print_exc()
        return False, (isinstance(err, GuestError),
                       f"{type(err).__name__}: {err}")


class Peer:
    """Another host; its methods are those of what serves there."""

    def __init__(self, which):
        self._which = which
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                self._connection = Client((network.address(
                    f"control-{which}", which),
                                           PORT))
                return
            except OSError as err:
                if time.monotonic() > deadline:
                    raise PeerError(f"host {which}: {err}") from err
                time.sleep(0.5)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self._connection.send((name, args, kwargs))
            if not self._connection.poll(ANSWER_TIMEOUT_S):
                raise PeerError(f"host {self._which} does not answer: {name}")
            done, result = self._connection.recv()
            if done:
                return result
            of_guest, text = result
            raise (GuestError if of_guest else PeerError)(
                f"host {self._which}: {text}")

        return call
