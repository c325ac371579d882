"""The notebook's end of a fork server."""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import select
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from parmagic import meter
from parmagic.cpus import available_cpus
from parmagic.errors import NotShippable, WorkerDied
from parmagic.interrupts import held_back
from parmagic.workers import preload, server

MOST_SPARES = 4
"""Processes that wait for the next run at most, where there are no more cores than that."""

_keys = count(1)


class Hub:
    """A running server: starts processes, and tells how they ended.

    ``events`` holds ``("started", key, pid)`` and ``("ended", key, pid, code, cpu_s)``;
    ``code`` is negative for a signal, as in :mod:`subprocess`.
    """

    def __init__(self, sock: socket.socket, pid: int, errors: IO[bytes] | None, process: subprocess.Popen[bytes] | None) -> None:
        self._sock = sock
        self.pid = pid
        self._errors = errors
        self._process = process
        self._owner = os.getpid()
        self._lease, self._sending = threading.Lock(), threading.Lock()
        self.events: deque[tuple[Any, ...]] = deque()
        self.loaded: dict[str, float] = {}  # imported ahead, with the time of each one's last change
        self._pending: deque[str] = deque()
        self._failed: list[tuple[str, str, bool]] = []  # what could not be imported, why, and whether that spoils the server

    def fileno(self) -> int:
        """Be something that select can wait for."""
        return self._sock.fileno()

    @contextmanager
    def leased(self) -> Iterator[None]:
        """Have the server for one run: another thread's run waits for its end, as each takes the news of its own processes."""
        while not self._lease.acquire(timeout=0.05):
            pass  # in turns: a worker thread can be interrupted between them
        try:
            yield
        finally:
            self._lease.release()

    def start(self, entry: str, arguments: Any, descriptors: list[int], *, fresh: bool = False) -> int:
        """Start a process at ``module:function``; return its key. Descriptors are shared with it.

        ``fresh``: in a new interpreter, not in a fork of the server.
        """
        if len(descriptors) > server.MOST_DESCRIPTORS:
            raise NotShippable(
                f"The body and its items hold {len(descriptors)} pipes and shared values; {server.MOST_DESCRIPTORS} can be sent "
                "to a process. Use one Queue, or one Array."
            )
        key = next(_keys)
        self._send(("start", key, entry, pickle.dumps(arguments), fresh), descriptors)
        return key

    def end(self, keys: set[int]) -> None:
        """Kill these processes and all that they started."""
        if keys:
            self._send(("end", keys))

    def hold(self) -> None:
        """Have the server prepare nothing while a run is measured."""
        self._send(("hold",))

    def spare(self, processes: int | None) -> None:
        """Have the server prepare that many processes ahead, or as many as last time, for the next run to find."""
        count = processes if processes is None or processes <= MOST_SPARES else min(processes, max(MOST_SPARES, available_cpus()))
        self._send(("spare", count, "parmagic.workers.child:prepare"))

    def preload(self, modules: Iterable[str]) -> None:
        """Have the server import these modules, where it has not, so that later processes start with them."""
        new = [name for name in modules if name not in self.loaded and name not in self._pending]
        if new:
            self._pending += new
            self._send(("import", new, _variables()))

    def settle(self, seconds: float) -> list[tuple[str, str, bool]]:
        """Wait until all is imported; return (module, why not, whether a new server is needed) of each that was not."""
        deadline = time.monotonic() + seconds
        while self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                return [(self._pending[0], f"did not end within {seconds:g} s", True)]
            try:
                self.listen(left)
            except WorkerDied:
                return [(self._pending[0], "ended the process that imported it", True)]
        found, self._failed = self._failed, []
        return found

    def _imported(self, name: str, why: str | None, threads: int) -> None:
        self._pending.popleft()
        self.loaded[name] = preload.stamp(name)
        if threads > 1:
            why = "left threads behind, beside which it is not safe to fork"
        if why is not None:
            self._failed.append((name, why, threads > 1))

    def listen(self, seconds: float = 0.0) -> None:
        """Move the server's news into ``events``; wait at most that long for some."""
        while select.select([self._sock], [], [], seconds)[0]:
            try:
                message, _ = server.receive(self._sock)
            except (EOFError, OSError):
                raise self._gone() from None
            except BaseException:
                self._release()  # an interrupt within a message: what comes next could not be read
                raise
            seconds = 0.0
            if message[0] == "imported":
                self._imported(*message[1:])
            else:
                self.events.append(message)

    def alive(self) -> bool:
        """Tell whether the server is there, and belongs to this process."""
        return self._owner == os.getpid() and self._sock.fileno() >= 0

    def close(self, *, at_once: bool = False) -> None:
        """End the server and everything below it; ``at_once``: also where it does not listen."""
        if self._sock.fileno() < 0:
            return
        if self._owner == os.getpid():
            with suppress(OSError, WorkerDied):  # it may be gone already
                self._send(("quit",))
            if at_once:
                os.kill(self.pid, signal.SIGKILL)
        self._release()

    def __del__(self) -> None:
        """Where an interrupt kept everybody from knowing of it."""
        with suppress(AttributeError, OSError):  # half made, or half gone at the interpreter's end
            if self._owner == os.getpid():
                self.close(at_once=True)

    def _release(self) -> None:
        """Let go of the server, which ends without us, and all below it; wait for that."""
        self._sock.close()
        if self._owner == os.getpid():
            self._wait()
            if self._errors:
                self._errors.close()

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            return
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _send(self, message: tuple[Any, ...], descriptors: list[int] | None = None) -> None:
        try:
            with self._sending:
                server.send(self._sock, message, descriptors)
        except OSError:
            raise self._gone() from None
        except BaseException:
            self._release()  # an interrupt within a message: what comes next would be read as its end
            raise

    def _gone(self) -> WorkerDied:
        """Return what to raise when the server has ended by itself; it says why, where it said anything."""
        self._sock.close()
        text = ""
        if self._errors and not self._errors.closed:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()
        self._release()
        why = f":\n{text}" if text else "; run the cell again to start a new one."
        return WorkerDied(f"The process that starts workers has ended{why}")


def supported() -> bool:
    """Tell whether this system can fork, which the server lives on."""
    return hasattr(os, "fork")


def launch() -> Hub:
    """Exec a new, clean server."""
    ours, theirs = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the server)
    with theirs:
        code = f"import sys; sys.path[:] = {_search_path()!r}; from parmagic.workers.server import main; main({theirs.fileno()})"
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]  # noqa: SLF001
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    return Hub(ours, process.pid, errors, process)


def _search_path() -> list[str]:
    """Return where the server may import from: the standard library, installed packages, parmagic.

    Not the user's folder: a ``random.py`` there is the workers' business, not the server's.
    """
    installed = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    roots = tuple(os.path.realpath(p) + os.sep for p in installed)
    ours = str(Path(server.__file__).parents[2])
    kept = [p for p in sys.path if p and (os.path.realpath(p) + os.sep).startswith(roots)]
    zipped = [p for p in sys.path if p.endswith(".zip")]
    packages = [p for p in kept if {"site-packages", "dist-packages"} & set(Path(p).parts)]
    # before the packages: another parmagic may be installed there than the one that runs here
    return [*zipped, *(p for p in kept if p not in packages), ours, *packages]


def fork(call: Any, items: Any) -> Hub:
    """Fork a server off this process: it carries our memory as it is now, the body and the items with it.

    Only while no other thread of the user's is alive, see
    :func:`parmagic.workers.isolated.user_threads`.
    """
    # what a worker needs is imported here: the child would do it each time anew
    from parmagic.workers import child, home, loop  # noqa: F401, PLC0415  (cloudpickle loads when something crosses a border)

    home.track_classes(loop.names_around(call))
    ours, theirs = socket.socketpair()
    with warnings.catch_warnings(), held_back():
        warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of the front end are known to be safe
        pid = os.fork()
        if not pid:  # it never leaves this block: a Ctrl-C that was held back is the notebook's
            try:
                ours.close()
                _settle()
                server.serve(theirs, (call, items))
            finally:
                os._exit(1)
    theirs.close()
    return Hub(ours, pid, None, None)


def _settle() -> None:
    """In the forked child: let go of the notebook's terminal, streams and signals."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr
    from parmagic import tracing  # noqa: PLC0415  (only where there is something to stop)

    tracing.forked()


_server: Hub | None = None
_launching = threading.RLock()


def get() -> Hub:
    """Return this process's server, starting it where there is none."""
    global _server  # noqa: PLW0603  (one server per process is the point)
    with _launching:
        if _server is None or not _server.alive():
            with held_back():
                _server = launch()
            if meter.why_inferred():
                from parmagic.workers.watch import watch  # noqa: PLC0415  (it needs us)

                watch.warm()  # before the server imports what only workers need
            _server.preload(["parmagic.workers.child", "viztracer"])
        return _server


_refused: set[str] = set()
"""Packages that no server of this process imports ahead."""

WAIT_FOR_IMPORTS = 2.0
"""Seconds that a run waits for imports that make its workers start faster."""


def _variables() -> dict[str, str]:
    """Return what imports find in the environment: OPENBLAS_NUM_THREADS, say, is read only once."""
    return dict(os.environ)


def refresh(space: Mapping[str, Any]) -> list[str]:
    """Where there is a server, have it import what the notebook with these names has imported meanwhile; wait for nothing.

    Returns what that is; where there is no server, nothing is looked up.
    """
    if _server is None or not _server.alive():
        return []
    modules = preload.wanted(space)
    with suppress(WorkerDied):  # the next run starts a new one
        _server.preload(_allowed(modules))
    return modules


def hold() -> None:
    """Where there is a server, have it prepare nothing until :func:`spare`: it would compete with what is measured."""
    if _server is not None and _server.alive():
        with suppress(WorkerDied):  # the next run starts a new one
            _server.hold()


def spare(processes: int | None) -> None:
    """Where there is a server, have it prepare processes for the next run, or as many as before; wait for nothing."""
    if _server is not None and _server.alive():
        with suppress(WorkerDied):
            _server.spare(processes)


def warmed(modules: list[str]) -> tuple[Hub, list[str]]:
    """Return the server, with these modules imported; and notes on what it could not import."""
    notes: list[str] = []
    if _server is not None and preload.changed(_server.loaded):
        _server.close()
    while True:
        server = get()
        server.preload(_allowed(modules))
        spoilt = False
        with server.leased():
            failures = server.settle(WAIT_FOR_IMPORTS)
        for name, why, spoils in failures:
            package = name.partition(".")[0]
            if spoils or name == package:
                _refused.add(package)
                notes.append(f"Worker processes import {package} by themselves, for importing it ahead {why}.")
            spoilt = spoilt or spoils
        if not spoilt:
            return server, notes
        server.close(at_once=True)


def _allowed(modules: list[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] not in _refused]


@atexit.register
def close() -> None:
    """End this process's server, where it has one."""
    global _server  # noqa: PLW0603
    if _server is not None:
        _server.close()
        _server = None
