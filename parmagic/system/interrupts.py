"""Ctrl-C, at moments in which it would leave something behind, or would get lost; and exceptions that are raised in other threads."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what lies below signal, which looks up the names of its constants
import ctypes
import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import FrameType
from typing import Any, TypeVar

from parmagic.system.debugger import hide
from parmagic.system.real import Lock, get_ident, in_main_thread, new_thread

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], Any]

NUDGE = 0.05
"""Seconds in which a thread takes an exception that it was given by itself; at its next turn, really."""

_struck: BaseException | None = None  # what a handler has raised, until it is known to have ended something
_raised: BaseException | None = None  # what one raised last
_put_back: Callable[[], None] | None = None  # undoes what a call of noticed() has done


def noticed(call: Callable[..., T], *args: Any) -> T:
    """Call, and note meanwhile what a Ctrl-C raises, for :func:`raise_lost`: Python drops it within a finalizer or a weakref's callback.

    The user's own handler decides what a Ctrl-C is: where it returns, or SIGINT is ignored, nothing is noted.
    A handler that no Python code has set is left alone, and so is one that the user's code sets
    meanwhile. Called again within itself, it goes on as it is.
    """
    __tracebackhide__ = True
    global _put_back  # noqa: PLW0603  (a signal's handler has nothing else to write to)
    before = signal.getsignal(signal.SIGINT)
    if _put_back is not None or not in_main_thread() or not callable(before):
        return call(*args)
    note = _noting(before)

    def put_back() -> None:
        global _struck, _raised, _put_back  # noqa: PLW0603
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
        _struck = _raised = _put_back = None

    try:
        _put_back = put_back
        signal.signal(signal.SIGINT, note)
        return call(*args)
    finally:
        try:
            put_back()
        finally:
            put_back()


def _noting(before: Handler) -> Handler:
    """Return a handler that calls the one before, and notes what that raises."""

    def note(number: int, frame: FrameType | None) -> None:
        global _struck, _raised  # noqa: PLW0603
        try:
            before(number, frame)
        except BaseException as error:
            _struck = _raised = error
            raise

    return note


def forget() -> None:
    """Take what came until now for dealt with: it is on its way up, or the user's own code ran, which may have caught it.

    What strikes comes up in the main thread: a run in another one leaves it alone.
    """
    global _struck  # noqa: PLW0603
    if in_main_thread():
        _struck = None


def raise_lost() -> None:
    """Raise what a Ctrl-C has raised and what ended nothing; mostly a KeyboardInterrupt, else what the user's handler raises."""
    found = lost()
    if found is not None:
        raise found


def lost() -> BaseException | None:
    """Return what :func:`raise_lost` would raise; it counts as dealt with then."""
    global _struck
    if _struck is None or not in_main_thread():
        return None
    found, _struck = _struck, None
    return found


def is_interrupt(error: BaseException) -> bool:
    """Tell whether a Ctrl-C raised it: a KeyboardInterrupt, or whatever the user's handler has raised."""
    return error is _raised or issubclass(type(error), KeyboardInterrupt)


class _Noted(list[tuple[int, FrameType | None]]):
    """A handler that notes what strikes."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.append((number, frame))


class held_back:  # noqa: N801  (a block, as in contextlib)
    """Hold a Ctrl-C back until the end of this block, which is short and waits for nothing.

    Between a call that opens something and the assignment of what it returns, Python looks
    for signals; and what it runs around a fork swallows the exception. A SIGINT that no
    Python handler is called for raises nothing, and needs no holding back.
    """

    _before: Any = None  # also where it was struck before it began

    def __init__(self) -> None:
        self._struck = _Noted()  # the handler, and not this object's: where the block's end is not reached, this object goes

    def __enter__(self) -> None:
        """From here on a Ctrl-C is only noted."""
        before = _signal.getsignal(signal.SIGINT)
        if type(before) is _Noted:
            return  # within another such block
        if callable(before) and in_main_thread():
            self._before = before  # first: what strikes from here to the block's end is put back
            _signal.signal(signal.SIGINT, self._struck)

    def __exit__(self, *_: object) -> None:
        """Call the handler for what has struck."""
        if self._before is None:
            return
        try:
            _signal.signal(signal.SIGINT, self._before)
        finally:
            _deliver(self._before, self._struck)

    def __del__(self) -> None:
        """Put the handler back, where something else was raised between the block's last line and its end: by a tracer, say."""
        if self._before is not None and _signal.getsignal(signal.SIGINT) is self._struck:
            _signal.signal(signal.SIGINT, self._before)


def _deliver(before: Handler, struck: list[tuple[int, FrameType | None]]) -> None:
    """Call a handler once for every signal, whatever it raises."""
    if struck:
        try:
            before(*struck[0])
        finally:
            _deliver(before, struck[1:])


class Latch:
    """An event for one thread that waits, which no Ctrl-C can tear: the lock within a ``threading.Event`` would stay locked forever."""

    def __init__(self) -> None:
        self._closed = Lock()
        self._closed.acquire()
        self._is_open = False

    def set(self) -> None:
        """Let the waiting thread go on."""
        with suppress(RuntimeError):  # it was set before
            self._closed.release()

    def wait(self, seconds: float) -> bool:
        """Wait at most that long; tell whether it is set."""
        self._is_open = self._is_open or self._closed.acquire(timeout=seconds)
        return self._is_open


def undo(what: Callable[[], object]) -> None:
    """Undo something, with Ctrl-C held back; it must do no harm to undo it twice.

    A Ctrl-C can come just before this begins. So it is to be called again after it,
    whatever happens::

        finally:
            try:
                undo(close)
            finally:
                undo(close)

    No helper can do both calls: what comes at its own begin would keep both from being made.
    """
    with held_back():
        what()


def raise_in(thread: int | None, kind: type[BaseException]) -> bool:
    """Raise ``kind`` in another thread, known by its ``ident``, as soon as it runs Python.

    False, and nothing, while any thread forks, or that one starts a thread.

    In a fork, Python drops it, and with it perhaps the release of a lock. And a child that is born while it waits
    for its thread would be alarmed forever (see :func:`calm`): that thread is not in there.
    """
    with _forks:
        if _forking or thread in _bearing:
            return False
        if thread is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
        return True


_bearing: list[int] = []  # threads that start one: up to 3.11 it has their ident until it runs, and would take what is meant for them


def bears(thread: int) -> None:
    """Note that a thread, known by its ``ident``, is about to start another one."""
    _bearing.append(thread)


def has_born(thread: int) -> None:
    """Note that the other one runs, or could not be started."""
    with suppress(ValueError):
        _bearing.remove(thread)


_forks = Lock()
_forking: dict[int, BaseException | None] = {}  # each thread that forks, and what was raised in it in the last moment before


def heed_forks() -> None:
    """Have :func:`raise_in` heed forks from now on: the hooks of all that was imported before run between ours."""
    with held_back(), _heeding:
        _register()


_heeding = Lock()


@functools.cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ends, after_in_child=_fork_in_child)


def _fork_begins() -> None:
    if in_main_thread():
        return
    ident, struck = get_ident(), None
    try:
        with _forks:
            _forking[ident] = None
        _look_around()  # what was raised in here before comes at the latest now; an alarm of another thread's ends before
    except BaseException as error:  # noqa: BLE001  (it is raised behind the fork)
        struck = error
    with _forks:
        _forking[ident] = struck


def _look_around() -> None:
    for _ in range(2):
        pass


def _fork_ends() -> None:
    ident = get_ident()
    with _forks:
        struck = _forking.pop(ident, None)
    if struck is not None:
        raise_in(ident, type(struck))


def _fork_in_child() -> None:
    global _forks  # noqa: PLW0603  (another thread may have held it)
    _forks = Lock()
    _forking.clear()
    _bearing.clear()


def settle() -> None:
    """Have what was raised in the calling thread come here, or never: the next exception of its own takes its place."""
    _nudged()


class _Nudge(BaseException):
    """Raised in the calling thread by itself."""


def calm() -> None:
    """Let threads that are blocked, or ended before they took it, keep their exception without alarming all others.

    Up to Python 3.12, an exception that waits for one thread makes every thread look for
    it at every turn, and with a profiler on, 3.11 then never gets past a function's first
    instruction. The alarm ends when any thread takes an exception of its own.
    """
    if sys.version_info < (3, 13) and not _nudged():
        with suppress(RuntimeError):
            helper = hide(new_thread(_nudged, name="parmagic calm"))
            helper.start()
            helper.join()


def _nudged() -> bool:
    """Take an exception of one's own.

    False where it does not arrive: 3.11 keeps the state of a thread that could not be
    started, under the id of the thread that tried, and gives it to that one.
    """
    me, until = ctypes.c_ulong(get_ident()), perf_counter() + NUDGE
    try:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(me, ctypes.py_object(_Nudge))
        while perf_counter() < until:
            pass
        ctypes.pythonapi.PyThreadState_SetAsyncExc(me, None)
    except _Nudge:
        return True
    return False
