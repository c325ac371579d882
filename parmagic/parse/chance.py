"""Where the numbers of a body may come from, beside its items: chance, a clock, and who runs it. In another run, they are others."""

from __future__ import annotations

import random
from _thread import _local as local
from collections.abc import Iterable, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, MethodType, ModuleType
from typing import Any

from parmagic.model.classes import module_of
from parmagic.model.code import attributes_in, globals_of, imported_by

_CHANCE = frozenset({"random", "secrets", "uuid", "numpy.random"})
"""Modules of random numbers."""

_DRAWING = {"numpy": ("random",), "os": ("urandom", "getrandom"), "torch": ("rand", "randn", "randint", "randperm", "bernoulli", "normal")}
"""Modules that have such, by these names."""

_CLOCKS = frozenset(
    {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time"}
    | {"thread_time_ns", "now", "utcnow"}
)
"""Functions that tell the time."""

_WHO = frozenset({"get_ident", "get_native_id", "getpid"})
"""Functions that tell the thread or the process."""

_OF_A_WORKER = frozenset({"count", "model", "once", "rank"})
"""What a worker has that no item has."""


def draws(codes: Iterable[CodeType], space: Mapping[str, Any]) -> bool:
    """Tell whether code draws random numbers, as far as can be seen; ``worker.rng`` has the same ones in each run."""
    return any(_draws(code, space) for code in codes)


def asks_when_or_who(codes: Iterable[CodeType], space: Mapping[str, Any]) -> bool:
    """Tell whether code asks what time it is, or which thread it is in, as far as can be seen."""
    return any(attributes_in(code) & (_CLOCKS | _WHO) or any(_tells(space.get(name)) for name in globals_of(code)) for code in codes)


def has_a_share(codes: Sequence[CodeType], space: Mapping[str, Any]) -> bool:
    """Tell whether code does something once per worker or thread, or by its rank, as far as can be seen: a serial run has one of these."""
    of_a_worker = ("worker" in code.co_varnames and attributes_in(code) & _OF_A_WORKER for code in codes)
    of_a_thread = (issubclass(type(space.get(name)), local) for code in codes for name in globals_of(code))
    return any(of_a_worker) or any(of_a_thread)


def _draws(code: CodeType, space: Mapping[str, Any]) -> bool:
    values = [space.get(name) for name in globals_of(code)]
    modules = imported_by(code).union(str(vars(value).get("__name__")) for value in values if type(value) is ModuleType)
    has = attributes_in(code)
    if modules & _CHANCE or any(module in modules and has.intersection(names) for module, names in _DRAWING.items()):
        return True
    return any(_is_generator(each) or _is_generator(_owner(each)) for each in values)


def _owner(value: Any) -> Any:
    """Return what a method is of: ``random.randint`` is one of a generator that the module has."""
    return value.__self__ if type(value) is MethodType or type(value) is BuiltinFunctionType else None


def _is_generator(value: Any) -> bool:
    return issubclass(type(value), random.Random) or module_of(type(value)).startswith("numpy.random")


def _tells(value: Any) -> bool:
    known = {"time": _CLOCKS, "_thread": _WHO, "posix": _WHO, "nt": _WHO}
    return type(value) is BuiltinFunctionType and value.__name__ in known.get(value.__module__, ())
