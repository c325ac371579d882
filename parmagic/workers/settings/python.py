"""Settings of the interpreter and of its standard library."""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]
import _socket
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import warnings
from types import FunctionType
from typing import Any

from parmagic.system.real import set_handler
from parmagic.workers.settings.setting import ALWAYS, Setting, of, pair

_OF_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_OF_DIALECTS = ("delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace", "strict")


def _decimal() -> tuple[Any, ...]:
    context = of("decimal", "getcontext")()
    traps = sorted(signal.__name__ for signal, is_set in context.traps.items() if is_set)
    return *(getattr(context, name) for name in _OF_DECIMAL), tuple(traps)


def _set_decimal(wanted: tuple[Any, ...]) -> None:
    """Have a context of that kind, and not the notebook's own, whose flags it would share."""
    *values, traps = wanted
    named = dict(zip(_OF_DECIMAL, values, strict=True))
    of("decimal", "setcontext")(of("decimal", "Context")(**named, flags=[], traps=[of("decimal", trap) for trap in traps]))


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def _stack_size() -> int:
    threading.stack_size(size := threading.stack_size())  # which has set it to 0
    return size


def _start_method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def _time_zone() -> tuple[Any, ...]:
    return time.timezone, time.altzone, time.daylight, time.tzname


def _set_time_zone(_: Any) -> None:
    if hasattr(time, "tzset"):
        time.tzset()  # by TZ, which is the notebook's


def _collecting() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _set_collecting(wanted: tuple[bool, tuple[int, int, int]]) -> None:
    enabled, thresholds = wanted
    gc.set_threshold(*thresholds)
    (gc.enable if enabled else gc.disable)()


def _traced() -> int:
    return of("tracemalloc", "get_traceback_limit")() if of("tracemalloc", "is_tracing")() else 0


def _set_traced(frames: int) -> None:
    of("tracemalloc", "stop")()
    if frames:
        of("tracemalloc", "start")(frames)


def _dialects() -> dict[str, dict[str, Any]]:
    known = ((name, of("csv", "get_dialect")(name)) for name in of("csv", "list_dialects")())
    return {name: {each: getattr(dialect, each) for each in _OF_DIALECTS} for name, dialect in known}


def _set_dialects(wanted: dict[str, dict[str, Any]]) -> None:
    for name in set(of("csv", "list_dialects")()) - wanted.keys():
        of("csv", "unregister_dialect")(name)
    for name, dialect in wanted.items():
        of("csv", "register_dialect")(name, **dialect)


def _set_traceback_limit(limit: int | None) -> None:
    if limit is not None:
        sys.tracebacklimit = limit
    elif hasattr(sys, "tracebacklimit"):
        del sys.tracebacklimit


def _write_no_bytecode(wanted: bool) -> None:
    sys.dont_write_bytecode = wanted


_HANDLED = [number for name in ("SIGALRM", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGPROF", "SIGHUP", "SIGTERM")
            if (number := getattr(signal, name, None))]  # fmt: skip


def _handlers() -> dict[int, Any]:
    """Return the notebook's own handlers of signals; SIGINT's is for the notebook."""
    found = ((int(number), _signal.getsignal(number)) for number in _HANDLED)
    return {number: handler for number, handler in found if type(handler) is FunctionType and handler.__module__ == "__main__"}


def _set_handlers(wanted: dict[int, Any]) -> None:
    for number, handler in wanted.items():
        set_handler(number, handler)


_LIBRARYS = frozenset({"warnings", "_py_warnings", "logging"})


def _shows() -> tuple[Any, Any]:
    """Return the functions that show warnings, where they are not the library's."""
    found = warnings.showwarning, warnings.formatwarning
    return tuple(None if getattr(each, "__module__", "warnings") in _LIBRARYS else each for each in found)  # type: ignore[return-value]


def _set_shows(wanted: tuple[Any, Any]) -> None:
    show, form = wanted
    warnings.showwarning = show or warnings._showwarning_orig  # type: ignore[attr-defined]  # noqa: SLF001
    warnings.formatwarning = form or warnings._formatwarning_orig  # type: ignore[attr-defined]  # noqa: SLF001


class _Named:
    """Stands for all classes of a name where a filter has a class: it need not be imported yet, or is the notebook's."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.__qualname__ = self.__name__ = name

    def __subclasscheck__(self, kind: type) -> bool:
        return any((each.__module__, each.__qualname__) == (self.__module__, self.__qualname__) for each in kind.__mro__)


def _filters_now() -> list[Any]:
    find: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)
    return list(find())


def _filters() -> list[tuple[Any, ...]]:
    """Return the filters of warnings, written in plain values."""
    now = _filters_now()
    if now != _written[0]:
        _written[:] = now, [(a, _text(m), (k.__module__, k.__qualname__), _text(w), line) for a, m, k, w, line in now]
    return _written[1]


_written: list[list[Any]] = [[], []]  # they are the same run after run


def _text(pattern: Any) -> Any:
    return (pattern.pattern, pattern.flags) if isinstance(pattern, (re.Pattern, _Pattern)) else pattern


def _set_filters(wanted: list[tuple[Any, ...]]) -> None:
    known = {_text(pattern): pattern for each in _filters_now() for pattern in (each[1], each[3])}
    read = [(action, _pattern(text, known), _category(*kind), _pattern(where, known), line) for action, text, kind, where, line in wanted]
    if hasattr(warnings, "_filters_mutated"):
        warnings.filters[:] = read  # type: ignore[index]
        warnings._filters_mutated()  # noqa: SLF001
        return
    warnings.resetwarnings()
    for each in read:
        warnings._add_filter(*each, append=True)  # type: ignore[attr-defined]  # noqa: SLF001


def _pattern(text: Any, known: dict[Any, Any]) -> Any:
    return known[text] if text in known else _Pattern(*text) if isinstance(text, tuple) else text


class _Pattern:
    """A pattern that is compiled when a warning is first compared with it, as most never are: each takes 0.1 ms of a worker's start."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern = pattern
        self.flags = flags

    def match(self, text: str) -> re.Match[str] | None:
        """Match as the pattern does."""
        return re.compile(self.pattern, self.flags).match(text)

    def __eq__(self, other: object) -> bool:
        return bool(_text(self) == _text(other))

    def __hash__(self) -> int:
        return hash(re.compile(self.pattern, self.flags))  # that of what it equals

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return re.compile, (self.pattern, self.flags)


def _category(module: str, name: str) -> Any:
    """Return a warning's class, or what stands for it."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and module != "__main__" else _Named(module, name)


SETTINGS = (
    pair("sys", "getrecursionlimit", "setrecursionlimit", 1000),
    Setting("sys.setswitchinterval", "sys", lambda: round(sys.getswitchinterval(), 5), sys.setswitchinterval, 0.005),
    pair("sys", "get_int_max_str_digits", "set_int_max_str_digits", 4300),
    Setting("sys.tracebacklimit", "sys", lambda: getattr(sys, "tracebacklimit", None), _set_traceback_limit, None),
    Setting("sys.dont_write_bytecode", "sys", lambda: sys.dont_write_bytecode, _write_no_bytecode, ALWAYS),
    Setting("warnings.filters", "sys", _filters, _set_filters, ALWAYS),
    Setting("warnings.showwarning", "sys", _shows, _set_shows, (None, None)),
    Setting("gc", "gc", _collecting, _set_collecting, ALWAYS),
    Setting("os.umask", "os", _umask, os.umask, ALWAYS),
    Setting("locale.setlocale", "_locale", lambda: _locale.setlocale(_locale.LC_ALL),
            lambda wanted: _locale.setlocale(_locale.LC_ALL, wanted), ALWAYS),
    Setting("time.tzset", "time", _time_zone, _set_time_zone, ALWAYS),
    Setting("signal.signal", "signal", _handlers, _set_handlers, {}),
    Setting("threading.stack_size", "threading", _stack_size, threading.stack_size, 0),
    Setting("socket.setdefaulttimeout", "_socket", _socket.getdefaulttimeout, _socket.setdefaulttimeout, None),
    Setting("multiprocessing.set_start_method", "multiprocessing", _start_method,
            lambda wanted: multiprocessing.set_start_method(wanted, force=True), None),
    Setting("decimal.setcontext", "decimal", _decimal, _set_decimal, ALWAYS, of_thread=True),
    pair("csv", "field_size_limit", "field_size_limit", 131072),
    Setting("csv.register_dialect", "csv", _dialects, _set_dialects, ALWAYS),
    Setting("tracemalloc.start", "tracemalloc", _traced, _set_traced, 0),
)  # fmt: skip
