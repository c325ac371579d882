"""What workers' bodies start themselves: how it counts where a verdict looks for what took the time, and what was left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from parmagic.errors import ItemTimeout
from parmagic.model.durations import seconds
from parmagic.model.finding import Finding
from parmagic.model.kinds import STATES, WAIT_KINDS
from parmagic.model.private import Private, public, say
from parmagic.model.timeline import Lane, Timeline

_THINGS = frozenset({"thread", "future"})
"""What a worker waits for that waits for what it started: their ends, or their results."""

_WORK = WAIT_KINDS.index("work")
_MOST_NAMED = 3

_POOL = "ThreadPoolExecutor-"
"""What the names of threads begin with that are a pool's, where it is not given others."""

_WORKS = 0.1
"""What is idle for all but this share of its life hands on the work of others."""

_ENOUGH = 0.5
"""Of less than this share of what was waited for, nothing is said."""

MUCH = 0.25
"""A share of time that is worth a word."""

_WORDS = {state.name: state.words for state in STATES}


def waited_s(timeline: Timeline) -> tuple[float, float]:
    """Return the seconds that an arm's workers waited for what their bodies had started: as lock waits, and as waits for a process."""
    kinds = {lane.child.kind for lane in timeline.children if lane.child}
    totals = [total for lane in timeline.lanes for total in lane.totals] if kinds else []
    as_locks = sum(total.total_s for total in totals if total.thing in _THINGS)
    return as_locks, sum(total.total_s for total in totals if total.kind == "child" and "process" in kinds)


def active_s(timeline: Timeline) -> dict[str, float]:
    """Return the seconds that what the bodies started was in each state; idle is none of them."""
    sums = dict.fromkeys(_WORDS, 0.0)
    for lane in timeline.children:
        for state, spent in _spent(timeline, lane).items():
            sums[state] += spent
    del sums["idle"]
    return sums


def words(timeline: Timeline) -> str:
    """Say what the bodies started, and what that did for most of its time: ``2 threads that its body starts (sleep 97%)``.

    Not where little is known of what was waited for: a program that took a process's place, say.
    """
    spent = active_s(timeline)
    state, known = max(spent, key=lambda name: spent[name]), sum(spent.values())
    most = f" ({_WORDS[state]} {spent[state] / known:.0%})" if known > _ENOUGH * sum(waited_s(timeline)) else ""
    return f"{_counted([lane for lane in timeline.children if _works(timeline, lane)] or timeline.children)} that its body starts{most}"


def advice(timeline: Timeline) -> str:
    """Say what to do where workers mostly wait for what their bodies started."""
    spent = active_s(timeline)
    if timeline.gil and spent["gil_wait"] > MUCH * sum(spent.values()):
        return "These share one GIL: let the body start processes, or do one part of the work itself, and have the line start workers."
    return "The body is parallel itself, so the serial run is, too: have it do one part of the work, and the line start workers."


def _works(timeline: Timeline, lane: Lane) -> bool:
    """Tell whether it does more than to hand on the work of others, as the threads within a pool do."""
    spent = _spent(timeline, lane)
    busy = sum(spent.values()) - spent["idle"]
    return busy > _WORKS * (busy + spent["idle"])


def _spent(timeline: Timeline, lane: Lane) -> dict[str, float]:
    from parmagic.analyze.ledger import ledger  # noqa: PLC0415  (NumPy loads when somebody looks)

    return {state: float(spent[0]) for state, spent in ledger(timeline, lane).shares([timeline.begin, timeline.end]).items()}


def _counted(lanes: Sequence[Lane]) -> str:
    """Count what was started: ``2 threads and 1 process``."""
    kinds = Counter(lane.child.kind for lane in lanes if lane.child)
    return " and ".join(f"{n} {kind}{'' if n == 1 else 'es' if kind.endswith('s') else 's'}" for kind, n in kinds.items())


def left_running(timeline: Timeline) -> Iterable[Finding]:
    """Yield which threads went on behind the last item, at work: what they did after that is in no figure."""
    lanes, label = _to_join(timeline), timeline.arm.label
    if lanes:
        text = "{label}: {names} still ran when the last item had ended. {join}"
        said = say(text, label=label, names=_named(lanes), join=_join(lanes))
        yield Finding("left_running", said, label, "warning", {"n_left": len(lanes)})


def left(timeline: Timeline) -> list[Lane]:
    """Return what went on behind the last item, and had work."""
    return [lane for lane in timeline.children if lane.child is not None and lane.child.goes_on and not _waits_for_work(lane)]


def _to_join(timeline: Timeline) -> list[Lane]:
    """Return what went on though nothing ended the body before its own end: it may well wait for that."""
    if timeline.error is not None:
        return []
    ended = {lane.worker.rank for lane in timeline.lanes if any(issubclass(type(error), ItemTimeout) for error in lane.errors.values())}
    return [lane for lane in left(timeline) if lane.worker.rank not in ended]


def _waits_for_work(lane: Lane) -> bool:
    """Tell whether it waited for work when it was looked at; where waits are inferred, whether it is a pool's, which likely did."""
    last, child = lane.waits.last, lane.child
    if child is None or lane.tally is None:
        return child is not None and child.name.startswith(_POOL)
    return last is not None and last.kind == _WORK and last.end * 1e-9 >= child.end - 1e-6


def _named(lanes: Sequence[Lane]) -> str:
    names = list(dict.fromkeys(lane.child.name for lane in lanes if lane.child))[:_MOST_NAMED]
    more = f" and {len(lanes) - len(names)} more" if len(lanes) > len(names) else ""
    return Private(", ".join(names) + more, ", ".join(map(public, names)) + more)


def _join(lanes: Sequence[Lane]) -> str:
    return f"Join {'it' if len(lanes) == 1 else 'them'} in the body, so that {'its' if len(lanes) == 1 else 'their'} work is measured."


def not_waited_for(timelines: Iterable[Timeline], serial_s: float) -> Finding | None:
    """Return that a body only starts threads, and does not wait for them, so that there is nothing to be told."""
    lanes = [lane for timeline in timelines for lane in _to_join(timeline)]
    if not lanes:
        return None
    text = "Nothing to tell: the body took {took}, and what it started ({names}) went on behind it. {join}"
    said = say(text, took=seconds(serial_s), names=_named(lanes), join=_join(lanes))
    return Finding("not_waited_for", said, severity="warning", evidence={"serial_s": serial_s, "n_left": len(lanes)})
