"""The threads by which multiprocessing's queues write, at a worker's end.

A message that is larger than a pipe stays half written until somebody reads it. The thread that
writes it is waited for, and that is told; where the worker is to end all the same, it reads
the message itself. Else the queue would be lost for everybody: half a message, and a lock that nobody opens.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from parmagic.system.real import sleep
from parmagic.workers.processes import asked

SLICE = 0.05
"""Seconds for which somebody else's reading is waited for before another look."""

_names: list[Mapping[str, Any]] = []  # those among which the body looks


def known_by(names: Mapping[str, Any]) -> None:
    """Let queues be called by what the body calls them."""
    _names[:] = [names]


class _Feeder(NamedTuple):
    """A thread that writes to a queue, and what it does that with; ``queue`` is None where it has gone already."""

    thread: threading.Thread
    reader: Any
    writer: Any
    lock: Any
    room: Any
    queue: Any

    def writes(self) -> bool:
        """Tell whether it goes on. Up to Python 3.12, ``is_alive`` is False once a join was interrupted."""
        return threading._active.get(self.thread.ident) is self.thread  # type: ignore[attr-defined]  # noqa: SLF001


def _finalizers(name: str) -> list[Any]:
    """Return what multiprocessing calls at the end for queues: ``_finalize_close``, ``_finalize_join``."""
    queues = sys.modules.get("multiprocessing.queues")
    if queues is None:
        return []
    callback = getattr(queues.Queue, name)
    return [each for each in list(util._finalizer_registry.values()) if each is not None and each._callback is callback]  # type: ignore[attr-defined]  # noqa: SLF001


def _feeders() -> Iterator[_Feeder]:
    """Have each queue's thread end behind what was put there; yield those that still write and are waited for."""
    joins = _finalizers("_finalize_join")
    for close in _finalizers("_finalize_close"):
        close()
    for join in joins:
        thread = join._args[0]()  # noqa: SLF001
        arguments: tuple[Any, ...] = getattr(thread, "_args", ())  # none where it has ended
        if len(arguments) > 8:  # noqa: PLR2004
            buffer, _, send, lock, close_reader = arguments[:5]
            with suppress(OSError):  # it has just ended, and closed them
                reader, writer = (Connection(os.dup(each.__self__.fileno())) for each in (close_reader, send))
                yield _Feeder(thread, reader, writer, lock, arguments[8], _queue_of(buffer))


def _queue_of(buffer: Any) -> Any:
    queue = sys.modules["multiprocessing.queues"].Queue
    named = [value for names in _names for value in list(names.values())]
    made_before = list(util._afterfork_registry.values())  # type: ignore[attr-defined]  # noqa: SLF001  (a fork's may be frozen: gc has no word of it)
    found = (each for some in (named, made_before, gc.get_objects()) for each in some if isinstance(each, queue))
    return next((each for each in found if each._buffer is buffer), None)  # noqa: SLF001


def wait(grace: float, tell: Callable[[str], None]) -> None:
    """Wait until all is written, as long as it takes; after ``grace`` seconds, say so. No longer in a worker that is asked to end."""
    left, until = list(_feeders()), time.monotonic() + grace
    for feeder in left:
        feeder.thread.join(max(0.0, until - time.monotonic()))
    for feeder in left:
        if feeder.writes():
            tell(_WAITS.format(name=_name(feeder.queue)))
    while any(feeder.writes() for feeder in left) and not asked.is_asked():
        sleep(SLICE)


_WAITS = (
    "its feeder thread still writes to {name}, until somebody reads what the body has put there. Read it in another thread, or return it "
    "instead; Ctrl-C and --timeout end this, and what is not read by then is dropped."
)


def _name(queue: Any) -> str:
    for names in _names:
        for name, value in list(names.items()):
            if value is queue and queue is not None:
                return f"`{name}`"
    return "a queue"


def take_back() -> None:
    """Read what the threads of this process still write, so that they end; what came before stays in the queue as far as there is room."""
    for feeder in _feeders():
        with suppress(Exception):  # somebody has closed it: nothing is half written there
            _take_back(feeder)


def _take_back(feeder: _Feeder) -> None:
    feeder.thread.join(SLICE)
    messages: list[bytes] = []
    queue = feeder.queue
    lock = queue._rlock if queue is not None else None  # noqa: SLF001
    while feeder.writes():
        if lock is not None and not lock.acquire(timeout=SLICE):
            continue  # another worker reads
        try:
            while feeder.writes() and feeder.reader.poll(SLICE / 10):
                messages.append(feeder.reader.recv_bytes())
        finally:
            if lock is not None:
                lock.release()
    if feeder.lock is None or feeder.lock.acquire(timeout=SLICE):
        try:
            while messages and _has_room(feeder.writer, messages[0]):
                feeder.writer.send_bytes(messages.pop(0))
        finally:
            if feeder.lock is not None:
                feeder.lock.release()
    for _ in messages:
        _forget_one(feeder)


def _has_room(writer: Any, message: bytes) -> bool:
    """Tell whether a message can be written without waiting for a reader."""
    poll = select.poll()
    poll.register(writer.fileno(), select.POLLOUT)
    return len(message) + 16 <= select.PIPE_BUF and bool(poll.poll(0))


def _forget_one(feeder: _Feeder) -> None:
    """Count one message less, where the queue counts."""
    feeder.room.release()
    if hasattr(feeder.queue, "task_done"):
        feeder.queue.task_done()
