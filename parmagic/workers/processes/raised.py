"""Exceptions between our processes: they come home equal, with their fields, notes, traceback, causes and contexts.

An exception's own pickling keeps its ``args`` and ``__dict__``, calls ``__init__`` with the former, and goes
from cause to cause as deep as there are any. Here, its fields are set again one by one, whatever ``__init__``
asks for, and the first exception carries how all that hang together do so: a chain may be long, or bite its tail.
"""

from __future__ import annotations

import copyreg
import pickle
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

from parmagic.model import words

Link = tuple[BaseException, BaseException | None, BaseException | None, bool]
"""An exception, its cause, its context, and whether the context is not shown."""

_ARGS, _DICT, _TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESS = (
    vars(BaseException)[name] for name in ("args", "__dict__", "__traceback__", "__cause__", "__context__", "__suppress_context__")
)
_EXCEPTIONS, _MESSAGE = (vars(BaseExceptionGroup)[name] for name in ("exceptions", "message"))
_NOT_SENT = {_EXCEPTIONS, _MESSAGE, vars(AttributeError)["obj"]}
"""A group is made with the first two; ``obj`` may be anything, and Python does not pickle it either."""

LONGEST = 200
"""Frames of a traceback that are sent."""

_MADE_BY_CODE = 1 << 9
"""``Py_TPFLAGS_HEAPTYPE``: a class that was made at run time."""


def reduced(value: Any, told: dict[int, BaseException]) -> Any:
    """Return how a pickler between our processes takes an exception apart: for its ``reducer_override``.

    ``told`` are the exceptions whose links that pickler has noted already, for it to keep.
    """
    links: list[Link] = []
    if id(value) not in told:
        found = list(words.linked(value))
        told.update((id(each), each) for each in found)
        links = [(each, _CAUSE.__get__(each), _CONTEXT.__get__(each), _SUPPRESS.__get__(each)) for each in found]
    beside, own = (_short(_TRACEBACK.__get__(value)), links), _own_way(value)
    if isinstance(own, str):
        return own
    if own is not None:
        make, arguments, *rest = own
        state, items, pairs, setter = (*rest, None, None, None, None)[:4]
        return make, arguments, ((state, setter, dict.get(_DICT.__get__(value), "__notes__")), *beside), items, pairs, _restore_own
    fields = _ARGS.__get__(value), dict(_DICT.__get__(value)), _slots(value)
    return _bare, (type(value), *_needed(value)), (fields, *beside), None, None, _restore


def _short(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback, unless it is longer than pickle goes deep."""
    each, count = trace, 0
    while each is not None and count <= LONGEST:
        each, count = each.tb_next, count + 1
    return trace if each is None else None


def _own_way(error: BaseException) -> tuple[Any, ...] | str | None:
    """Return what an exception's own pickling is, where somebody wrote one for its class."""
    kind = type(error)
    registered = copyreg.dispatch_table.get(kind)
    if registered is not None:
        return registered(error)
    ways = {"__reduce__", "__reduce_ex__"}
    if any(base.__flags__ & _MADE_BY_CODE and ways & vars(base).keys() for base in kind.__mro__):
        return error.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return None


def _needed(error: BaseException) -> tuple[Any, ...]:
    """Return what an exception cannot be made without."""
    return (_MESSAGE.__get__(error), words.members_of(error)) if issubclass(type(error), BaseExceptionGroup) else ()


def _bare(kind: type[BaseException], *needed: Any) -> BaseException:
    """Return an exception without its fields; no code of its class runs."""
    base = next(each for each in kind.__mro__ if not each.__flags__ & _MADE_BY_CODE)
    made: BaseException = base.__new__(kind, *needed)
    return made


def _slots_of(kind: type) -> dict[str, Any]:
    """Return the fields that a class keeps beside ``__dict__``, in C or by ``__slots__``: their descriptors by name."""
    found: dict[str, Any] = {}
    for base in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for name, field in vars(base).items():
            if type(field) in {MemberDescriptorType, GetSetDescriptorType} and field not in _NOT_SENT and not name.startswith("__"):
                found.setdefault(name, field)
    return found


def _slots(error: BaseException) -> dict[str, Any]:
    """Return those fields; in C, None stands for one that is not set, and must not be."""
    values = {}
    for name, field in _slots_of(type(error)).items():
        with suppress(AttributeError):
            value = field.__get__(error)
            if value is not None or field.__objclass__.__flags__ & _MADE_BY_CODE:
                values[name] = value
    return values


def _restore(error: BaseException, state: Any) -> None:
    """Give a bare exception all that it had."""
    (arguments, space, values), trace, links = state
    _ARGS.__set__(error, arguments)
    dict.update(_DICT.__get__(error), space)
    fields = _slots_of(type(error))
    for name, value in values.items():
        fields[name].__set__(error, value)
    _join(error, trace, links)


def _restore_own(error: BaseException, state: Any) -> None:
    """Give an exception that was made in its own way what it had beside that."""
    (own, setter, notes), trace, links = state
    if own is not None:
        (setter or type(error).__setstate__)(error, own)
    if notes is not None:
        dict.__setitem__(_DICT.__get__(error), "__notes__", notes)
    _join(error, trace, links)


def _join(error: BaseException, trace: TracebackType | None, links: list[Link]) -> None:
    _TRACEBACK.__set__(error, trace)
    for each, cause, context, hidden in links:
        _CAUSE.__set__(each, cause)
        _CONTEXT.__set__(each, context)
        _SUPPRESS.__set__(each, hidden)
