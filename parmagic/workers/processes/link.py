"""The notebook's end of one fork server."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from parmagic.errors import NotShippable, WorkerDied
from parmagic.record import machine
from parmagic.system.cpus import available_cpus
from parmagic.system.descriptors import Descriptor, high, socketpair
from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock, Poll
from parmagic.workers.endings import is_stopped
from parmagic.workers.processes.handle import Handle
from parmagic.workers.processes.imports import Imports
from parmagic.workers.processes.lease import Lease
from parmagic.workers.processes.wire import MOST_DESCRIPTORS, Parcel, Wire

MOST_SPARES = 4
"""Processes that wait for the next run at most, where there are no more cores than that."""

TURN = 0.05
"""Seconds between two looks at an interrupt or a deadline while the server is waited for."""

DEAF = 10.0
"""Seconds after which a server that takes no orders is given up."""

FAREWELL = 2.0
"""Seconds that a server gets to end with all that it started."""

_MOST = 1 << 16
"""Bytes of a server's last words that are shown."""

_keys = count(1)


def _variables() -> dict[str, str]:
    """Return what imports find in the environment: OPENBLAS_NUM_THREADS, say, is read only once."""
    return dict(os.environ)


class Order(NamedTuple):
    """A process that was asked for: what it will be known by, and what is still to be sent."""

    key: int
    parcel: Parcel


class Hub:
    """A running server: starts processes, and tells how they ended.

    ``events`` holds ``("failed", key, errno, why)``, ``("immune", key, pid)`` and
    ``("ended", key, pid, code, cpu_s)``; ``code`` is negative for a signal, as in :mod:`subprocess`.
    """

    def __init__(
        self, sock: socket.socket, *, process: subprocess.Popen[bytes] | None = None, server: Handle | None = None, errors: int = -1
    ) -> None:
        self._wire = Wire(sock)
        self._process = process  # what was exec'd: the server, or what has forked it and ended
        self._server = server
        self._errors = Descriptor(high(errors) if errors >= 0 else -1)
        self._owner = os.getpid()
        self._sending = Lock()
        self.lease = Lease()  # a run takes the news of its own processes, so another thread's run waits
        self.events: deque[tuple[Any, ...]] = deque()
        self.left: list[tuple[int, str]] = []  # what workers started and nobody here may end: (process id, name)
        self.imports = Imports({})
        self.threads = 1  # of the server: beside another one it must not fork
        self.users = 0  # runs that have borrowed it
        self._leads = False
        self._fault = ""

    def fileno(self) -> int:
        """Be something that can be polled."""
        return self._wire.fileno()

    @property
    def ready(self) -> bool:
        """Whether the server has said that it is there."""
        return self._server is not None

    @property
    def pid(self) -> int:
        """The server's process; waits for it where it only begins, -1 where it does not."""
        with self.lease.held():
            self.wait_until(lambda: self.ready, DEAF)
        return self.pid_if_known

    @property
    def pid_if_known(self) -> int:
        """The server's process, -1 where it has not said so yet."""
        return self._server.pid if self._server is not None else -1

    def start(self, entry: str, arguments: Any, descriptors: list[int]) -> int:
        """Start a process at ``module:function``; return its key. Descriptors are shared with it, and may be closed after this."""
        order = self.order(entry, arguments, descriptors)
        self._give(order.parcel)
        return order.key

    def order(self, entry: str, arguments: Any, descriptors: list[int], *, fresh: bool = False, semaphores: str = "") -> Order:
        """Ask for a process, as :meth:`start` does, and return at once: the descriptors have to stay open until that is :meth:`sent`.

        ``fresh``: in a new interpreter, not in a fork of the server. ``semaphores``: what the names of its semaphores begin with.
        """
        if len(descriptors) > MOST_DESCRIPTORS:
            raise NotShippable(
                f"The body and its items hold {len(descriptors)} pipes and shared values; {MOST_DESCRIPTORS} can be sent "
                "to a process. Use one Queue, or one Array."
            )
        key = next(_keys)
        message = ("start", key, entry, pickle.dumps(arguments), fresh or self.threads > 1, semaphores)
        return Order(key, self._send(message, descriptors))

    @property
    def pending(self) -> bool:
        """Whether something is still to be sent; it is when the server is listened to."""
        return self._wire.pending

    def sent(self, order: Order) -> bool:
        """Tell whether an order's descriptors have been sent."""
        self._flush()
        return not order.parcel.descriptors

    def withdraw(self, order: Order) -> None:
        """Take back an order, where it was not sent: its descriptors are about to be closed."""
        self._withdraw(order.parcel)

    def end(self, keys: set[int], *, ask: bool = False) -> None:
        """Kill these processes and all that they started; or only ask them to end, by a SIGINT."""
        if keys:
            self._send(("ask" if ask else "end", keys))

    def hold(self) -> None:
        """Have the server prepare nothing while a run is measured."""
        self._send(("hold",))

    def spare(self, processes: int | None) -> None:
        """Have the server prepare that many processes ahead, or as many as last time, for the next run to find."""
        count = processes if processes is None or processes <= MOST_SPARES else min(processes, max(MOST_SPARES, available_cpus()))
        self._send(("spare", count, "parmagic.workers.processes.child:prepare"))

    def preload(self, modules: Iterable[str]) -> None:
        """Have the server import these modules, where it has not, so that later processes start with them."""
        new = self.imports.ask(modules)
        if new:
            self._send(("import", new, _variables()))

    def grow(self) -> Hub:
        """Return a successor: a fork of this server, which can import what takes long while this one is used."""
        ours, theirs = socketpair()
        with theirs:
            successor = Hub(ours)
            successor.imports = Imports(self.imports.loaded)
            self._give(self._send(("grow",), [theirs.fileno()]))
        return successor

    def lead(self) -> bool:
        """Have a successor outlive the server that it is a fork of; tell whether it does."""
        try:
            self._send(("lead",))
            return self.wait_until(lambda: self._leads, FAREWELL)
        except WorkerDied:
            return False

    def pause(self, *, on: bool) -> None:
        """Let the server's imports stand still, or go on: they would compete with what is measured."""
        if self.alive() and self._server is not None and self.imports.now:
            self._server.send(signal.SIGSTOP if on else signal.SIGCONT)

    def resume(self) -> None:
        """Have the server go on where somebody has stopped it."""
        if self._server is not None:
            self._server.send(signal.SIGCONT)

    def is_stopped(self) -> bool:
        """Tell whether somebody has stopped the server (SIGSTOP, a debugger)."""
        return self._server is not None and is_stopped(self._server.pid)

    def settle(self, seconds: float) -> bool:
        """Tell whether all is imported, after so many seconds at most; WorkerDied where the server ends by it."""
        return self.wait_until(lambda: not self.imports.now, seconds)

    def wait_until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Take the server's news until something is true, for so many seconds at most, and once in any case; tell whether it is."""
        until, left = time.monotonic() + seconds, seconds
        while not true():
            self.listen(max(0.0, min(left, TURN)))
            left = until - time.monotonic()
            if left <= 0:
                break
        return true()

    def listen(self, seconds: float = 0.0) -> None:
        """Move the server's news into ``events``; wait at most that long for some."""
        while self._wait_for(select.POLLIN, seconds):
            try:
                with held_back():  # what was received and not noted would be lost
                    for message, descriptors in self._wire.take():
                        self._hear(message, descriptors)
            except (EOFError, OSError):
                raise self._gone() from None
            seconds = 0.0
        self._flush()

    def _hear(self, message: tuple[Any, ...], descriptors: list[int]) -> None:
        verb, *words = message
        if verb == "ready":
            pid, self.threads = words
            told = Handle(pid, descriptors[0] if descriptors else -1)
            if self._server is None:
                self._server = told
                machine.apart.add(pid)
            else:  # we have forked it, and knew
                told.close()
            if self._process is not None and self._process.pid != pid:
                self._bury()
        elif verb == "imported":
            name, why, threads = words
            self.imports.came(name, why, spoils=threads > self.threads)
        elif verb == "leads":
            self._leads = True
        elif verb == "left":
            self.left.append((words[0], words[1]))
        elif verb == "fault":
            self._fault = words[0]
        else:
            self.events.append(message)

    def alive(self) -> bool:
        """Tell whether the server is there, and belongs to this process."""
        return self._owner == os.getpid() and self._wire.is_open()

    def close(self, *, at_once: bool = False) -> None:
        """End the server and everything below it; ``at_once``: also where it does not listen."""
        if self._wire.fileno() < 0:
            return
        if self._owner == os.getpid():
            with suppress(OSError, WorkerDied):  # it may be gone already
                self._send(("quit",))
            if at_once and self._server is not None:
                self._server.send(signal.SIGKILL)
        self._release()

    def __del__(self) -> None:
        """Where an interrupt kept everybody from knowing of it."""
        with suppress(AttributeError, OSError):  # half made, or half gone at the interpreter's end
            if self._owner == os.getpid():
                self.close(at_once=True)

    def _release(self) -> None:
        """Let go of the server, which ends without us, and all below it; wait for that."""
        self._wire.close()
        try:
            if self._owner == os.getpid():
                self._wait()
        finally:
            if self._server is not None:
                machine.apart.discard(self._server.pid)
                self._server.close()
            self._errors.close()

    def _wait(self) -> None:
        if self._server is None and self._process is not None:  # it has not come to its first line
            self._process.kill()
        if self._server is not None and not self._server.wait(FAREWELL):
            self._server.send(signal.SIGKILL)
            self._server.wait(FAREWELL)
        self._bury()

    def _bury(self) -> None:
        """Take note of the end of the process that was exec'd."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _wait_for(self, events: int, seconds: float) -> bool:
        if self._wire.fileno() < 0:
            raise self._gone()
        poll = Poll()
        poll.register(self._wire.fileno(), events)
        return bool(poll.poll(seconds * 1e3))

    def _send(self, message: tuple[Any, ...], descriptors: Sequence[int] = ()) -> Parcel:
        """Send a message: what does not go at once goes with later ones, or when the server is listened to."""
        try:
            with self._sending, held_back():
                parcel = self._wire.post(message, descriptors)
                self._wire.flush()
        except OSError:
            raise self._gone() from None
        return parcel

    def _withdraw(self, parcel: Parcel) -> None:
        with self._sending, held_back():
            self._wire.withdraw(parcel)

    def _flush(self) -> bool:
        if not self._wire.pending:
            return True
        try:
            with self._sending, held_back():  # what was sent and not noted would be sent twice
                return self._wire.flush()
        except OSError:
            raise self._gone() from None

    def _give(self, parcel: Parcel) -> None:
        """Wait until a message's descriptors are sent."""
        until = time.monotonic() + DEAF
        try:
            while parcel.descriptors:
                self._look_whether_deaf(until)
                self._wait_for(select.POLLOUT, TURN)
                self._flush()
        except BaseException:
            self._withdraw(parcel)
            raise

    def _look_whether_deaf(self, until: float) -> None:
        if time.monotonic() > until:
            why = ": somebody has stopped it (SIGSTOP, a debugger)" if self.is_stopped() else ""
            raise WorkerDied(f"The process that starts workers takes no orders{why}.")

    def _gone(self) -> WorkerDied:
        """Return what to raise when the server has ended by itself; it says why, where it said anything."""
        with suppress(EOFError, OSError):  # it may have said so before it went
            for message, descriptors in self._wire.take():
                self._hear(message, descriptors)
        text = self._fault.strip() or self._said()
        self._release()
        why = f":\n{text}" if text else "; run the cell again to start a new one."
        return WorkerDied(f"The process that starts workers has ended{why}")

    def _said(self) -> str:
        """Return what the server has written to its stderr."""
        if not self._errors.is_ours():
            return ""
        return os.pread(self._errors.number, _MOST, 0).decode(errors="replace").strip()
