"""What a worker did instead of its work: its waits, from the hooks' events or from samples, and the spans that it recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parmagic.model.kinds import KIND, SAMPLED, SEEN, WAIT_KINDS
from parmagic.model.timeline import Lane, Slice


def slices(lane: Lane) -> list[Slice]:
    """Return a worker's recorded spans, and between them what it waited for while it was at work."""
    spans = [Slice(span.begin, span.end, span.kind) for span in lane.spans]
    if lane.at_work is None:
        return spans
    holes = sorted(spans, key=lambda span: span.begin)
    seen = _inside(_sampled(lane) if lane.tally is None else _measured(lane), *lane.at_work)
    return spans + [part for wait in seen for part in _without(wait, holes)]


def _measured(lane: Lane) -> Iterator[Slice]:
    """Yield the waits that the hooks recorded."""
    names = {total.object: total.name for total in lane.totals if total.name}
    for wait in lane.waits:
        kind = KIND[WAIT_KINDS[wait.kind]]
        name = names.get(wait.object, "") if wait.object else ""
        known = (kind.state, kind.name, wait.holder, wait.line, wait.object, name, bool(wait.with_gil))
        yield Slice(wait.begin * 1e-9, wait.end * 1e-9, *known)


def _sampled(lane: Lane) -> Iterator[Slice]:
    """Join consecutive samples of one state; a state lasts until halfway to the next sample."""
    at, states = lane.samples.at, lane.samples.states
    first = 0
    for place in range(1, len(at) + 1):
        if place < len(at) and states[place] == states[first]:
            continue
        begin = (at[first - 1] + at[first]) / 2 if first else at[0]
        end = (at[place - 1] + at[place]) / 2 if place < len(at) else at[-1]
        state = SAMPLED.get(SEEN[states[first]])
        if state is not None and end > begin:
            yield Slice(begin, end, state, samples=place - first)
        first = place


def _inside(waits: Iterable[Slice], low: float, high: float) -> Iterator[Slice]:
    """Cut waits to a range; what lies outside is left out."""
    return (_cut(wait, max(wait.begin, low), min(wait.end, high)) for wait in waits if wait.begin <= high and wait.end >= low)


def _without(wait: Slice, holes: Sequence[Slice]) -> list[Slice]:
    """Cut recorded spans, in the order of their begins, out of a wait."""
    begin, end = wait.begin, wait.end
    parts = []
    for hole in holes:
        if hole.begin > begin:
            parts.append(_cut(wait, begin, min(hole.begin, end)))
        begin = max(begin, hole.end)
        if begin >= end:
            break
    if begin < end:
        parts.append(_cut(wait, begin, end))
    return [part for part in parts if part.end > part.begin]


def _cut(wait: Slice, begin: float, end: float) -> Slice:
    return wait if (begin, end) == (wait.begin, wait.end) else wait._replace(begin=begin, end=end)
