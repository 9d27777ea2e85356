"""A fork without Python's hooks, as uWSGI makes one. Applications under test import this.

In: nothing. Out: a child in which Python code runs on.
"""

from __future__ import annotations

import ctypes
import sys
import time

LONG_SECONDS = 60.0
"""Longer than any thread of a test computes without a break."""

_fork = ctypes.PyDLL(None).fork  # PyDLL keeps the interpreter's lock while it calls, as uWSGI does


def fork() -> int:
    """Fork; returns the child's process id, 0 in the child.

    No other thread may have asked for the interpreter's lock at the fork: the child's interpreter would wait for ever
    for that thread to take it (docs/decisions/0028-processes-are-told-apart-by-their-id.md). So no thread asks for a
    while, and one that has asked gets it before.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(LONG_SECONDS)
    try:
        time.sleep(0.001)
        return int(_fork())
    finally:
        sys.setswitchinterval(usual)
