"""What a worker sends home, made so that it survives the way: exceptions with their tracebacks, values that cannot be pickled."""

from __future__ import annotations

import logging
from contextlib import suppress

from parmagic.errors import NotShippable
from parmagic.model import words
from parmagic.model.classes import long_type_name, type_name
from parmagic.model.progress import Logged
from parmagic.model.recording import Batch
from parmagic.workers.processes import home, raised


def give_up_on_values(batch: Batch) -> None:
    """Replace each value that cannot be pickled by an error that names its item."""
    for place, value in enumerate(batch.values):
        try:
            home.pack(value)
        except BaseException as error:  # noqa: BLE001  (it is reported)
            batch.values[place] = None
            item = batch.first + place
            batch.errors[item] = NotShippable(
                f"The result of item {item} (a {long_type_name(value)}) cannot be sent back from a process: {words.message(error)}. "
                "Return what is in it (a list, an array, a number), or use threads."
            )


def logged(rank: int, handler: int, record: logging.LogRecord) -> Logged:
    """Return what was logged, with all that the record has where that can be read in the notebook, and its text in any case."""
    fields, whole = dict(vars(record)), b""
    if not all(map(_is_plain, fields.values())):
        with suppress(Exception):  # something of the user's that cannot be pickled
            whole = bytes(home.pack(fields, beside=False).pickle)
        trace = record.exc_text or (record.exc_info and logging.Formatter().formatException(record.exc_info)) or None
        fields.update(msg=record.getMessage(), args=None, exc_info=None, exc_text=trace)
        fields = {name: value if _is_plain(value) else words.shown(value) for name, value in fields.items()}
    return Logged(rank, handler, fields, whole)


_PLAIN = frozenset({type(None), bool, bytes, float, int, str})


def _is_plain(value: object) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(type(each) in _PLAIN for each in value))


def portable(error: BaseException) -> BaseException:
    """Return an exception that survives the way home, its traceback included."""
    _shorten(error)
    try:
        home.unpack(home.pack(error))
    except BaseException as why:  # noqa: BLE001  (it is reported)
        said = f"{type_name(error)}: {words.message(error)}"
        return NotShippable(
            f"The body raised {said} (that exception itself cannot be sent back from a process: {words.message(why)})"
        ).with_traceback(words.traceback_of(error))
    return error


def _shorten(error: BaseException, keep: int = raised.LONGEST // 2) -> None:
    """Cut the middle out of very long tracebacks: pickle does not go that deep."""
    for each in words.linked(error):
        trace, links = words.traceback_of(each), []
        while trace is not None:
            links.append(trace)
            trace = trace.tb_next
        if len(links) > 2 * keep:
            links[keep - 1].tb_next = links[-keep]
