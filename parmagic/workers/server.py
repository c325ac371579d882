"""The fork server: a small clean process that forks workers on demand.

It is exec'd once per notebook (the usual way), or forked from the notebook
where a run needs the notebook's memory. Either way it speaks one protocol
over one socket: a message asks to start, end or preload; it answers with the
processes that it started and with how each one ended.

Between runs it makes a few *spares*: forks that have prepared themselves and wait
for what to do. Each does one start's work and ends, as any other process here;
whatever is imported meanwhile makes new ones of them.

It has its own session (Ctrl-C in the notebook does not reach it), no threads,
and is the subreaper of all below it: what a worker leaves running is ended
with that worker. When the notebook goes away, everything here goes away.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import math
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from parmagic.workers import leftovers

_HEADER = struct.Struct("!I")
MOST_DESCRIPTORS = 250

QUIET = 0.05
"""Seconds without any message after which spares are made: not while one run follows another."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def send(sock: socket.socket, message: Any, descriptors: list[int] | None = None) -> None:
    """Send one message, and descriptors with it."""
    body = pickle.dumps(message)
    data = _HEADER.pack(len(body)) + body
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = sock.sendmsg([data], beside)  # in one piece, as a rule: an interrupt cannot come in between
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: socket.socket) -> tuple[Any, list[int]]:
    """Receive one message and its descriptors; EOFError at the end."""
    header, descriptors, _, _ = socket.recv_fds(sock, _HEADER.size, MOST_DESCRIPTORS)
    while 0 < len(header) < _HEADER.size:
        header += _more(sock, _HEADER.size - len(header))
    if not header:
        raise EOFError
    (size,) = _HEADER.unpack(header)
    body = bytearray()
    while len(body) < size:
        body += _more(sock, size - len(body))
    return pickle.loads(bytes(body)), list(descriptors)


def _more(sock: socket.socket, size: int) -> bytes:
    part = sock.recv(size)
    if not part:
        raise EOFError
    return part


def main(descriptor: int) -> None:
    """Be the exec'd server."""
    serve(socket.socket(fileno=descriptor), None)


def serve(sock: socket.socket, inherited: Any) -> None:
    """Serve until the socket ends or says quit; never returns.

    ``inherited`` is handed to every entry: what a forked server carries in its memory.
    """
    code = 1
    server = _Server(sock, inherited)
    try:
        server.run()
        code = 0
    except (EOFError, OSError):
        code = 0
    except BaseException:  # noqa: BLE001  (the last line of a process)
        traceback.print_exc()
    finally:
        try:
            server.end()
        finally:
            os._exit(code)


class _Spare(NamedTuple):
    """A process that waits for what to do, and the way to tell it."""

    pid: int
    sock: socket.socket


class _Server:
    def __init__(self, sock: socket.socket, inherited: Any) -> None:
        self._sock = sock
        self._inherited = inherited
        self._keys: dict[int, int] = {}  # pid -> key
        self._gone: set[int] = set()  # those that have ended, and may have left something
        self._killed_since = math.inf  # the begin of the first of these that was killed
        self._begins: dict[int, float] = {}  # pid -> when it was told what to do
        self._spares: list[_Spare] = []
        self._wanted: tuple[int, str] = (0, "")  # so many spares, and what prepares them
        self._due: float | None = None  # when to have them
        self._wake, wake_write = os.pipe()
        for end in (self._wake, wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake_write = wake_write
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        call_me("parmagic server")

    def run(self) -> None:
        while True:
            left = None if self._due is None else max(0.0, self._due - time.monotonic())
            ready, _, _ = select.select([self._sock.fileno(), self._wake], [], [], left)
            if self._wake in ready:
                _drain(self._wake)
                self._reap()
            if self._sock.fileno() in ready:
                if not self._obey(*receive(self._sock)):
                    return
                if self._due is not None:
                    self._due = time.monotonic() + QUIET
            elif not ready:
                self._fill_up()

    def _obey(self, message: tuple[Any, ...], descriptors: list[int]) -> bool:
        verb, *words = message
        if verb == "start":
            key, entry, arguments, fresh = words
            self._start(key, entry, arguments, fresh, descriptors)
        elif verb == "end":
            self._end(words[0])
        elif verb == "import":
            self._import(*words)
        elif verb == "hold":
            self._due = None
        elif verb == "spare":
            count, prepare = words
            self._wanted, self._due = (self._wanted[0] if count is None else count, prepare), 0.0
        return bool(verb != "quit")

    def _start(self, key: int, entry: str, arguments: bytes, fresh: bool, descriptors: list[int]) -> None:
        pid = 0 if fresh else self._use_a_spare(entry, arguments, descriptors)
        if not pid:
            pid = self._fork(lambda: self._be(entry, arguments, fresh, descriptors))
        self._keys[pid], self._begins[pid] = key, time.time()
        for descriptor in descriptors:
            os.close(descriptor)
        send(self._sock, ("started", key, pid))

    def _fork(self, work: Callable[[], None]) -> int:
        """Fork a process that does this work, then exits without a look back; return its id."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == 1:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._wake, self._wake_write):
                os.close(own)
            for sock in (self._sock, *(spare.sock for spare in self._spares)):
                sock.close()
            work()
            code = 0
        except BaseException:  # noqa: BLE001  (the last line of a process)
            traceback.print_exc()
        finally:
            os._exit(code)

    def _be(self, entry: str, arguments: bytes, fresh: bool, descriptors: list[int]) -> None:
        """Do a new process's work."""
        call_me("parmagic " + entry.partition(":")[0].rpartition(".")[2])  # child, sampler
        if fresh:
            _exec(entry, arguments, descriptors)
        enter(entry, arguments, descriptors, self._inherited)

    def _use_a_spare(self, entry: str, arguments: bytes, descriptors: list[int]) -> int:
        """Tell a spare what to do; return its id, or 0 where there is none."""
        while self._spares:
            pid, sock = self._spares.pop(0)
            with sock, suppress(OSError):  # somebody has killed it
                send(sock, (entry, arguments), descriptors)
                return pid
        return 0

    def _fill_up(self) -> None:
        """Have as many spares as are wanted."""
        self._due = None
        count, prepare = self._wanted
        while len(self._spares) < count:
            ours, theirs = socket.socketpair()
            with theirs:
                self._spares.append(_Spare(self._fork(lambda: self._be_spare(ours, theirs, prepare)), ours))  # noqa: B023  (runs at once)

    def _be_spare(self, ours: socket.socket, theirs: socket.socket, prepare: str) -> None:
        """Prepare, step by step until there is something to do, and do it; where nothing comes any more, end."""
        call_me("parmagic spare")
        ours.close()
        for _ in _call(prepare):
            if select.select([theirs], [], [], 0)[0]:
                break
        with suppress(EOFError):
            (entry, arguments), descriptors = receive(theirs)
            theirs.close()
            self._be(entry, arguments, False, descriptors)

    def _drop_spares(self) -> None:
        """End the spares; those that are told already do their work."""
        for spare in self._spares:
            spare.sock.close()
        self._spares.clear()

    def _import(self, names: list[str], variables: dict[str, str]) -> None:
        """Import what the notebook has imported, so that workers start with it; tell how each went, and how many threads there are."""
        self._drop_spares()
        os.environ.clear()
        os.environ.update(variables)
        for name in names:
            why = None
            try:
                importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001  (workers import it themselves then, and raise what they find)
                why = f"{type(error).__name__}: {error}"
            send(self._sock, ("imported", name, why, threading.active_count()))
        gc.collect()
        gc.freeze()  # no worker's collector has to touch, and so to copy, what is here
        self._due = 0.0

    def _end(self, keys: set[int]) -> None:
        """Kill these processes; of those that have ended before, say so again: the news may have been lost in an interrupt."""
        for pid in [pid for pid, key in self._keys.items() if key in keys]:
            os.kill(pid, signal.SIGKILL)
        for key in keys - set(self._keys.values()):
            send(self._sock, ("ended", key, 0, 0, 0.0))
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in self._keys:
                code = os.waitstatus_to_exitcode(status)
                self._note_end(pid, code)
                send(self._sock, ("ended", self._keys.pop(pid), pid, code, used.ru_utime + used.ru_stime))
        keep = {*self._keys, *(spare.pid for spare in self._spares)}
        end_descendants(keep)
        if self._gone and not _children() - keep:
            self._clean_up()

    def _note_end(self, pid: int, code: int) -> None:
        self._gone.add(pid)
        begin = self._begins.pop(pid)
        if code < 0:
            self._killed_since = min(self._killed_since, begin)

    def end(self) -> None:
        """Kill all that was started, and remove what it leaves."""
        end_all()
        for pid in [*self._begins]:
            self._note_end(pid, -signal.SIGKILL)
        self._clean_up()

    def _clean_up(self) -> None:
        """Remove what ended processes left, with all that they had started, in files that nobody else would remove."""
        gone, since = self._gone, self._killed_since
        self._gone, self._killed_since = set(), math.inf
        leftovers.remove(gone)
        if since < math.inf:
            leftovers.remove_half_made(since)


def enter(entry: str, arguments: bytes, descriptors: list[int], inherited: Any) -> None:
    """Call ``module:function`` as a process's whole work."""
    _call(entry, pickle.loads(arguments), descriptors, inherited)


def _call(entry: str, *arguments: Any) -> Any:
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def _exec(entry: str, arguments: bytes, descriptors: list[int]) -> None:
    """Be a fresh interpreter (``spawn``), with the same arguments and descriptors."""
    code = (
        f"import os, sys; sys.path[:] = {sys.path!r}; from parmagic.workers.server import enter; "
        f"enter({entry!r}, {arguments!r}, {descriptors!r}, None); os._exit(0)"
    )
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606  (our own interpreter)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 512):
            pass
    except BlockingIOError:
        pass


def end_descendants(keep: set[int]) -> None:
    """Kill all children of this process but ``keep``: workers at the end, and what dead workers left."""
    for pid in _children() - keep:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end_all() -> None:
    """Kill all children of this process, and theirs, which become its own when their parents have ended."""
    while _children():
        end_descendants(set())
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> set[int]:
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()  # no /proc (macOS): what workers start ends by itself


def call_me(name: str) -> None:
    """Give this process a name that ``ps`` and ``top`` show, where the system has such (Linux, which keeps 15 characters of it)."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> None:
    """Call prctl where there is one (Linux)."""
    if sys.platform.startswith("linux"):
        argument = value if isinstance(value, bytes) else ctypes.c_ulong(value)
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
