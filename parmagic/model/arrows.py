"""Who made whom wait, one wait at a time, as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from parmagic.model.timeline import Lane


@dataclass(frozen=True, slots=True, eq=False)
class Arrow:
    """A wait of one worker, or of what its body started, that another one caused or ended; times are seconds on our clock.

    ``waiter`` waited from ``begin`` to ``end`` for ``thing``, at the place ``waited``; ``got``: not in vain. ``blocker`` had the thing
    when the wait began, and was at ``blocked`` then. ``waker`` let go of it, or woke the waiter, at the place ``woke`` and the time
    ``woken``. One of the two may be None: nobody is known to have done that. Places are empty where they are not known.
    """

    waiter: Lane
    begin: float
    end: float
    got: bool
    thing: str
    waited: str
    blocker: Lane | None
    blocked: str
    waker: Lane | None
    woke: str
    woken: float

    @property
    def source(self) -> Lane | None:
        """From whose lane it comes: of who let the waiter go, else of who had the thing; None where the wait was in vain."""
        return (self.waker or self.blocker) if self.got else None
