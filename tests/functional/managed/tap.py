# SPDX-License-Identifier: GPL-2.0-or-later
"""Run unittest cases and print TAP, which scripts/run-tests counts.

    if __name__ == "__main__":
        tap.main()

Tests that are marked with @tap.long_test run only if LONG is set in the
environment.
"""

import os
import sys
import time
import unittest

from . import reachable


class TapResult(unittest.TestResult):
    """Prints one TAP line per test, and what went wrong as comments."""

    def __init__(self):
        super().__init__()
        self._count = 0
        self._start = 0.0

    def startTest(self, test):
        super().startTest(test)
        self._start = time.monotonic()

    def addSuccess(self, test):
        super().addSuccess(test)
        self._print("ok", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._print("not ok", test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._print("not ok", test, self.errors[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._print("ok", test, skip=reason)

    def _print(self, word, test, details="", skip=None):
        self._count += 1
        name = test.id().removeprefix("__main__.")
        line = f"{word} {self._count} - {name}"
        if skip is not None:
            line += f" # SKIP {skip}"
        for text in details.splitlines():
            print(f"# {text}")
        seconds = time.monotonic() - self._start
        print(f"# {seconds:.1f} s")
        print(line, flush=True)


def long_test(function):
    """Mark a test method as one that takes long."""
    function.is_long = True
    return function


def _is_wanted(test):
    """Whether to run a test, by the arguments and its mark."""
    method = getattr(test, test.id().rpartition(".")[2])
    return (all(word in test.id() for word in sys.argv[1:]) and
            (os.environ.get("LONG") or not hasattr(method, "is_long")))


def main():
    """Run the tests of the calling script; arguments select by name."""
    reachable.make_reachable()
    suite = unittest.defaultTestLoader.loadTestsFromModule(
        sys.modules["__main__"])
    tests = [test for case in suite for test in case if _is_wanted(test)]
    print(f"1..{len(tests)}", flush=True)
    result = TapResult()
    unittest.TestSuite(tests).run(result)
    sys.exit(0 if tests and result.wasSuccessful() else 1)
