"""Who made whom wait, one wait at a time, as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from parmagic.model.timeline import Lane


@dataclass(frozen=True, slots=True, eq=False)
class Arrow:
    """A wait of one worker, or of what its body started, for what another one had, or was to do; times are seconds on our clock.

    ``waiter`` waited from ``begin`` to ``end`` for ``thing``, at the place ``waited``. ``blocker`` caused that: it had the thing when the
    wait began, and was at ``blocked`` then. ``waker`` ended it: it let go of the thing, or woke the waiter, at the place ``woke``
    and the time ``woken``; None where the wait was given up. Either may be None: not known. Places are empty where they are not known.
    """

    waiter: Lane
    begin: float
    end: float
    thing: str
    waited: str
    blocker: Lane | None
    blocked: str
    waker: Lane | None
    woke: str
    woken: float
