"""What is logged, and where to: levels, filters and handlers of all loggers.

In a process, a plain handler that prints writes to the worker's own stream. All others stay in the notebook, where
files, sockets and lists are: what comes to them in a worker is sent home, and handled there.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from parmagic.model.progress import Logged
from parmagic.workers.output import below
from parmagic.workers.settings.setting import Setting


class _Logger(NamedTuple):
    """What a logger does: ``handlers`` are plain ones to print by, (stream, level, format …), or those at home, (id, level)."""

    level: int
    propagate: bool
    disabled: bool
    handlers: tuple[tuple[Any, ...], ...]


def _new(name: str) -> _Logger:
    return _Logger(logging.NOTSET if name else logging.WARNING, True, False, ())


_at_home: weakref.WeakValueDictionary[int, logging.Handler] = weakref.WeakValueDictionary()
_STYLES = {"%": logging.PercentStyle, "{": logging.StrFormatStyle, "$": logging.StringTemplateStyle}
_send: Callable[[int, logging.LogRecord], object] | None = None


def sends(send: Callable[[int, logging.LogRecord], object]) -> None:
    """From now on, send records home by this function, which takes a handler's id."""
    global _send  # noqa: PLW0603  (handlers have no other way to find it)
    _send = send


def handle(logged: Logged) -> None:
    """In the notebook: have a handler deal with a worker's record, as if it had been logged here."""
    handler = _at_home.get(logged.handler)
    if handler is None:
        return
    fields = logged.fields
    with suppress(Exception):  # code of the user's, which may not be able to read here what it wrote there
        fields = pickle.loads(logged.whole) if logged.whole else fields
    record = logging.makeLogRecord(fields)
    try:
        handler.handle(record)
    except Exception:  # noqa: BLE001  (in plain Python, too, it would be no error of the run's)
        handler.handleError(record)


class _Home(logging.Handler):
    """Stands for a handler of the notebook's."""

    def __init__(self, number: int, level: int) -> None:
        super().__init__(level)
        self._number = number
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record home; a process that the body has started has no way there, and prints it."""
        try:
            if _send is not None and os.getpid() == self._process:
                _send(self._number, record)
            else:
                print(logging.Formatter(logging.BASIC_FORMAT).format(record), file=sys.stderr)  # noqa: T201  (its only way)
        except Exception:  # noqa: BLE001  (as all handlers)
            self.handleError(record)


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    """Yield all loggers that were set in some way, by name; the root's is empty."""
    yield "", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (logger.level or logger.handlers or logger.disabled or not logger.propagate):
            yield name, logger


def _read() -> dict[str, tuple[Any, ...]]:
    found = ((name, (each.level, each.propagate, each.disabled, tuple(_handlers(each)))) for name, each in _loggers())
    return {name: what for name, what in found if what != _new(name)}


def _handlers(logger: logging.Logger) -> Iterator[tuple[Any, ...]]:
    for handler in logger.handlers:
        if type(handler) is not logging.NullHandler:
            yield _plain(handler) or _stays(handler)


def _stays(handler: logging.Handler) -> tuple[int, int]:
    _at_home[id(handler)] = handler
    return id(handler), handler.level


_FIELDS, _FORMATS = frozenset(vars(logging.StreamHandler())), frozenset(vars(logging.Formatter()))


def _plain(handler: logging.Handler) -> tuple[Any, ...] | None:
    """Return what it takes to make such a handler in a worker: one that prints, with nothing of the user's in it; else None."""
    form = handler.formatter
    if type(handler) is not logging.StreamHandler or handler.filters or not vars(handler).keys() <= _FIELDS:
        return None
    stream = next((name for name in ("stderr", "stdout") for each in (getattr(sys, name), getattr(sys, f"__{name}__"))
                   if below(each) is below(handler.stream)), "")  # fmt: skip
    if form is None:
        return (stream, handler.level) if stream else None
    style = next((sign for sign, kind in _STYLES.items() if type(form._style) is kind), "")  # noqa: SLF001
    if not stream or not style or type(form) is not logging.Formatter or not vars(form).keys() <= _FORMATS or form._style._defaults:  # type: ignore[attr-defined]  # noqa: SLF001
        return None
    return stream, handler.level, form._fmt, form.datefmt, style  # noqa: SLF001


def _apply(wanted: dict[str, tuple[Any, ...]]) -> None:
    for name, logger in _loggers():
        if name not in wanted:
            _set(logger, _new(name))
    for name, what in wanted.items():
        _set(logging.getLogger(name or None), _Logger(*what))


def _set(logger: logging.Logger, wanted: _Logger) -> None:
    quiet = [handler for handler in logger.handlers if type(handler) is logging.NullHandler]
    logger.handlers[:] = [*quiet, *(_made(*what) for what in wanted.handlers)]
    logger.propagate, logger.disabled = wanted.propagate, wanted.disabled
    logger.setLevel(wanted.level)


def _made(where: int | str, level: int, *form: Any) -> logging.Handler:
    if isinstance(where, int):
        return _Home(where, level)
    handler = logging.StreamHandler(getattr(sys, where))
    handler.setLevel(level)
    if form:
        handler.setFormatter(logging.Formatter(*form))
    return handler


def _filters() -> dict[str, list[Any]]:
    named = (("", logging.root), *logging.root.manager.loggerDict.items())
    return {name: list(logger.filters) for name, logger in named if isinstance(logger, logging.Logger) and logger.filters}


def _set_filters(wanted: dict[str, list[Any]]) -> None:
    for name in _filters().keys() | wanted.keys():
        logging.getLogger(name or None).filters[:] = wanted.get(name, ())


def _level_names() -> dict[int, str]:
    return {level: name for level, name in logging._levelToName.items() if _FIRST_NAMES.get(level) != name}  # noqa: SLF001


_FIRST_NAMES = dict(zip((50, 40, 30, 20, 10, 0), ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET"), strict=True))


def _name_levels(wanted: dict[int, str]) -> None:
    for level, name in wanted.items():
        logging.addLevelName(level, name)


def _captures() -> bool:
    return logging._warnings_showwarning is not None  # type: ignore[attr-defined]  # noqa: SLF001


SETTINGS = (
    Setting("logging levels and handlers", "logging", _read, _apply, {}),
    Setting("logging filters", "logging", _filters, _set_filters, {}),
    Setting("logging.disable", "logging", lambda: logging.root.manager.disable, logging.disable, 0),
    Setting("logging.addLevelName", "logging", _level_names, _name_levels, {}),
    Setting("logging.captureWarnings", "logging", _captures, logging.captureWarnings, False),
    Setting("logging.setLogRecordFactory", "logging", logging.getLogRecordFactory, logging.setLogRecordFactory, logging.LogRecord),
)
