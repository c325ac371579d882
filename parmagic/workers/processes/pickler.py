"""How anything is pickled on its way between the notebook and its workers, in either direction: whole, and the same."""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any

import cloudpickle
from tblib.pickling_support import pickle_traceback

from parmagic.model.words import as_origin
from parmagic.workers.processes import by_value, raised, tensors

_EVERYBODYS = (
    *(("sys", name) for name in ("stdout", "stderr", "__stdout__", "__stderr__")),
    ("os", "environ"), ("random", "_inst"), ("numpy.random.mtrand", "_rand"),
)  # fmt: skip
"""What each process has of its own, whatever is in it: streams, the environment, the generators behind functions of modules."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends by value what other processes do not find by its name, and by name what is one of a kind in every process."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._told: dict[int, BaseException] = {}
        self._everybodys: dict[int, tuple[str, str]] | None = None  # most of what is sent is plain, and never asks for it
        self.tensors = tensors.kinds()
        self._ones: dict[type, dict[int, tuple[str, str]]] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Take an object apart; NotImplemented leaves it to pickle."""
        kind = type(obj)
        if issubclass(kind, BaseException):
            return raised.reduced(obj, self._told)
        if kind is CodeType:
            return marshal.loads, (marshal.dumps(obj),)  # cloudpickle 3.1.3 forgets the file, which tracebacks need
        if kind is TracebackType:
            return pickle_traceback(obj)
        if self.tensors and issubclass(kind, self.tensors):
            return tensors.reduced(obj)
        place = self.place(obj)
        if place is not None:
            return _found, place
        if kind is io.TextIOWrapper:
            raise pickle.PicklingError("it is an open file, of which others would have a copy that stays as it is")
        origin = as_origin(obj)
        if origin is not NotImplemented:
            return origin
        own = by_value.reduced(obj)
        return by_value.as_defined(obj, super().reducer_override(obj)) if own is NotImplemented else own

    def place(self, obj: Any) -> tuple[str, str] | None:
        """Return the module and the name by which every process has this very object; None where it has not."""
        if self._everybodys is None:
            self._everybodys = dict(_everybodys())
        found = self._everybodys.get(id(obj))
        if found is not None:
            return found
        kind = type(obj)
        if kind not in self._ones:
            self._ones[kind] = _ones_of(kind)
        return self._ones[kind].get(id(obj)) if self._ones[kind] else None


def _everybodys() -> list[tuple[int, tuple[str, str]]]:
    modules = [(sys.modules.get(module), module, name) for module, name in _EVERYBODYS]
    return [(id(one), (module, name)) for found, module, name in reversed(modules) if (one := getattr(found, name, None)) is not None]


def _ones_of(kind: type) -> dict[int, tuple[str, str]]:
    """Return where objects of a type stand in modules: marks such as ``dataclasses.MISSING``, which are nothing but themselves."""
    if kind is not object and ({kind.__reduce_ex__, kind.__reduce__} != _PLAIN or kind.__module__ in {"__main__", "builtins"}):
        return {}
    modules = list(sys.modules.items()) if kind is object else [(kind.__module__, sys.modules.get(kind.__module__))]
    main = sys.modules.get("__main__")
    spaces = [(name, list(vars(each).items())) for name, each in modules if type(each) is ModuleType and each is not main]
    held = ((each, module, name) for module, space in spaces for name, each in space if type(each) is kind)
    return {id(each): (module, name) for each, module, name in held if object.__getstate__(each) is None}


_PLAIN = {object.__reduce_ex__, object.__reduce__}


def _found(module: str, name: str) -> Any:
    """Return what a module has by that name, here."""
    __import__(module)
    return getattr(sys.modules[module], name)
