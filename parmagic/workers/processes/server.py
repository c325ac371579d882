"""The fork server: a small clean process that forks workers on demand.

It is exec'd once per notebook (the usual way), or forked from the notebook
where a run needs the notebook's memory. Either way it speaks one protocol
over one socket: a message asks to start, end or preload; it answers with the
processes that it started and with how each one ended.

Between runs it makes a few *spares*: forks that have prepared themselves and wait
for what to do. Each does one start's work and ends, as any other process here;
whatever is imported meanwhile makes new ones of them.

What the notebook imports is imported by a *successor*: a fork of this server, with a
socket of its own, which the notebook turns to when it is ready. So an import that takes
long, fails, or starts threads harms no server that is in use.

It has its own session (Ctrl-C in the notebook does not reach it), no threads,
and is the subreaper of all below it: what a worker leaves running is ended
with that worker. When the notebook goes away, everything here goes away.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any

from parmagic.system.descriptors import adopted
from parmagic.system.real import Poll, close_descriptor, fork_process, read_descriptor, renew, set_handler, set_wakeup_fd
from parmagic.workers.processes import forkable, fresh
from parmagic.workers.processes.below import children, end_all, end_descendants, ended, killed, name_of
from parmagic.workers.processes.entry import be
from parmagic.workers.processes.handle import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    SERVER,
    call_me,
    descriptor_of,
    prctl,
    raise_limit,
    restore_limit,
)
from parmagic.workers.processes.spares import Spares
from parmagic.workers.processes.spawned import spawn
from parmagic.workers.processes.started import Started
from parmagic.workers.processes.wire import Wire
from parmagic.workers.settings import taken

QUIET = 0.05
"""Seconds without any message after which spares are made: not while one run follows another."""

LAST_WORDS = 1.0
"""Seconds that a server which ends by a fault of its own takes to say so, at most."""


def main(orders: io.BufferedReader) -> None:
    """Be the exec'd server: ``orders`` are the socket's descriptor, the notebook's, and the variables."""
    sock, notebook, variables = fresh.read(orders)
    with suppress(OSError):  # it leads a session already, where it is its parent's child
        os.setsid()
    with suppress(OSError):  # no process can be started: a worker that needs one will say so
        resource_tracker.ensure_running()  # what a worker makes and names outlives it, as what multiprocessing's own processes make does
    fresh.take_over(variables)  # only now: among them may be what starts coverage in every new interpreter
    serve(adopted(sock), notebook, None)


def serve(sock: socket.socket, notebook: int, inherited: Any, wanted: tuple[int, str] = (0, "")) -> None:
    """Serve until the socket ends or says quit, or the notebook ends; never returns.

    ``notebook`` is a descriptor of its process, or -1. ``inherited`` is handed to every
    entry: what a forked server carries in its memory. ``wanted``: so many spares, and what prepares them.
    """
    code = 1
    server = _Server(Wire(sock), notebook, inherited, wanted)
    try:
        server.run()
        code = 0
    except (EOFError, ConnectionError):
        code = 0
    except BaseException:  # noqa: BLE001  (the last line of a process)
        server.say_why(traceback.format_exc())
    finally:
        try:
            server.end()
        finally:
            os._exit(code)


class _Server:
    def __init__(self, wire: Wire, notebook: int, inherited: Any, wanted: tuple[int, str]) -> None:
        self._wire = wire
        self._notebook = notebook
        self._inherited = inherited
        self._due: float | None = None  # when to have spares
        self._held = False  # something is being measured: not now
        self._successors: set[int] = set()
        self._immune: set[int] = set()  # those below us that may not be killed: they are somebody else's by now
        self._wake, self._wake_write = os.pipe()
        self._poll = Poll()
        self._workers = Started(self._poll)
        self._spares = Spares(self._poll, self._fork, self._be, wanted)
        self._be_a_server()

    def _be_a_server(self) -> None:
        for end in (self._wake, self._wake_write):
            os.set_blocking(end, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the notebook's may hold anything
        set_handler(signal.SIGINT, signal.SIG_IGN)
        set_handler(signal.SIGCHLD, lambda *_: None)  # also tells of what workers leave, for which there is no descriptor
        set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        call_me(SERVER)
        self._files = raise_limit()
        self._unsafe = forkable.left_behind()  # what is preloaded into all processes
        for descriptor in (self._wire.fileno(), self._wake, self._notebook):
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        own = descriptor_of(os.getpid())
        self._tell("ready", os.getpid(), threading.active_count(), descriptors=[own] if own >= 0 else [])
        if own >= 0:
            close_descriptor(own)  # it goes at once: the socket is empty
        while True:
            ready = self._wait()
            if self._notebook in ready:
                return
            if ready & {self._wake, *self._workers.ends}:
                _drain(self._wake)
                self._reap()
            self._spares.tell_on(ready)
            if self._wire.fileno() in ready:
                for message, descriptors in self._wire.take():
                    if not self._obey(message, descriptors):
                        return
                if self._due is not None:
                    self._due = time.monotonic() + QUIET
            elif not ready:
                self._due = None
                self._spares.fill_up()
            self._wire.flush()

    def _wait(self) -> set[int]:
        """Return the descriptors at which there is something to do; none where it is time for spares."""
        self._poll.modify(self._wire.fileno(), select.POLLIN | (select.POLLOUT if self._wire.pending else 0))
        left = None if self._due is None else max(0.0, self._due - time.monotonic()) * 1e3
        return {descriptor for descriptor, _ in self._poll.poll(left)}

    def _tell(self, *message: Any, descriptors: list[int] | None = None) -> None:
        self._wire.post(message, descriptors or ())
        self._wire.flush()

    def say_why(self, text: str) -> None:
        """Tell the notebook why this server ends, if it listens."""
        with suppress(OSError):
            self._tell("fault", text)
            poll = Poll()
            poll.register(self._wire.fileno(), select.POLLOUT)
            until = time.monotonic() + LAST_WORDS
            while not self._wire.flush() and time.monotonic() < until:
                poll.poll(50)

    def _obey(self, message: tuple[Any, ...], descriptors: list[int]) -> bool:
        verb, *words = message
        if verb == "start":
            self._held, self._due = True, None  # a run has begun
            key, entry, arguments, new, semaphores = words
            self._start(key, entry, arguments, new, semaphores, descriptors)
        elif verb == "ask":
            self._ask(words[0])
        elif verb == "end":
            self._end(words[0])
        elif verb == "import":
            self._import(*words)
        elif verb == "grow":
            self._grow(descriptors[0])
        elif verb == "lead":
            prctl(PR_SET_PDEATHSIG, 0)  # from now on not our parent's end is ours, but the notebook's
            self._tell("leads")
        elif verb == "hold":
            self._held, self._due = True, None
        elif verb == "spare":
            count, prepare = words
            self._spares.wanted = (self._spares.wanted[0] if count is None else count, prepare)
            self._held, self._due = False, 0.0
        return bool(verb != "quit")

    def _start(self, key: int, entry: str, arguments: bytes, new: bool, semaphores: str, descriptors: list[int]) -> None:
        """Start a process, or say why it cannot be: its limits are the notebook's business, not this server's end."""
        try:
            pid = self._started(entry, arguments, new, descriptors)
        except OSError as error:
            self._tell("failed", key, error.errno, error.strerror)
            return
        finally:
            for descriptor in descriptors:
                if descriptor >= 0:
                    close_descriptor(descriptor)
        self._workers.note(pid, key, semaphores)

    def _started(self, entry: str, arguments: bytes, new: bool, descriptors: list[int]) -> int:
        if -1 in descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if new:
            return spawn(entry, arguments, descriptors, self._files)
        pid = self._spares.use(entry, arguments, descriptors)
        return pid or self._fork(lambda: self._be(entry, arguments, descriptors))

    def _fork(self, work: Callable[[], None], *, successor: bool = False) -> int:
        """Fork a process that does this work, then exits without a look back; return its id."""
        pid = fork_process()
        if pid:
            return pid
        code = 1
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == 1:
                os._exit(1)
            renew()
            self._let_go(keep_notebook=successor)
            work()
            code = 0
        except BaseException:  # noqa: BLE001  (the last line of a process)
            traceback.print_exc()
        finally:
            os._exit(code)

    def _let_go(self, *, keep_notebook: bool) -> None:
        """In a fork: be no server any more."""
        set_wakeup_fd(-1)
        set_handler(signal.SIGCHLD, signal.SIG_DFL)
        notebook = [] if keep_notebook or self._notebook < 0 else [self._notebook]
        for own in (self._wake, self._wake_write, *self._workers.ends, *notebook):
            close_descriptor(own)
        for wire in (self._wire, *self._spares.wires()):
            wire.close()

    def _be(self, entry: str, arguments: bytes, descriptors: list[int]) -> None:
        """Do a new process's work."""
        be(entry, arguments, descriptors, self._inherited, self._files)

    def _grow(self, descriptor: int) -> None:
        """Have a successor: a fork that serves at this socket, and imports there what would keep us waiting here."""
        sock = adopted(descriptor)
        try:
            if threading.active_count() == 1:
                self._successors.add(self._fork(lambda: self._succeed(sock), successor=True))
        except OSError as error:
            self._tell("failed", 0, error.errno, error.strerror)
        finally:
            sock.close()

    def _succeed(self, sock: socket.socket) -> None:
        """In a fork: be a successor, a server like this one, which makes as many spares."""
        with suppress(OSError):
            os.setsid()
        restore_limit(self._files)  # it raises it again, and so knows what workers are to have
        serve(sock, self._notebook, None, self._spares.wanted)

    def _import(self, names: list[str], variables: dict[str, str]) -> None:
        """Import what the notebook has imported, so that workers start with it; tell how each went, and how many threads it left."""
        self._spares.drop()
        fresh.take_over(variables)
        for name in names:
            why = None
            try:
                importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001  (workers import it themselves then, and raise what they find)
                why = f"{type(error).__name__}: {error}"
            self._tell("imported", name, why, threading.active_count() + forkable.left_behind() - self._unsafe)
        taken.look_around()
        gc.collect()
        gc.freeze()  # no worker's collector has to touch, and so to copy, what is here
        self._due = None if self._held else 0.0

    def _ask(self, keys: set[int]) -> None:
        for pid, key in self._workers.keys.items():
            if key in keys:
                with suppress(OSError):  # it has ended, or is somebody else's by now
                    os.kill(pid, signal.SIGINT)

    def _end(self, keys: set[int]) -> None:
        """Kill these processes; of those that have ended before, say so again: the news may have been lost in an interrupt."""
        for pid, key in list(self._workers.keys.items()):
            if key in keys and not killed(pid):
                self._tell("immune", key, pid)
        for key in keys - set(self._workers.keys.values()):
            self._tell("ended", key, 0, 0, 0.0)
        self._reap()

    def _reap(self) -> None:
        for pid, status, cpu_s in ended():
            self._successors.discard(pid)
            self._spares.ended(pid)
            if pid in self._workers.keys:
                code = os.waitstatus_to_exitcode(status)
                self._tell("ended", self._workers.take_leave(pid), pid, code, cpu_s)
        keep = self._kept()
        for pid in end_descendants(keep | self._immune):
            self._immune.add(pid)
            self._tell("left", pid, name_of(pid))
        if self._workers.have_left and not children() - keep:
            self._workers.clean_up()

    def _kept(self) -> set[int]:
        return {*self._workers.keys, *self._successors, *_tracker(), *self._spares.pids()}

    def end(self) -> None:
        """Kill all that was started, but a successor and the tracker, and remove what it leaves."""
        for pid in self._workers.keys:
            killed(pid)
        end_all(self._successors | _tracker())
        self._workers.take_leave_of_all()
        self._workers.clean_up()


def _tracker() -> set[int]:
    """Return the resource tracker's process, where there is one; it ends when nobody holds its pipe any more."""
    pid: int | None = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]  # noqa: SLF001
    return set() if pid is None else {pid}


def _drain(descriptor: int) -> None:
    try:
        while read_descriptor(descriptor, 512):
            pass
    except BlockingIOError:
        pass
