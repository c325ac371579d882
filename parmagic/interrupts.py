"""Ctrl-C: at moments in which it would leave something behind, or would get lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_struck = _noticing = False


@contextmanager
def noticed() -> Iterator[None]:
    """While entered, note every Ctrl-C, for :func:`raise_lost`: Python drops one that comes in a finalizer or a weakref's callback.

    Entered again within itself, it goes on as it is.
    """
    global _struck, _noticing  # noqa: PLW0603  (a signal's handler has nothing else to write to)
    if _noticing or threading.current_thread() is not threading.main_thread():
        yield
        return
    _struck, before = False, signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        global _struck  # noqa: PLW0603
        _struck = True
        if callable(before):
            before(number, frame)

    try:
        _noticing = True
        signal.signal(signal.SIGINT, note)
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _struck = _noticing = False


def forget() -> None:
    """Take what came until now for dealt with: it is on its way up, or the user's own code ran, which may have caught it."""
    global _struck  # noqa: PLW0603
    _struck = False


def raise_lost() -> None:
    """Raise KeyboardInterrupt where there was a Ctrl-C that ended nothing."""
    global _struck  # noqa: PLW0603
    if _struck and threading.current_thread() is threading.main_thread():
        _struck = False
        raise KeyboardInterrupt


@contextmanager
def held_back() -> Iterator[None]:
    """Hold a Ctrl-C back until the end of this block, which is short and waits for nothing.

    Between a call that opens something and the assignment of what it returns, Python looks
    for signals; and what it runs around a fork swallows the exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *what: struck.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if struck and callable(before):
            before(*struck[0])


def undo(what: Callable[[], object]) -> None:
    """Undo something, with Ctrl-C held back; it must do no harm to undo it twice.

    A Ctrl-C can come just before this begins. So it is to be called again after it,
    whatever happens::

        finally:
            try:
                undo(close)
            finally:
                undo(close)
    """
    with held_back():
        what()
