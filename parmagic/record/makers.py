"""What ``worker.once`` knows a ``make`` by: what stays the same while the body makes the function anew at each item.

Functions are known by their code, wherever they stand: as such, in a partial, as a method, or in what another one closes over.
All else that they bring along, by closures, defaults and arguments, must be the same at every call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Hashable, Iterator
from types import BuiltinMethodType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from parmagic.model.classes import type_name

LOCAL = ".<locals>."

_PLAIN = (str, bytes, int, float, complex, bool, type(None))

_WAYS_OUT = "Give it a key (`key={name}`: one object for each), or leave `{name}` out of it."


class Maker:
    """One ``make``, as it was given: its code, hashable as ``known_by``, and what it has ``bound``, by names."""

    def __init__(self, make: Any, worker: object) -> None:
        self.label = label(make)
        self._worker = worker
        self._parts: list[Hashable] = []
        self._seen: set[int] = set()
        self.bound: list[tuple[str, Any]] = []
        self._closes_over: list[tuple[FunctionType, str, Any, bool]] = []
        self._look("", make)
        self.known_by = tuple(self._parts)

    def _look(self, name: str, value: Any) -> None:
        kind = type(value)
        if kind is FunctionType:
            self._look_into(value)
        elif kind is MethodType:
            self._look("", value.__func__)
            self._look("__self__", value.__self__)
        elif kind is functools.partial:
            self._parts.append(functools.partial)
            self._look("", value.func)
            for key, each in [*enumerate(value.args), *value.keywords.items()]:
                self._look(f"argument {key}", each)
        elif value is not self._worker:
            if not name:
                self._parts.append(label(value))
            self.bound.append((name or "make", value))

    def _look_into(self, function: FunctionType) -> None:
        code = function.__code__
        self._parts.append((code, code.co_filename, code.co_qualname, code.co_linetable))  # equal codes may stand at several places
        if id(function) in self._seen:  # it closes over itself
            return
        self._seen.add(id(function))
        for name, value, is_default in _brought_along(function):
            self._closes_over.append((function, name, value, is_default))
            self._look(name, value)

    def refuse_what_runs(self) -> None:
        """Raise ValueError where it brings along what a function that runs now has bound, which is another one at each call."""
        __tracebackhide__ = True  # IPython leaves such frames out
        running = _running()
        for function, name, value, is_default in self._closes_over:
            frames = [found for outer in _around(function.__qualname__) if (found := running.get((function.__code__.co_filename, outer)))]
            if value is self._worker or _is_lasting(value, running):
                continue
            if is_default and any(each.f_locals.get(name, _NOTHING) is value for each in frames):
                raise ValueError(self._refusal(f"has `{name}={name}` among its parameters", name))
            if not is_default and any(name not in each.f_code.co_freevars for each in frames):  # else it is bound around what runs
                raise ValueError(self._refusal(f"closes over `{name}`", name))
        for _, value in self.bound:
            if isinstance(value, type) and not _is_lasting(value, running):
                name = type_name_of(value).rpartition(".")[2]
                raise ValueError(f"worker.once: the class `{name}` is made anew at each item. Write it in a cell above, or give a key.")

    def _refusal(self, what: str, name: str) -> str:
        why = "which may be another one at each item: the first one's object would be returned to all."
        return f"worker.once: {self.label} {what}, {why} {_WAYS_OUT.format(name=name)}"

    def compare(self, other: Maker) -> None:
        """Raise ValueError where this one, of the same code, brings along what the ``other`` did not, which has made the object."""
        __tracebackhide__ = True
        for (name, value), (_, before) in zip(self.bound, other.bound, strict=False):
            if not _same(value, before):
                what = f"{self.label} is given here with another `{name}` than at the call that made the object"
                raise ValueError(f"worker.once: {what}, which would be returned all the same. Give it a key, one for each `{name}`.")


_NOTHING = object()


def label(make: Any) -> str:
    """Return what a ``make`` is called in sentences, with the line where it stands, if it is a function."""
    plain: Any = make
    while type(plain) in {functools.partial, MethodType}:
        plain = plain.func if type(plain) is functools.partial else plain.__func__
    if type(plain) is FunctionType:
        return f"`{plain.__code__.co_name}` (line {plain.__code__.co_firstlineno})"
    if isinstance(plain, (type, BuiltinMethodType)):
        return f"`{type_name_of(plain)}`"
    return f"the {type_name(plain)}"


def type_name_of(named: Any) -> str:
    """Return the name of a class or a function in C."""
    return str(type.__dict__["__qualname__"].__get__(named) if isinstance(named, type) else named.__qualname__)


def _running() -> dict[tuple[str, str], FrameType]:
    """Return the calls that this thread is in, as far as they are an item's, by their file and qualified name."""
    running = {}
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    while frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) != _LOOP:
        running[frame.f_code.co_filename, frame.f_code.co_qualname] = frame
        frame = frame.f_back
    return running


_LOOP = ("parmagic.record.items", "perform")
"""What calls the body; below it, in a fork, are the notebook's own."""


def _brought_along(function: FunctionType) -> Iterator[tuple[str, Any, bool]]:
    """Yield what a function closes over and its defaults: the name, the value, and whether it is a default."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents, False
        except ValueError:  # not bound as yet
            continue
    defaults = function.__defaults__ or ()
    code: CodeType = function.__code__
    names = code.co_varnames[: code.co_argcount]
    for name, value in [*zip(names[len(names) - len(defaults) :], defaults, strict=True), *(function.__kwdefaults__ or {}).items()]:
        yield name, value, True


def _around(qualname: str) -> Iterator[str]:
    """Yield the qualified names of the functions that something was written in."""
    while LOCAL in qualname:
        qualname = qualname.rpartition(LOCAL)[0]
        yield qualname


def _is_lasting(value: Any, running: dict[tuple[str, str], Any]) -> bool:
    """Tell whether a value is the same at each item: a module, a function (by its code), a class that no running function has made."""
    kind = type(value)
    if kind is FunctionType or kind is BuiltinMethodType or issubclass(kind, ModuleType):
        return True  # what a function closes over is looked at by itself
    if not issubclass(kind, type):
        return False
    outer = set(_around(type_name_of(value)))
    return not any(name in outer for _, name in running)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is tuple:
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) in _PLAIN and bool(one == other)
