"""The ways to run a body, for tests of what holds in all of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Case = TypeVar("Case")

MODELS = ["serial", "threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork"]


def spread(ways: Collection[str], cases: Collection[Case], *spawned: Case) -> list[tuple[str, Case]]:
    """Return each case in each way, but in new interpreters ``spawned`` alone: these take a second to begin, and do then what a process of the server's does."""
    assert set(spawned) <= set(cases)
    return [(way, case) for way in ways for case in (spawned if "spawn" in way else cases)]
