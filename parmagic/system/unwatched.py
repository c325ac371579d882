"""A call during which no debugger stops the calling thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from parmagic.system.debugger import Unwatched
from parmagic.system.interrupts import undo

T = TypeVar("T")


def unwatched(call: Callable[..., T], *args: Any) -> T:
    """Call; a debugger that is attached does not stop this thread meanwhile, nor slow it.

    It stops all threads where one comes to a breakpoint: the one that listens to the workers has to go on, so that
    Ctrl-C and ``--timeout`` end them, and what they do is told. Threads that are started meanwhile are stopped as any others.
    """
    __tracebackhide__ = True
    watched = Unwatched()
    try:
        watched.begin()
        return call(*args)
    finally:
        try:
            undo(watched.end)
        finally:
            undo(watched.end)
