"""Arrows between lanes: from who let go of a thing, or had it, to who waited for that. Which of them a picture has room for, and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from parmagic.model.durations import seconds
from parmagic.render.figures import Drawn, clean, lane_name

if TYPE_CHECKING:
    from parmagic.model.arrows import Arrow
    from parmagic.model.timeline import Timeline
    from parmagic.render import View

WORTH = 0.01
"""The share of an arm's wall time that a wait takes at least, for its arrow to stand in a report."""

MOST = 24
"""Arrows of an arm in a report; of more, those of the longest waits."""

ALL_ARROWS = 60
"""Arrows in a report: each takes some 300 bytes."""


class Chosen(NamedTuple):
    """The arrows of an arm that are drawn, each with the rows that it comes from and goes to; and how many there would have been."""

    arrows: list[tuple[int, int, Arrow]]
    of: int


def chosen(view: View, timeline: Timeline, rows: Sequence[Drawn], most: int) -> Chosen:
    """Return the arrows between a picture's rows, of the longest waits."""
    row_of = {id(lane): place for place, row in enumerate(rows) for lane in row.lanes}
    found = [
        (row_of[id(arrow.source)], row_of[id(arrow.waiter)], arrow)
        for arrow in view.arrows(timeline)
        if id(arrow.source) in row_of and id(arrow.waiter) in row_of and timeline.begin <= arrow.end <= timeline.end
    ]
    between = [each for each in found if each[0] != each[1]]
    long = [each for each in between if each[2].end - each[2].begin >= WORTH * timeline.wall_s]
    return Chosen(long[:most], len(between))


def causes(arrow: Arrow) -> dict[str, str]:
    """Return who caused a wait and who ended it, and where these were."""
    told = {"blocked by": (arrow.blocker, arrow.blocked), "let go by": (arrow.waker, arrow.woke)}
    return {how: f"{lane_name(lane)}{_at(place)}" for how, (lane, place) in told.items() if lane is not None}


def words(arrow: Arrow) -> str:
    """Tell of a wait: whose, for how long, for what, who caused it, who ended it."""
    rest = ", ".join(f"{how} {who}" for how, who in causes(arrow).items())
    return f"{lane_name(arrow.waiter)} waited {seconds(arrow.end - arrow.begin)} for {clean(arrow.thing, 60)}{_at(arrow.waited)}: {rest}"


def _at(place: str) -> str:
    return f" ({clean(place, 60)})" if place else ""


def legend(found: Sequence[Chosen]) -> str:
    """Say what the arrows are, and how many are left out; empty where there are none."""
    drawn, every = sum(len(each.arrows) for each in found), sum(each.of for each in found)
    if not drawn:
        return ""
    left = "" if drawn == every else f" (the longest {drawn} of {every:,})"
    return f"from who had it, or woke, to who waited{left}"
