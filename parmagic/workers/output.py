"""What workers print: whole lines, marked with their worker."""

from __future__ import annotations

import os
import sys
from codecs import IncrementalDecoder, getincrementaldecoder
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

from parmagic.model.progress import Printed
from parmagic.record.items import Worker
from parmagic.system.interrupts import held_back, undo
from parmagic.system.real import Lock, get_ident, local
from parmagic.workers.forks import Forks, leave_all
from parmagic.workers.lines import Lines

Emit = Callable[[Printed], None]


def mark(printed: Printed, model: str) -> str:
    """Return the printed lines, each behind its worker: ``[procs 1] text``."""
    name = f"[{model} {printed.rank}] "
    lines = printed.text.removesuffix("\n").split("\n")  # not where Unicode sees further ends of lines: they would escape the count
    return "".join(f"{name}{_uncoloured_after(line)}\n" for line in lines)


def _uncoloured_after(line: str) -> str:
    """Let the colours of a line end with it: the next one may be another worker's."""
    if "\x1b[" not in line:
        return line
    text = line.rstrip("\r\n")
    return f"{text}\x1b[0m{line[len(text) :]}"


class ThreadOutput:
    """One run's: from ``__enter__`` to ``end``, what its workers' threads print goes to ``emit``; all other threads print as ever."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._routers: list[_Router] = []
        self._lines: dict[tuple[int, str, int], Lines] = {}
        self._decoders: dict[tuple[int, str, int], IncrementalDecoder] = {}
        self.forks = Forks(emit)
        self.over = False

    def __enter__(self) -> Self:
        """Have ``sys.stdout`` and ``sys.stderr`` ask who writes."""
        with held_back(), _changing:
            _heed_forks()
            for name in ("stdout", "stderr"):
                _installed(name, self, self._routers)
        return self

    def attach(self, worker: Worker) -> None:
        """Take the calling thread for one of this run's workers."""
        _here.speaker = (self, worker)

    def attach_below(self, worker: Worker) -> None:
        """Take the calling thread for one that a worker's body has started: it prints as that, in lines of its own."""
        _here.speaker, _here.thread = (self, worker), get_ident()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Put the streams back."""
        undo(self.end)

    def end(self) -> None:
        """Put the streams back where no other run needs them, unless the body put others there, and emit unfinished lines; once."""
        self.over = True  # a thread that was left behind prints as any other now
        with held_back(), _changing:
            for router in self._routers:
                router.users.discard(self)
                router.step_down()
        self._routers.clear()
        while self._lines:
            (rank, name, _), lines = self._lines.popitem()
            last = lines.last(rank, name)
            if last is not None:
                self._emit(last)
        with held_back():
            self.forks.close()

    def write(self, rank: int, name: str, text: str) -> None:
        """Collect what a worker writes to a stream."""
        key = rank, name, _here.thread
        lines = self._lines.get(key) or self._lines.setdefault(key, Lines())
        whole = lines.feed(text)
        if whole:
            self._emit(Printed(rank, name, whole))

    def decoder(self, rank: int, name: str) -> IncrementalDecoder:
        """Return what makes text of the bytes that a worker writes to a stream."""
        key = rank, name, _here.thread
        return self._decoders.get(key) or self._decoders.setdefault(key, getincrementaldecoder("utf-8")("replace"))


class _Here(local):
    """Whose worker the calling thread is."""

    speaker: tuple[ThreadOutput, Worker] | None = None
    thread: int = 0  # which one of the worker's body's; its own is 0


_here = _Here()
_changing = Lock()
_retired: deque[_Router] = deque(maxlen=8)
"""Routers that no run needs: up to Python 3.13, a ``print`` that is under way goes on with a stream that it does not keep alive."""


@cache
def _heed_forks() -> None:
    """Have what a worker forks print as that worker. To be called before hooks are registered that raise in threads (:mod:`interrupts`)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_fork_begins, after_in_child=_fork_in_child)


def _fork_begins() -> None:
    found = _speaker()
    if found is not None:
        found[0].forks.open()


def _fork_in_child() -> None:
    _Here.speaker = _speaker()  # for the threads that begin in there
    leave_all()


def leave() -> None:
    """Take the calling thread for nobody's worker."""
    _here.speaker = None


def _speaker() -> tuple[ThreadOutput, Worker] | None:
    """Return the run that the calling thread works for, and as which worker; None where there is none, or it is over."""
    found = _here.speaker
    return None if found is None or found[0].over else found


def below(stream: Any) -> Any:
    """Return the stream that is below a router: the one that was there before."""
    return stream.original if type(stream) is _Router else stream


def _installed(name: str, user: ThreadOutput, routers: list[_Router]) -> None:
    """Have a router on a stream for one more run, the one that is there or a new one, and add it to the run's."""
    top = getattr(sys, name)
    known = (router for router in (top, *_retired) if type(router) is _Router and router.stream == name)
    router = next((router for router in known if router is top or router.original is top), None) or _Router(top, name)
    router.users.add(user)
    routers.append(router)  # first: end() leaves a stream alone that is no router
    setattr(sys, name, router)


class _Router:
    """A stream that asks who writes; one for all runs that go on at the same time, until the last of them has ended.

    Who has kept it, or puts it back later, has the original by it: it passes everything on.
    """

    def __init__(self, original: TextIO, name: str) -> None:
        self.original = original
        self.stream = name  # its name in sys; its own ``name`` is the original's
        self.users: set[ThreadOutput] = set()

    def step_down(self) -> None:
        """Put the original back where no run needs this any more; a stream that somebody else has put there stays."""
        if self.users:
            return
        if self not in _retired:
            _retired.append(self)
        if getattr(sys, self.stream) is self:
            setattr(sys, self.stream, self.original)

    def _step_down_late(self) -> None:
        """Do so where somebody has put this back behind the last run: ``redirect_stdout``, begun while it was there."""
        if not self.users and _changing.acquire(blocking=False):
            try:
                self.step_down()
            finally:
                _changing.release()

    def write(self, text: str) -> int:
        """Collect a worker's text; pass on everybody else's."""
        speaker = _speaker()
        if speaker is None:
            self._step_down_late()
            return self.original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        text = str.__str__(text)  # of a subclass, what it is, and not what it says: as any stream
        output, worker = speaker
        if not output.forks.here:
            if not output.forks.send(worker.rank, self.stream, text.encode("utf-8", "surrogatepass")):
                return self.original.write(text)
            return len(text)
        output.write(worker.rank, self.stream, text)
        return len(text)

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int | None:
        """Collect a worker's bytes, as text; pass on everybody else's."""
        speaker = _speaker()
        if speaker is None:
            return self.original.buffer.write(data)
        output, worker = speaker
        if not output.forks.here:
            sent = output.forks.send(worker.rank, self.stream, bytes(data))
            return memoryview(data).nbytes if sent else self.original.buffer.write(data)
        output.write(worker.rank, self.stream, output.decoder(worker.rank, self.stream).decode(bytes(data)))
        return memoryview(data).nbytes

    @property
    def buffer(self) -> _Bytes:
        """The stream of bytes below this one, where the original has one."""
        return _Bytes(self.original.buffer, self)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them all."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the original; workers' lines wait for their end."""
        if _speaker() is None:
            self.original.flush()

    def __getattr__(self, name: str) -> Any:
        """Be the original in everything else."""
        return getattr(self.original, name)


class _Bytes:
    """What lies below a router: bytes, of which it asks the same."""

    def __init__(self, original: BinaryIO, router: _Router) -> None:
        self.original = original
        self.write = router.write_bytes
        self.flush = router.flush

    def __getattr__(self, name: str) -> Any:
        """Be the original in everything else."""
        return getattr(self.original, name)
