# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages of the host."""

import time
from pathlib import Path

from .case import GuestTest

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
SIZE = 2 << 20
RESERVE_TIMEOUT_S = 10


def count(name):
    """What the host says of its pool, such as free_hugepages."""
    return int((POOL / name).read_text())


class HugePagesTest(GuestTest):
    """The host has at least as many free ones as pool_mib asks for."""

    pool_mib = 192

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        before = count("nr_hugepages")
        cls.addClassCleanup((POOL / "nr_hugepages").write_text, f"{before}\n")
        deadline = time.monotonic() + RESERVE_TIMEOUT_S
        while missing := max(cls.missing(), 0):
            if time.monotonic() > deadline:
                raise AssertionError(f"the host lacks {missing} huge pages")
            (POOL / "nr_hugepages").write_text(
                f"{count('nr_hugepages') + missing}\n")

    @classmethod
    def missing(cls):
        """Huge pages that have to be made."""
        return cls.pool_mib * (1 << 20) // SIZE - count("free_hugepages")
