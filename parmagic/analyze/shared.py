"""What an arm's workers, and what their bodies started, did with things of one name: as tables have it, and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from math import nan
from typing import NamedTuple

from parmagic.analyze.called import called_as_asked
from parmagic.model.kinds import LOCKS
from parmagic.model.sources import short
from parmagic.model.taken import Level, Taken
from parmagic.model.timeline import Lane, Timeline
from parmagic.model.waits import Total, Wait

PUTS = frozenset({"put", "put_nowait", "send", "send_bytes"})
GETS = frozenset({"get", "get_nowait", "recv", "recv_bytes", "recv_bytes_into"})

_BESIDE = 0.01
"""Of less than this share of a worker's waits for a queue, it is no matter in which of its methods they were."""


Stretch = tuple[int, int]
"""From when until when, in nanoseconds on our clock."""


class Use(NamedTuple):
    """What one of them did with a thing in one of its methods."""

    lane: Lane
    taken: Taken


def by_name(timeline: Timeline) -> dict[str, list[Use]]:
    """Return what was done with things, by the names that the table has them under."""
    found: dict[str, list[Use]] = {}
    for lane in (*timeline.lanes, *timeline.children):
        for each in lane.synced.taken:
            found.setdefault(called_as_asked(each), []).append(Use(lane, each))
    return found


def by_lane(uses: Iterable[Use]) -> list[list[Use]]:
    """Return the same, of each worker by itself."""
    found: dict[int, list[Use]] = {}
    for use in uses:
        found.setdefault(id(use.lane), []).append(use)
    return [*found.values()]


def levels(uses: Iterable[Use]) -> list[Level]:
    """Return what was last known of each thing that has a level: each thread of a process tells of all its threads, until its own end."""
    last: dict[tuple[str, int, int], Level] = {}
    for lane, each in uses:
        key, level = (lane.worker.host, lane.worker.pid, each.object), each.level
        if level is not None and (key not in last or _known(level) > _known(last[key])):
            last[key] = level
    return [*last.values()]


def _known(level: Level) -> tuple[float, float]:
    return level.until, level.full_s + level.empty_s


def wait_s(uses: Iterable[Use], methods: frozenset[str] | None = None) -> float:
    """Return for how long things were waited for, in these methods or in all."""
    return sum(each.wait_s for _, each in uses if methods is None or each.method in methods)


def totals_of(mine: Sequence[Use]) -> list[Total]:
    """Return a worker's waits for the things that it used, by their places.

    Their objects are not always the things' own, but what these are made of: they go by the name, or without one by where the waits were.
    """
    lane = mine[0].lane
    objects, names = {each.object for _, each in mine}, {each.name for _, each in mine} - {""}
    unnamed = [each.waited for each in lane.synced.handoffs if each.object in objects and not names]
    places = {f"{short(file)}:{line}" for file, line in unnamed}
    return [
        total for total in lane.totals if total.kind in LOCKS and (total.object in objects or total.name in names or total.place in places)
    ]


def waits_of(mine: Sequence[Use]) -> list[Stretch]:
    """Return when a worker waited for the things that it used: begins and ends of its single waits, in nanoseconds."""
    objects = {each.object for _, each in mine} | {total.object for total in totals_of(mine)}
    return [(wait.begin, wait.end) for wait in mine[0].lane.waits if wait.object in objects and wait.object]


def full_s(uses: Sequence[Use]) -> float:
    """Return for how long at least one worker waited for room in a queue; NaN where that is not known."""
    known = levels(uses)
    return sum(level.full_s for level in known) if known else _somebody_waited_s(uses, PUTS, GETS)


def empty_s(uses: Sequence[Use]) -> float:
    """Return for how long at least one worker waited for something in a queue; NaN where that is not known."""
    known = levels(uses)
    return sum(level.empty_s for level in known) if known else _somebody_waited_s(uses, GETS, PUTS)


def _somebody_waited_s(uses: Sequence[Use], methods: frozenset[str], others: frozenset[str]) -> float:
    """Return for how long at least one waited in these methods, by single waits: of who also waited in others, these do not tell."""
    waits: list[Stretch] = []
    for mine in by_lane(uses):
        waited = wait_s(mine, methods)
        if waited and (mine[0].lane.waits.lost or wait_s(mine, others) > _BESIDE * waited):
            return nan
        waits += waits_of(mine) if waited else []
    return union_s(waits)


def union_s(stretches: Iterable[Stretch]) -> float:
    """Return for how many seconds at least one of these lasted."""
    total, until = 0, 0
    for begin, end in sorted(stretches):
        total += max(0, end - max(until, begin))
        until = max(until, end)
    return total * 1e-9


def side_by_side(lane: Lane, stretches: Sequence[Stretch]) -> Iterator[tuple[Wait, float]]:
    """Yield a worker's single waits that lay beside these, each with the seconds for which it did; these are in order, and apart."""
    first, last = 0, stretches[-1][1] if stretches else 0
    for wait in takewhile(lambda wait: wait.begin < last, lane.waits):
        while first < len(stretches) and stretches[first][1] <= wait.begin:
            first += 1
        near = takewhile(lambda stretch: stretch[0] < wait.end, islice(stretches, first, None))  # noqa: B023  (used at once)
        both = sum(min(wait.end, end) - max(wait.begin, begin) for begin, end in near)
        if both:
            yield wait, both * 1e-9
