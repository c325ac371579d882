"""How a worker process is asked to end before its items are done: by a SIGINT, which raises Ended in it, once.

Where only its item is over its time, that raises Overdue in the body, and the process ends when the body has let go.
So what its body has opened is closed on the way up, as in a thread. A SIGINT that nobody of ours has
sent does nothing, as before; nor does one in a process that the body has forked.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from parmagic.errors import Ended, Overdue
from parmagic.record.board import SINCE, STOP, Board, item_slot
from parmagic.system.real import set_handler

LATE = 75
"""The exit code of a worker whose item was over its time (``EX_TEMPFAIL``)."""

_asked = False


class Alarm:
    """Ends a try of an item in this process, and the process with it; ``leave`` is called before that."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._armed = False
        self.struck = False

    def begin(self) -> None:
        """From here on the try may be ended."""
        self._armed = True

    def end(self) -> bool:
        """From here on it is not; where it was, this process ends here."""
        self._armed = False
        if self.struck:
            self._end_process()
        return False

    def strike(self) -> None:
        """Raise in the body, once, where it runs."""
        if self._armed and not self.struck:
            self.struck = True
            raise Overdue

    def _end_process(self) -> None:
        try:
            self._leave()
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the body may have closed it, or put one of its own there
                    stream.flush()
        finally:
            os._exit(LATE)


def heed(board: Board, rank: int, leave: Callable[[], None]) -> Alarm:
    """In a worker: end when asked to, where the board says that the run is over, or that this worker's item is.

    Returns what ends a try of an item; ``leave`` is called where the process then ends.
    """
    me, place, alarm = os.getpid(), item_slot(rank) + SINCE, Alarm(leave)

    def strike(*_: object) -> None:
        global _asked  # noqa: PLW0603  (a signal's handler has nothing else to write to)
        if os.getpid() != me:
            return
        if board[place] < 0:
            alarm.strike()
        elif board[STOP] and not _asked:
            _asked = True
            raise Ended

    set_handler(signal.SIGINT, strike)
    return alarm


def is_asked() -> bool:
    """Tell whether this worker was asked to end."""
    return _asked
