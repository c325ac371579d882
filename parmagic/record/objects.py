"""What a body calls the things that it waits for: its locks and queues, by their addresses.

A hooked wait knows an address: of what a lock is made of, of the object whose
method was called, or, without a GIL, of the list that several threads change. Names
are looked up once, when a worker ends, among what the body reads: ``lock``,
``forks[2]``, ``account.lock``.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from parmagic.model.classes import attributes_of, module_of
from parmagic.model.private import Private, joined, public
from parmagic.system.gil import FREE_THREADED
from parmagic.system.real import Lock, RLock

MOST = 10_000
"""No more things than these are looked at: it is done while a user waits."""

DEEPEST = 2
"""``pool.accounts[3]`` is two steps from its name."""

LOCKS = (type(Lock()), type(RLock()))

_FIRST_FIELD = object.__basicsize__
_OWN_LOCK = struct.calcsize("PH") if FREE_THREADED else None
"""Where an object's own lock lies in it (``ob_mutex``), on free-threaded builds: what changes it waits for that."""

_FEW = 1 << 12
"""No address is as small."""

_LIBRARIES = ("threading", "queue", "_queue", "multiprocessing.", "concurrent.futures.", "_multiprocessing")


class Known(NamedTuple):
    """What the body calls a thing, and what a wait for it is where that is no plain lock.

    ``kind`` is ``queue`` for a queue in C, which waits like a lock, and ``object``
    for the lock that every object has on free-threaded builds.
    """

    name: str
    kind: str | None


def names(function: Any) -> dict[int, Known]:
    """Return what ``function`` calls the things that it reads, by each address that a wait can have."""
    found: dict[int, Known] = {}
    level = list(_read(function))
    for depth in range(DEEPEST + 1):
        below: list[tuple[str, Any]] = []
        for name, value in level[:MOST]:
            for address in _addresses(value):
                found.setdefault(address, Known(name, "queue" if module_of(type(value)) == "_queue" else None))
            if _OWN_LOCK is not None:
                found.setdefault(id(value) + _OWN_LOCK, Known(name, "object"))
            if depth < DEEPEST and len(below) < MOST:
                below += _parts(name, value)
        level = below
    return found


def _read(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names that a function's code reads from around it, and their values."""
    function = function.__func__ if type(function) is MethodType else function
    if type(function) is not FunctionType:
        return
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # nothing has been bound to it yet
    around = function.__globals__
    for name in dict.fromkeys(_global_names(code)):
        if name in around:
            yield name, around[name]


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lies in a thing, with its name; no code of the user's runs for that."""
    kind = type(value)
    if kind is list or kind is tuple:
        for place, each in enumerate(value[:MOST]):
            yield joined(name, f"[{place}]"), each
    elif kind is dict:
        for key, each in list(value.items())[:MOST]:
            yield Private(f"{name}[{key!r}]", f"{public(name)}[…]") if type(key) in {str, int} else name, each
    elif not issubclass(kind, (type, ModuleType)) and not callable(value):
        ours = _in_library(kind)
        attributes = attributes_of(value)
        for attribute, each in list(attributes.items()) if type(attributes) is dict else ():
            # the parts of a Condition are what the user knows as the Condition
            yield name if ours else joined(name, f".{attribute}"), each


def _in_library(kind: type) -> bool:
    return module_of(kind).startswith(_LIBRARIES)


def _addresses(value: Any) -> Iterator[int]:
    """Yield the addresses by which a wait may know a thing."""
    kind = type(value)
    if any(kind is lock for lock in LOCKS) or module_of(kind) == "_queue":
        yield id(value) + _FIRST_FIELD  # where threads park since some 3.13
        if sys.version_info < (3, 14):
            # before, it was a PyThread_type_lock: a pointer to a sem_t
            semaphore = ctypes.c_void_p.from_address(id(value) + _FIRST_FIELD).value
            if semaphore is not None and semaphore > _FEW:  # else it was a lock's state
                yield semaphore
    elif module_of(kind) == "_multiprocessing" and kind.__name__ == "SemLock":
        yield int(value.handle)
    elif _in_library(kind):
        yield id(value)
