"""The profile functions of threads, of which Python 3.11 has one for each: VizTracer's are taken away, all others are left alone."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import accumulate, chain, compress, repeat, takewhile, tee
from typing import Any

from parmagic.system.real import new_thread

_WORD = ctypes.sizeof(ctypes.c_void_p)
_WORDS = 24
"""How much of a thread's state is looked at, which is longer than that."""


def other(is_ours: Callable[[object], bool]) -> object:
    """Return the profile function of the calling thread, or of threads to come, that is not ours; None where there is none."""
    return next((each for each in (sys.getprofile(), threading.getprofile()) if each is not None and not is_ours(each)), None)


def aside(call: Callable[[], Any], is_ours: Callable[[object], bool]) -> None:
    """Call what sets or takes away VizTracer's profile function here and for threads to come, and leave both as they were, without ours.

    Where the calling thread has somebody else's, which cannot always be set again, that is called in a thread of its own.
    """
    here = sys.getprofile()
    if here is not None and not is_ours(here):
        thread = new_thread(aside, (call, lambda _: True), name="parmagic tracing")
        thread.start()
        thread.join()
        return
    to_come = threading.getprofile()
    try:
        call()
    finally:
        if threading.getprofile() is not to_come:
            threading.setprofile(to_come)
        sys.setprofile(None)


def unhook_all(ours: Iterable[object]) -> None:
    """Take these profile functions off every thread, also off those that run on.

    The states of threads are gone through within one call of C: between two lines of
    Python another thread may end, and free the state that comes next.
    """
    behind = offset()
    if behind is None:
        return  # whose they are cannot be seen
    interpreter, first, following, set_profile, read = _calls()
    states = takewhile(bool, accumulate(chain(map(first, (interpreter,)), repeat(0)), following))
    these, same = tee(states)
    found = map(read, map(behind.__add__, same), repeat(_WORD))
    is_ours = frozenset(id(each).to_bytes(_WORD, sys.byteorder) for each in ours).__contains__
    before = gc.isenabled()
    gc.disable()  # a finalizer is Python as well
    try:
        deque(map(set_profile, compress(these, map(is_ours, found)), repeat(None), repeat(None)), maxlen=0)
    finally:
        if before:
            gc.enable()


@functools.cache
def offset() -> int | None:
    """Return how many bytes behind the begin of a thread's state its profile function is; None where that is not to be found."""
    found: list[int] = []
    aside(lambda: found.extend(_places()), lambda _: False)
    return found[0] * _WORD if len(found) == 1 else None


def _places() -> list[int]:
    """Return which words of the calling thread's state hold its profile function."""
    known, state = object(), ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_Get", ctypes.pythonapi))()
    set_profile = _calls()[3]
    set_profile(state, None, id(known))  # without a function of C: nothing calls it
    try:
        words = (ctypes.c_void_p * _WORDS).from_address(state)
        return [place for place in range(_WORDS) if words[place] == id(known)]
    finally:
        set_profile(state, None, None)


@functools.cache
def _calls() -> tuple[int, Any, Any, Any, Any]:
    """Return the interpreter, and what C calls to go through the states of its threads, to set a profile function, and to read memory."""
    api, state, number = ctypes.pythonapi, ctypes.c_void_p, ctypes.c_int
    interpreter = ctypes.PYFUNCTYPE(state)(("PyInterpreterState_Get", api))()
    first = ctypes.PYFUNCTYPE(state, state)(("PyInterpreterState_ThreadHead", api))
    following = ctypes.PYFUNCTYPE(state, state, number)(("PyThreadState_Next", api))  # the number is accumulate's, and read by nobody
    set_profile = ctypes.PYFUNCTYPE(number, state, state, state)(("_PyEval_SetProfile", api))
    read = ctypes.PYFUNCTYPE(ctypes.py_object, state, ctypes.c_ssize_t)(("PyBytes_FromStringAndSize", api))
    return interpreter, first, following, set_profile, read
