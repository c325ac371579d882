"""Whose turn it is: what one thread has for a run, others wait for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock, get_ident, sleep

SOON = 0.005
"""Seconds between two looks whether another thread's run is over."""


class Lease:
    """What one thread has at a time; no Ctrl-C, and no thread that ends with it, can keep it forever."""

    def __init__(self) -> None:
        self._holder: int | None = None  # the thread that has it
        self._changing = Lock()

    def turn(self) -> Iterator[None]:
        """Have it, until :meth:`release`. Yields now and then while another thread has it."""
        while not self._taken():
            yield
            sleep(SOON)

    def _taken(self) -> bool:
        """Take it, where nobody has it; also where an interrupt kept this thread from giving it back, or its thread has ended."""
        me = get_ident()
        with held_back(), self._changing:
            others = self._holder not in {None, me} and self._holder in sys._current_frames()  # noqa: SLF001
            if not others:
                self._holder = me
            return not others

    def release(self) -> None:
        """Let others have it."""
        with held_back(), self._changing:
            if self._holder == get_ident():
                self._holder = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have it in this block."""
        for _ in self.turn():
            pass  # a worker thread can be interrupted here
        try:
            yield
        finally:
            self.release()
