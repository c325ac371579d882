"""What can go wrong, in one place.

In: nothing. Out: exceptions. Everybody may import it.

::

    ParmagicError
    ├── LineError        the magic line cannot be read
    ├── CellError        the body cannot run as a parallel body
    ├── NotShippable     a name, an item or a result cannot cross a process border
    ├── WorkerDied       a worker process ended before its work did
    ├── LimitReached     the system refuses a file, a thread, a process, memory
    ├── RunTimeout       ``--timeout`` was reached
    └── ItemTimeout      an item took longer than ``--item-timeout`` allows

An exception that the body raises is not wrapped: it reaches the user as it is,
with a note that names the item, the worker and the arm.
"""

from __future__ import annotations

__all__ = [
    "CellError",
    "ItemTimeout",
    "LimitReached",
    "LineError",
    "NotShippable",
    "ParmagicError",
    "RunTimeout",
    "WorkerDied",
]


class ParmagicError(Exception):
    """Anything that parmagic itself refuses or reports."""


class LineError(ParmagicError):
    """The magic line cannot be read.

    ``line`` is the text after the magic's name, ``column`` the place (0-based
    offset into ``line``), ``expected`` what would have been right there.
    """

    def __init__(self, message: str, line: str = "", column: int = 0) -> None:
        self.message = message
        self.line = line
        self.column = column
        super().__init__(message)

    def __reduce__(self) -> tuple[type[LineError], tuple[str, str, int]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.message, self.line, self.column)

    def __str__(self) -> str:
        """Show the line and a caret under the place."""
        if not self.line:
            return self.message
        before = "".join(letter if letter == "\t" else " " for letter in self.line[: self.column])
        return f"{self.message}\n    {self.line}\n    {before}^"


class CellError(ParmagicError):
    """The body of the cell cannot run as a parallel body; nothing has run."""


class NoShell(CellError, NameError):
    """``get_ipython`` in a worker process, which has none.

    A NameError as well, for that is what libraries expect where there is no IPython.
    """


class NotShippable(ParmagicError):
    """A name, an item or a result cannot be sent to or from a process."""


class WorkerDied(ParmagicError):
    """A worker process ended before its work did."""


class LimitReached(ParmagicError):
    """The system grants no further file, thread, process or memory; the message says which limit that is."""


class RunTimeout(ParmagicError):
    """The run took longer than ``--timeout`` allows."""


class ItemTimeout(ParmagicError):
    """A try of an item took longer than ``--item-timeout`` allows."""


class Deadlock(ParmagicError):
    """Workers waited for each other in a circle: it says who had what since when, and wanted what."""


class Stuck(Deadlock):
    """All workers waited, for as long as it takes, and nobody was left to wake them: it says for what, and why that does not come."""


class Entangled(BaseException):
    """Raised in the waits of workers that wait for each other, so that the body lets go of all it has; the item fails with ``instead``."""

    instead: Deadlock | None = None

    def __str__(self) -> str:
        """Say what it was."""
        return str(self.instead)


class Overdue(BaseException):
    """Raised inside a worker whose item is over its time; the item fails with :class:`ItemTimeout`, whatever the body makes of this."""

    def __str__(self) -> str:
        """Say what whoever catches it sees."""
        return "the item is over its --item-timeout"


class Ended(BaseException):
    """Raised inside a worker thread to end it: the run is over."""

    def __str__(self) -> str:
        """Say what the item's row shows."""
        return "the run ended before this item did"


class EndedHeld(Ended, KeyboardInterrupt):
    """The same where a debugger holds the thread: it passes an interrupt on, and would print anything else."""
