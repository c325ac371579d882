"""Syntax errors as IPython shows them, without frames of ours: it shows all frames of such an error that a magic raises."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

_NAME = "showsyntaxerror"


class _Shows:
    """Stands for a shell's method, and shows less."""

    def __init__(self, shell: Any) -> None:
        self._shows = getattr(shell, _NAME)

    def __call__(self, filename: str | None = None, running_compiled_code: bool = False) -> Any:
        trace = sys.exc_info()[2]
        ours = trace is not None and _without_ours(trace)
        return self._shows(filename, running_compiled_code=running_compiled_code and not ours)


def _without_ours(trace: TracebackType) -> bool:
    """Take our frames out of a traceback, but for its first one; tell whether the last one was ours: the cell's text is at fault."""
    last = _is_ours(trace)
    while trace.tb_next is not None:
        last = _is_ours(trace.tb_next)
        if last:
            trace.tb_next = trace.tb_next.tb_next
        else:
            trace = trace.tb_next
    return last


def _is_ours(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith("parmagic.")


def begin(shell: Any) -> None:
    """Have a shell show them so."""
    if type(vars(shell).get(_NAME)) is not _Shows:
        setattr(shell, _NAME, _Shows(shell))


def end(shell: Any) -> None:
    """Have it show them as before, where nobody has changed that since."""
    if type(vars(shell).get(_NAME)) is _Shows:
        shown = vars(shell)[_NAME]._shows  # noqa: SLF001  (ours)
        delattr(shell, _NAME)
        if getattr(shell, _NAME) != shown:  # somebody had put one there before
            setattr(shell, _NAME, shown)
