"""What ended a run, raised under the cell: the user's frames without ours, what helps, and the report first."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from IPython import version_info
from IPython.display import display

from parmagic.errors import ParmagicError
from parmagic.model import classes, words
from parmagic.model.plan import Plan
from parmagic.parse import body as door
from parmagic.parse.unsent import unsent_help
from parmagic.result import Run, study
from parmagic.system.interrupts import is_interrupt


def advise(error: BaseException | None, body: door.Body, names: Mapping[str, Any]) -> None:
    """Add to an error about a name what helps against it; ``names`` are the notebook's."""
    if error is None:
        return
    advice = None
    if issubclass(type(error), NameError):
        advice = door.unbound_help(error, body, names) or door.magic_help(error, body)
    advice = advice or unsent_help(error, body.reads | body.writes, names)
    if advice:
        words.add_note(error, advice)


def fail(run: Run, body: door.Body, plan: Plan) -> NoReturn:
    """Show the report, then raise what ended the run.

    The error keeps this frame and those of its callers, and the run keeps the error:
    whatever of the notebook's they held would live on, also when the notebook has let go of it.
    """
    __tracebackhide__ = True
    error = run.error
    assert error is not None
    ours = is_interrupt(error) or issubclass(type(error), ParmagicError)
    if ours and not _comes_from(error, body.filename):
        without_traceback(error)
    elif not words.is_readable(error):
        _with_plain_traceback(error)
    if not plan.quiet and study(run).timelines:
        display(run)
    if version_info < (8, 15):  # from there on, IPython prints the notes itself
        for note in words.notes_of(error):
            print(note, file=sys.stderr)  # noqa: T201  (under the cell)
    raise error


def without_traceback(error: BaseException) -> BaseException:
    """Have IPython show an error by its message alone: its frames are all ours, and tell the user nothing."""
    words.show_as(error, lambda: [f"{classes.type_name(error)}: {words.message(error)}".rstrip(": "), *words.notes_of(error)])
    BaseException.__setattr__(error, "__context__", None)
    return words.with_traceback(error, None)


def _with_plain_traceback(error: BaseException) -> None:
    """Have IPython show an error without asking it for its message, which may never come."""

    def lines() -> list[str]:
        trace = traceback.format_tb(words.traceback_of(error))
        return [*"".join(trace).splitlines(), words.describe(error, words.MOST), *words.notes_of(error)]

    words.show_as(error, lines)


def _comes_from(error: BaseException, filename: str) -> bool:
    """Tell whether a frame of that file is in an error's traceback."""
    return any(frame.f_code.co_filename == filename for frame, _ in traceback.walk_tb(words.traceback_of(error)))
