"""The fork server: a small clean process that forks workers on demand.

It is exec'd once per notebook (the usual way), or forked from the notebook
where a run needs the notebook's memory. Either way it speaks one protocol
over one socket: a message asks to start, end or preload; it answers with the
processes that it started and with how each one ended.

It has its own session (Ctrl-C in the notebook does not reach it), no threads,
and is the subreaper of all below it: what a worker leaves running is ended
with that worker. When the notebook goes away, everything here goes away.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("!I")
MOST_DESCRIPTORS = 250

_PR_SET_PDEATHSIG = 1
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
    try:
        _Server(sock, inherited).run()
        code = 0
    except (EOFError, OSError):
        code = 0
    except BaseException:  # noqa: BLE001  (the last line of a process)
        traceback.print_exc()
    finally:
        end_all()
        os._exit(code)


class _Server:
    def __init__(self, sock: socket.socket, inherited: Any) -> None:
        self._sock = sock
        self._inherited = inherited
        self._keys: dict[int, int] = {}  # pid -> key
        self._wake, wake_write = os.pipe()
        for end in (self._wake, wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake_write = wake_write
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def run(self) -> None:
        send(self._sock, ("hello", os.getpid()))
        while True:
            ready, _, _ = select.select([self._sock.fileno(), self._wake], [], [])
            if self._wake in ready:
                _drain(self._wake)
                self._reap()
            if self._sock.fileno() in ready and not self._obey(*receive(self._sock)):
                return

    def _obey(self, message: tuple[Any, ...], descriptors: list[int]) -> bool:
        verb, *words = message
        if verb == "start":
            key, entry, arguments, fresh = words
            self._start(key, entry, arguments, fresh, descriptors)
        elif verb == "end":
            self._end(words[0])
        elif verb == "import":
            self._import(*words)
        return bool(verb != "quit")

    def _start(self, key: int, entry: str, arguments: bytes, fresh: bool, descriptors: list[int]) -> None:
        pid = os.fork()
        if not pid:
            self._be(entry, arguments, fresh, descriptors)
        self._keys[pid] = key
        for descriptor in descriptors:
            os.close(descriptor)
        send(self._sock, ("started", key, pid))

    def _be(self, entry: str, arguments: bytes, fresh: bool, descriptors: list[int]) -> None:
        """Be a new process: run its entry, then exit without a look back."""
        code = 1
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == 1:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._wake, self._wake_write):
                os.close(own)
            self._sock.close()
            if fresh:
                _exec(entry, arguments, descriptors)
            enter(entry, arguments, descriptors, self._inherited)
            code = 0
        except BaseException:  # noqa: BLE001  (the last line of a process)
            traceback.print_exc()
        finally:
            os._exit(code)

    def _import(self, names: list[str], variables: dict[str, str]) -> None:
        """Import what the notebook has imported, so that workers start with it; tell how each went, and how many threads there are."""
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
                return
            if not pid:
                break
            if pid in self._keys:
                send(self._sock, ("ended", self._keys.pop(pid), pid, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
        end_descendants(set(self._keys))


def enter(entry: str, arguments: bytes, descriptors: list[int], inherited: Any) -> None:
    """Call ``module:function`` as a process's whole work."""
    module, name = entry.split(":")
    getattr(importlib.import_module(module), name)(pickle.loads(arguments), descriptors, inherited)


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


def _prctl(option: int, value: int) -> None:
    """Call prctl where there is one (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
