"""Queues, locks, semaphores and barriers for which workers waited long: who was slow, what that one did meanwhile, and what helps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan
from typing import NamedTuple

from parmagic.analyze import shared
from parmagic.analyze.called import who
from parmagic.analyze.shared import GETS, PUTS, Stretch, Use
from parmagic.model.durations import seconds
from parmagic.model.finding import Finding
from parmagic.model.kinds import DELAYS, KIND, LOCKS, WAIT_KINDS
from parmagic.model.private import say
from parmagic.model.sources import library_of, spoken
from parmagic.model.taken import NOWHERE
from parmagic.model.timeline import Lane, Timeline

RULE = "bottleneck"

MUCH = 0.25
"""The share of the arm's wall time from which on it is said why one worker waited so long for a thing."""

BRIEF = 0.01
"""Seconds of waits that are not worth a word, whatever the share."""

MOST = 3
"""Things that are named of an arm, those first that were waited for longest."""

_MOST_OF = 0.5
_FEW = 0.1
"""Of the wall time, from which on a queue was full, or empty, at times; of others' waits, below which one does not wait itself."""

_ALIKE = 3.0
"""A queue is full and empty at times where neither took so many times as long as the other."""

_IN_USE = 0.7
"""The share of the cores from which on more workers at once would have none."""


_LOOKED_AT = 20_000
"""Single waits of a worker's that others are looked at beside: the first."""


class Cause(NamedTuple):
    """What somebody did for most of the time for which another one waited: in which state, and what that was, and where."""

    state: str
    words: str
    place: str


_AT_WORK = Cause("", "was at work", "")


def bottlenecks(timeline: Timeline) -> Iterator[Finding]:
    """Yield what workers waited for that somebody was slow with; nothing where that cost little, or where it is not known why."""
    for name, uses in _costly(timeline)[:MOST]:
        text = _words(timeline, name, uses)
        if text:
            share = _longest(uses) / timeline.wall_s
            said = say("{label}: {text}", label=timeline.arm.label, text=text)
            yield Finding(RULE, said, timeline.arm.label, "warning", {"share": share, "wait_s": shared.wait_s(uses)})


def is_told(name: str, arm: str, findings: Iterable[Finding]) -> bool:
    """Tell whether one of these findings says why a thing of this name was waited for."""
    return any(each.rule == RULE and each.arm == arm and each.text.startswith(f"{arm}: `{name}`") for each in findings)


def _costly(timeline: Timeline) -> list[tuple[str, list[Use]]]:
    """Return what a worker waited for during much of the time, and its uses, the longest first."""
    least = max(BRIEF, MUCH * timeline.wall_s)
    lanes = [*timeline.lanes, *timeline.children]
    if not any(sum(each.wait_s for each in lane.synced.taken) >= least for lane in lanes):
        return []
    found = [(_longest(uses), name, uses) for name, uses in shared.by_name(timeline).items() if _is_known(uses)]
    return [(name, uses) for longest, name, uses in sorted(found, key=lambda row: -row[0]) if longest >= least]


def _is_known(uses: Iterable[Use]) -> bool:
    """Tell whether a thing is the user's: it has a name, or the user's code has made it."""
    return any(each.name or (each.made != NOWHERE and not library_of(each.made[0])) for _, each in uses)


def _longest(uses: Iterable[Use]) -> float:
    return max(map(shared.wait_s, shared.by_lane(uses)))


def _words(timeline: Timeline, name: str, uses: Sequence[Use]) -> str:
    """Say what there is to say of one; nothing where that is nothing."""
    kind = next((each.thing for _, each in uses if each.thing), "lock")
    text = _SORTS[kind](timeline, uses) if kind in _SORTS else ""
    if not text:
        return ""
    of, capacity = next((each.of for _, each in uses if each.of), kind), _capacity(kind, uses)
    sort = "" if kind == "lock" else f" ({of} of {capacity})" if capacity else f" ({of})"
    shown = name if " made at " in name else say("`{name}`", name=name)
    return say("{shown}{sort}{text}", shown=shown, sort=sort, text=text)


def _queue(timeline: Timeline, uses: Sequence[Use]) -> str:
    """Say which side of a queue is slow, or that it is too short."""
    full, empty = (_at_least(uses, *sides) / timeline.wall_s for sides in ((shared.full_s, PUTS), (shared.empty_s, GETS)))
    puts, gets = (sum(each.n for _, each in uses if each.method in methods) for methods in (PUTS, GETS))
    moved = f": {puts:,} put, {gets:,} got"
    if min(full, empty) >= _FEW and max(full, empty) < _ALIKE * min(full, empty):
        return f"{moved}, full for {full:.0%} of the time, and empty for {empty:.0%}: a longer queue helps."
    if max(full, empty) < MUCH:
        return ""
    fed = full > empty
    waiters, others = (_who_uses(uses, methods) for methods in ((PUTS, GETS) if fed else (GETS, PUTS)))
    if not waiters or not others:
        return ""
    longest = max(waiters, key=lambda mine: shared.wait_s(mine, PUTS if fed else GETS))
    sort = "consumer" if fed else "producer"
    while_, cause = _meanwhile(longest, [mine[0].lane for mine in others if mine[0].lane is not longest[0].lane])
    slow = f"The {sort} is" if len(others) == 1 else f"The {sort}s are"
    was = f"{'full' if fed else 'empty'} for {max(full, empty):.0%} of the time"
    template = f"{moved}, {was}. {slow} the bottleneck: {{waited}}{{while_}}. {{helps}}"
    waited = _waited(longest, f" in {'put' if fed else 'get'}", PUTS if fed else GETS)
    return say(template, waited=waited, while_=while_, helps=_helps(timeline, cause, sort, alone=len(others) == 1))


def _at_least(uses: Sequence[Use], known: Callable[[Sequence[Use]], float], methods: frozenset[str]) -> float:
    """Return for how long a queue was full, or empty: where that is not known, for as long as one worker waited."""
    found = known(uses)
    return max(shared.wait_s(mine, methods) for mine in shared.by_lane(uses)) if isnan(found) else found


def _who_uses(uses: Iterable[Use], methods: frozenset[str]) -> list[list[Use]]:
    return [mine for mine in shared.by_lane(uses) if any(each.method in methods and each.n for _, each in mine)]


def _helps(timeline: Timeline, cause: Cause | None, sort: str, *, alone: bool) -> str:
    """Say what helps against a side of a queue that is slow."""
    if cause is not None and cause.state == "lock_wait":
        return f"Another {sort} would wait there, too, and a longer queue does not help."
    if cause is not None and not cause.state and not _cores_left(timeline):
        return f"A longer queue does not help, nor does another {sort}: no core is left for it, or no GIL."
    return f"{'Another' if alone else 'One more'} {sort} helps; a longer queue does not."


def _lock(timeline: Timeline, uses: Sequence[Use]) -> str:
    """Say who held a lock while asleep, or blocked otherwise."""
    hold, blocked = sum(each.hold_s for _, each in uses), sum(each.blocked_s for _, each in uses)
    if not blocked > _MOST_OF * hold:
        return ""
    lanes = shared.by_lane(uses)
    waiter = max(lanes, key=shared.wait_s)
    holder = max((mine for mine in lanes if mine is not waiter), key=_blocked_s, default=waiter)
    if holder is waiter or not shared.wait_s(waiter):
        return ""
    mine, place = _blocked_s(holder), _held_at(waiter, holder[0].lane)
    cause = _certainly(holder, mine)
    at = f" ({cause.place})" if cause.place and cause.place != place else ""
    template = (
        f" was held for {hold / timeline.wall_s:.0%} of the time: {{who}} had it{{place}} for {seconds(mine)} while {{did}}{{at}}, "
        f"and {{waited}}. {_INSTEAD.get(cause.state, 'Do that')} outside of it."
    )
    place = f" ({place})" if place else ""
    return say(template, who=who(holder[0].lane), place=place, did=cause.words, at=at, waited=_waited(waiter, " for it"))


def _blocked_s(mine: Iterable[Use]) -> float:
    return sum(each.blocked_s for _, each in mine)


_INSTEAD = {"sleep": "Sleep", "lock_wait": "Wait for that"}


def _certainly(holder: Sequence[Use], blocked_s: float) -> Cause:
    """Return what one did for most of the time for which it was blocked with a lock, as far as that is certain.

    At most all other waits of its own were that instead: what is left of the time was what it was.
    """
    own = {id(total) for total in shared.totals_of(holder)}
    totals = [total for total in holder[0].lane.totals if id(total) not in own and KIND[total.kind].state in _BLOCKED]
    everything = sum(total.total_s for total in totals)
    states: defaultdict[str, float] = defaultdict(float)
    for total in totals:
        states[KIND[total.kind].state] += total.total_s
    state = max(states, key=lambda each: states[each], default="")
    if not state or blocked_s - (everything - states[state]) < _MOST_OF * blocked_s:
        return Cause("", "asleep, in I/O, or waiting", "")
    most = max((total for total in totals if KIND[total.kind].state == state), key=lambda total: total.total_s)
    if blocked_s - (everything - most.total_s) < _MOST_OF * blocked_s:
        return Cause(state, _BLOCKED[state], "")
    return Cause(state, say("it waited for `{name}`", name=most.name) if most.name else _BLOCKED[state], _spoken(most.place))


_BLOCKED = {"sleep": "asleep", "io_wait": "in I/O", "lock_wait": "it waited for another lock"}


def _held_at(waiter: Sequence[Use], holder: Lane) -> str:
    """Return where one took what the other waited for, where that is known."""
    things, lane = {each.object for _, each in waiter}, waiter[0].lane
    here = lane.worker.pid == holder.worker.pid
    known = [
        each
        for each in lane.synced.handoffs
        if each.object in things and (each.serial in holder.synced.serials if here and each.serial else each.blocker == holder.worker.rank)
    ]
    best = max(known, key=lambda each: each.total_s, default=None)
    return spoken(*best.blocked) if best is not None and best.blocked[1] else ""


def _semaphore(timeline: Timeline, uses: Sequence[Use]) -> str:
    """Say that a semaphore is what keeps workers from working; not where it is a signal that others give, or no core is left."""
    lent = any(each.method == "__enter__" for _, each in uses) or any(each.hold_s for _, each in uses)
    in_use = shared.union_s(wait for mine in shared.by_lane(uses) for wait in shared.waits_of(mine)) / timeline.wall_s
    if not lent or in_use < MUCH or not _cores_left(timeline):
        return ""
    template = f": all of it was in use, and somebody waited, for {in_use:.0%} of the time; {{waited}}. {_HIGHER}"
    return say(template, waited=_waited(max(shared.by_lane(uses), key=shared.wait_s), ""))


def _barrier(_timeline: Timeline, uses: Sequence[Use]) -> str:
    """Say who comes to a barrier behind all others."""
    lanes = sorted(shared.by_lane(uses), key=shared.wait_s)
    if len(lanes) < 2 or not shared.wait_s(lanes[0]) < _FEW * shared.wait_s(lanes[1]):  # noqa: PLR2004  (there are others)
        return ""
    last, longest = lanes[0][0].lane, lanes[-1]
    while_, _ = _meanwhile(longest, [last])
    times = sum(each.n for _, each in longest if each.method == "wait")
    often = f" in {times} waits" if times > 1 else ""
    template = f": {{last}} comes last; {{waited}}{often}{{while_}}. Share the work out evenly, or wait there less often."
    return say(template, last=who(last), waited=_waited(longest, ""), while_=while_)


_HIGHER = "A higher one would help, if what it guards allows."

_SORTS: Mapping[str, Callable[[Timeline, Sequence[Use]], str]] = {
    "queue": _queue, "lock": _lock, "value": _lock, "array": _lock, "semaphore": _semaphore, "barrier": _barrier,
}  # fmt: skip


def _capacity(kind: str, uses: Sequence[Use]) -> int:
    """Return how much goes into a thing; 0 where that is not known, or has no end."""
    most = [level.high if isnan(level.capacity) and kind == "semaphore" else level.capacity for level in shared.levels(uses)]
    return int(max((each for each in most if isfinite(each)), default=0))


def _waited(mine: Sequence[Use], how: str, methods: frozenset[str] | None = None) -> str:
    """Say for how long one waited, and where it did most of that, if only these methods waited."""
    waited, everything = shared.wait_s(mine, methods), shared.wait_s(mine)
    most = max(shared.totals_of(mine), key=lambda total: total.total_s, default=None)
    place = f" ({_spoken(most.place)})" if most is not None and most.place and waited > _MOST_OF * everything else ""
    return say("{who} waited {waited}{how}{place}", who=who(mine[0].lane), waited=seconds(waited), how=how, place=place)


def _meanwhile(waiter: Sequence[Use], others: Sequence[Lane]) -> tuple[str, Cause | None]:
    """Say what one of these did for most of the time for which one waited; nothing where they did this and that."""
    waits = shared.waits_of(waiter)[:_LOOKED_AT]
    waited = shared.union_s(waits)
    best, longest = None, _MOST_OF * waited
    for lane in others:
        for cause, spent in _doing(lane, waits, waited):
            if spent >= longest:
                best, longest = (lane, cause), spent
    if best is None:
        return "", None
    lane, cause = best
    return say(" while {who} {did}{at}", who=who(lane), did=cause.words, at=cause.place and say(" at {place}", place=cause.place)), cause


def _doing(lane: Lane, waits: Sequence[Stretch], waited: float) -> Iterator[tuple[Cause, float]]:
    """Yield what one did while another one waited, and for how many seconds; all that was no wait but for the GIL or a core is work."""
    spent: defaultdict[tuple[str, str], defaultdict[tuple[str, int], float]] = defaultdict(lambda: defaultdict(float))
    for wait, both in shared.side_by_side(lane, waits):
        kind = WAIT_KINDS[wait.kind]
        name = next((total.name for total in lane.totals if total.object == wait.object and total.name), "") if kind in LOCKS else ""
        spent[KIND[kind].state, name][kind, wait.line] += both
    blocked = {key: sum(places.values()) for key, places in spent.items() if key[0] not in DELAYS}
    for (state, name), took in blocked.items():
        place = max(spent[state, name], key=lambda each: spent[state, name][each])
        at = _place(lane, *place) if spent[state, name][place] >= _MOST_OF * took else ""
        yield Cause(state, _did(state, name), at), took
    yield _AT_WORK, waited - sum(blocked.values())


def _did(state: str, name: str) -> str:
    if state == "lock_wait":
        return say("waited for `{name}`", name=name) if name else "waited for a lock"
    return {"sleep": "slept", "io_wait": "was in I/O"}.get(state, "waited for work")


def _place(lane: Lane, kind: str, line: int) -> str:
    """Return where one waited so on that line of the body, or outside of it."""
    most = max((total for total in lane.totals if (total.kind, total.line) == (kind, line)), key=lambda total: total.total_s, default=None)
    return _spoken(most.place) if most is not None and most.place else f"line {line}" if line else ""


def _spoken(place: str) -> str:
    """Write a place of the table of waits for a sentence, as ``spoken`` does."""
    return f"line {place.rpartition(':')[2]}" if place.startswith("In[") else place


def _cores_left(timeline: Timeline) -> bool:
    """Tell whether more workers at once would find a core, and the GIL where they share one, free."""
    tallies = [lane.tally for lane in (*timeline.lanes, *timeline.children) if lane.tally is not None]
    running, native = (sum(tally.seconds_in(state) for tally in tallies) / timeline.wall_s for state in ("running", "native"))
    one_gil = timeline.gil and timeline.arm.model.shares_gil
    cpus = timeline.cpus or float("inf")
    return running + native < _IN_USE * cpus and not (one_gil and running > _IN_USE)
