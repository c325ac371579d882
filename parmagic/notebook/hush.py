"""Not to show a run that a magic returns, and to show all else (``-q``, and a closing semicolon)."""

from __future__ import annotations

import sys
from inspect import CO_NEWLOCALS
from opcode import opmap
from types import CodeType
from typing import Any

from IPython.core.displayhook import DisplayHook

from parmagic.system.real import get_ident


def hush(run: object) -> None:
    """Let the statement that is being run not show its value, where that is the run; it is ``_`` and ``Out[n]`` all the same."""
    if _is_shown():
        sys.displayhook = _Hushed(sys.displayhook, run)  # until it is called; at the latest, IPython takes it away with its own


class _Hushed:
    """A display hook that keeps quiet about one run, once."""

    def __init__(self, hook: Any, run: object) -> None:
        self._hook = hook
        self._run = run
        self._thread = get_ident()
        self._called = False

    def __call__(self, value: object) -> None:
        """Show anything else."""
        if self._called or get_ident() != self._thread:  # a cell of another thread shows something
            self._hook(value)
            return
        self._called = True
        if sys.displayhook is self:  # else a run of another thread is to be hushed as well
            sys.displayhook = self._hook
        if value is not self._run:
            self._hook(value)
        elif isinstance(self._hook, DisplayHook):
            self._hook.check_for_underscore()
            self._hook.update_user_ns(value)
            self._hook.fill_exec_result(value)


def _is_shown() -> bool:
    """Tell whether a statement that called us shows its value; a cell's last one does, by default."""
    frame = sys._getframe()  # noqa: SLF001
    while frame is not None:
        if not frame.f_code.co_flags & CO_NEWLOCALS and _shows(frame.f_code):  # a cell's; its name differs between IPythons
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _shows(code: CodeType) -> bool:
    """Tell whether code hands a value to the display hook: by an instruction of its own (up to Python 3.11), or by one of many (later)."""
    units = code.co_code
    place = units.find(_SHOW)
    while place % 2 and place >= 0:  # instructions begin at even places
        place = units.find(_SHOW, place + 1)
    return place >= 0


_INTRINSIC_PRINT = 1
_SHOW = bytes([opmap["PRINT_EXPR"]]) if "PRINT_EXPR" in opmap else bytes([opmap["CALL_INTRINSIC_1"], _INTRINSIC_PRINT])
