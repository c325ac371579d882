"""What workers tell while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Printed:
    """Whole lines that worker ``rank`` printed to ``stdout`` or ``stderr``; ``lost`` bytes before are not shown."""

    rank: int
    stream: str
    text: str
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Displayed:
    """What worker ``rank`` displayed: a MIME bundle and its metadata."""

    rank: int
    data: dict[str, Any]
    metadata: dict[str, Any]


BEHIND = -1
"""In place of an item: the worker has done all of its own, and has not ended."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What worker ``rank`` logged for a handler that is in the notebook, which is known by its id.

    ``fields`` are the record's, as plain values; ``whole`` is a pickle of all of them, where some are not plain.
    """

    rank: int
    handler: int
    fields: dict[str, Any]
    whole: bytes = b""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an unfinished worker is doing while no item ends: its item, the line of the body (0: not known), in words.

    The item is :data:`BEHIND` where it has done all of its own.
    """

    rank: int
    item: int
    line: int
    doing: str


@dataclass(frozen=True, slots=True)
class InLine:
    """The job has not begun: what it needs is another run's, of this process."""


QUIET_FOR = 2.0
"""Seconds in which a run says nothing of itself: quick cells stay quiet."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A chance to look at what the workers that have an item are doing, each in words; nobody looks unless it is to be shown."""

    look: Callable[[], tuple[str, ...]]

    @property
    def doing(self) -> tuple[str, ...]:
        """Look now."""
        return self.look()
