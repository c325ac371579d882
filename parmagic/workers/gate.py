"""Where threads wait until all of them are there: none computes while another is still being made.

A thread that is made beside others that compute has to wait for the GIL to be born, and so has who makes it. (And a
debugger loses sight of threads that are made while it holds another.)
"""

from __future__ import annotations

from time import perf_counter

from parmagic.errors import Ended
from parmagic.system.real import Lock


class Gate:
    """Opens once, when ``count`` workers wait at it.

    Each waits by a lock of its own: by a common one (as in :class:`threading.Barrier`), each
    would have to wait until those before it have had the GIL to let go of it.
    """

    def __init__(self, count: int) -> None:
        self._missing = count
        self._meeting = Lock()
        self._locks = [Lock() for _ in range(count)]
        self._aborted = False
        self.opened: float | None = None
        for lock in self._locks:
            lock.acquire()

    def wait(self, rank: int) -> None:
        """Wait until all are there; raises :class:`Ended` where that will not be."""
        with self._meeting:
            self._missing -= 1
            if not self._missing:
                self._open()
        self._locks[rank].acquire()
        if self._aborted:
            raise Ended

    def abort(self) -> None:
        """Let go of all that wait, and will wait: the run is over. Does nothing where it is open."""
        with self._meeting:
            self._aborted = self._aborted or self.opened is None
            self._open()

    def _open(self) -> None:
        if self.opened is None:
            self.opened = perf_counter()
            for lock in self._locks:
                lock.release()
