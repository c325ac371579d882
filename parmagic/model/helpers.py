"""What threads of libraries used beside an arm's workers."""

from __future__ import annotations

from dataclasses import dataclass

from parmagic.model.sent import sent


@sent
@dataclass(frozen=True, slots=True)
class Helpers:
    """What threads that a library began used of the cores in an arm, beside the workers of one process.

    ``library`` is empty for what threads used that nobody knows any more, as they have ended. ``cpu_s`` is their CPU time,
    ``queue_s`` what they stood in a run queue, as far as that is known.
    """

    library: str
    cpu_s: float
    queue_s: float = 0.0


def called(library: str) -> str:
    """Return what is waited for by who waits for a library's threads."""
    return f"helper threads of {library}"


def within(helpers: str) -> str:
    """Return what such a wait is for where the library has no threads: by what :func:`called` has made of its name."""
    return f"a lock inside {helpers.removeprefix(called(''))}"
