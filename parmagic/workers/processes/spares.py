"""The spares of a server: forks that have prepared themselves between two runs, and wait for what to do.

Each does one start's work and ends, as any other process of the server's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from parmagic.record import meter
from parmagic.system.descriptors import readable, socketpair
from parmagic.workers.processes import entry as entries
from parmagic.workers.processes.handle import call_me
from parmagic.workers.processes.wire import Wire


class _Spare(NamedTuple):
    """A process that waits for what to do, and the way to tell it."""

    pid: int
    wire: Wire


class Spares:
    """Makes and uses them.

    ``poll`` is what the server waits by. ``fork(work)`` forks a process that does this work and exits; ``be(entry, arguments,
    descriptors)`` is the work of a start. ``wanted``: so many, and what prepares them.
    """

    def __init__(
        self,
        poll: select.poll,
        fork: Callable[[Callable[[], None]], int],
        be: Callable[[str, bytes, list[int]], None],
        wanted: tuple[int, str],
    ) -> None:
        self._poll = poll
        self._fork = fork
        self._be = be
        self.wanted = wanted
        self._waiting: list[_Spare] = []
        self._told: dict[int, Wire] = {}  # those that have not been told all of it yet, by descriptor

    def pids(self) -> set[int]:
        """Return the processes that wait."""
        return {spare.pid for spare in self._waiting}

    def wires(self) -> Iterator[Wire]:
        """Yield the ways to all of them, which a fork has to close."""
        yield from (spare.wire for spare in self._waiting)
        yield from self._told.values()

    def use(self, entry: str, arguments: bytes, descriptors: list[int]) -> int:
        """Tell a spare what to do; return its id, or 0 where there is none."""
        while self._waiting:
            pid, wire = self._waiting.pop(0)
            parcel = wire.post((entry, arguments), descriptors)
            with suppress(OSError):  # somebody has killed it
                if wire.flush():
                    wire.close()
                elif not parcel.descriptors:
                    self._told[wire.fileno()] = wire
                    self._poll.register(wire.fileno(), select.POLLOUT)
                else:  # not a byte can be sent to it
                    os.kill(pid, signal.SIGKILL)
                    wire.close()
                    continue
                return pid
            wire.close()
        return 0

    def tell_on(self, ready: set[int]) -> None:
        """Tell those some more of what to do that are ready for it."""
        for descriptor in ready & set(self._told):
            with suppress(OSError):  # it has ended, as its own descriptor tells
                if not self._told[descriptor].flush():
                    continue
            self._poll.unregister(descriptor)
            self._told.pop(descriptor).close()

    def fill_up(self) -> None:
        """Have as many spares as are wanted; where the system allows no more processes, as many as can be."""
        count, prepare = self.wanted
        while len(self._waiting) < count and threading.active_count() == 1:
            try:
                ours, theirs = socketpair()
            except OSError:
                return
            with theirs:
                try:
                    pid = self._fork(lambda: self._wait(ours, theirs, prepare))  # noqa: B023  (runs at once)
                except OSError:
                    ours.close()
                    return
                self._waiting.append(_Spare(pid, Wire(ours)))

    def _wait(self, ours: socket.socket, theirs: socket.socket, prepare: str) -> None:
        """Be a spare: prepare, step by step until there is something to do, and do it; where nothing comes any more, end."""
        call_me("parmagic spare")
        ours.close()
        for _ in entries.call(prepare):
            if readable(theirs.fileno()):
                break
        meter.made_ahead()
        with suppress(EOFError):
            wire = Wire(theirs)
            (entry, arguments), descriptors = wire.next()
            wire.close()
            self._be(entry, arguments, descriptors)

    def drop(self) -> None:
        """End the spares; those that are told already do their work."""
        for spare in self._waiting:
            spare.wire.close()
        self._waiting.clear()

    def ended(self, pid: int) -> None:
        """Have no such spare any more, where it is one: somebody has killed it."""
        for spare in [spare for spare in self._waiting if spare.pid == pid]:
            self._waiting.remove(spare)
            spare.wire.close()
