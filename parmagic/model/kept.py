"""What errors keep alive of ours.

An error has a traceback, each of its frames the frame that called it, and these
their variables: who keeps an error keeps all items of its run, what they were
packed into, and whoever held them. What is the user's stays, for a debugger.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from traceback import walk_tb
from types import FrameType

from parmagic.model.words import traceback_of

_OURS = ("parmagic.", "tblib.")  # tblib makes tracebacks that came from other processes anew, within our frames


def let_go(errors: Iterable[BaseException]) -> None:
    """Drop the variables of the frames of ours that have ended, and that errors keep by their tracebacks."""
    seen: set[FrameType] = set()
    for error in errors:
        for frame, _ in walk_tb(traceback_of(error)):
            caller: FrameType | None = frame
            while caller is not None and caller not in seen:
                seen.add(caller)
                if str(caller.f_globals.get("__name__")).startswith(_OURS):
                    with suppress(RuntimeError):  # it runs still
                        caller.clear()
                caller = caller.f_back
