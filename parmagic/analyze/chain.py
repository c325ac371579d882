"""The chain of waits that made the worker late which ended last: for what it waited, who had that, and what that one waited for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from parmagic.model.finding import Finding
from parmagic.model.private import Private, say
from parmagic.model.sources import spoken
from parmagic.model.taken import Handoff
from parmagic.model.things import THING
from parmagic.model.timeline import Lane, Timeline

MUCH = 0.25
"""The share of a worker's time from which on what it waited for is a link."""

LATE = 0.05
"""The share of the arm's wall time by which the last worker has to be later than all others."""

MOST = 3
"""Links that are told."""

_ASLEEP = 0.5
"""Who is blocked for more than this share of the time for which it holds a thing holds it while asleep, or in I/O."""


class Link(NamedTuple):
    """What a worker waited for most, in seconds and as a share of its time, and who had it."""

    waiter: int
    seconds: float
    share: float
    handoff: Handoff


def late(timeline: Timeline) -> Iterable[Finding]:
    """Yield the chain where one worker ended later than all others, and much of its time waited for one of them."""
    if not any(lane.synced.handoffs for lane in timeline.lanes):
        return
    ends = sorted((lane.at_work[1], lane.worker.rank) for lane in timeline.lanes if lane.at_work)
    if len(ends) < 2 or ends[-1][0] - ends[-2][0] < LATE * timeline.wall_s:  # noqa: PLR2004  (there are others)
        return
    lanes = {lane.worker.rank: lane for lane in timeline.lanes}
    links = chain(timeline, lanes, ends[-1][1])
    if not links:
        return
    first, label = links[0], timeline.arm.label
    rest = [_further(link, before, lanes) for before, link in pairwise(links)]
    words = Private("".join(str(each) for each in rest), "".join(each.public for each in rest))
    text = f"{{label}}: worker {first.waiter} ended last: {first.share:.0%} of its time it waited for {{first}}{{rest}}."
    said = say(text, label=label, first=_words(first, lanes), rest=words)
    yield Finding("late", said, label, "info", {"rank": first.waiter, "share": first.share, "links": len(links)})


def chain(timeline: Timeline, lanes: Mapping[int, Lane], rank: int) -> list[Link]:
    """Return what a worker waited for most, then what the one that had it waited for most, and so on; no worker twice."""
    links: list[Link] = []
    seen: set[int] = set()
    while len(links) < MOST and rank in lanes and rank not in seen:
        seen.add(rank)
        link = _most(timeline, lanes[rank])
        if link is None or link.share < MUCH:
            break
        links.append(link)
        rank = link.handoff.blocker
    return links


def _most(timeline: Timeline, lane: Lane) -> Link | None:
    sums: defaultdict[tuple[str, int, tuple[str, int]], float] = defaultdict(float)
    best: dict[tuple[str, int, tuple[str, int]], Handoff] = {}
    for each in lane.synced.handoffs:
        if each.blocker not in {lane.worker.rank, -1}:
            key = each.name or hex(each.object), each.blocker, each.blocked
            sums[key] += each.total_s
            best[key] = max(each, best.get(key, each), key=lambda handoff: handoff.total_s)
    if not sums or not lane.at_work:
        return None
    key = max(sums, key=lambda one: sums[one])
    return Link(lane.worker.rank, sums[key], sums[key] / (lane.at_work[1] - timeline.begin), best[key])


def _words(link: Link, lanes: Mapping[int, Lane]) -> Private:
    each = link.handoff
    sort = f"a {each.thing or 'lock'}"
    name = f"`{each.name}`" if each.name else sort
    held = THING[each.thing or "lock"].use in {"held", "lent"}
    had = "which worker {} held" if held else "until worker {} came"
    tail = f" ({spoken(*each.waited)}), {had.format(each.blocker)} at {spoken(*each.blocked)}{_asleep(each, lanes)}"
    return Private(f"{name}{tail}", f"{sort}{tail}")


def _further(link: Link, before: Link, lanes: Mapping[int, Lane]) -> Private:
    """Tell of a link; where it is for the thing that the one before was for, at the same place, only who was there before."""
    here, there = ((each.object, each.name, each.waited) for each in (link.handoff, before.handoff))
    if here == there:
        text = f"; worker {link.waiter} itself waited {link.share:.0%} of its time for it, behind worker {link.handoff.blocker}"
        return Private(text, text)
    words, begin = _words(link, lanes), f"; worker {link.waiter} itself waited {link.share:.0%} of its time for "
    return Private(f"{begin}{words}", f"{begin}{words.public}")


def _asleep(handoff: Handoff, lanes: Mapping[int, Lane]) -> str:
    """Say what the one that had the thing did meanwhile, as far as is known."""
    mine = [each for each in lanes[handoff.blocker].synced.taken if each.object == handoff.object] if handoff.blocker in lanes else []
    held, blocked = sum(each.hold_s for each in mine), sum(each.blocked_s for each in mine)
    return " while it was asleep, in I/O, or waiting" if blocked > _ASLEEP * held > 0 else ""
