"""Locks that workers took in different orders: a circle in which they did not wait for each other, and could."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from parmagic.analyze.called import at, who
from parmagic.errors import Deadlock
from parmagic.model.finding import Finding
from parmagic.model.private import say
from parmagic.model.sources import library_of, short
from parmagic.model.taken import NOWHERE, SHARED, Order
from parmagic.model.timeline import Lane, Timeline

RULE = "lock_order"

_MOST = 3
"""Circles that are named of an arm."""

_STARTS, _TRIES = 500, 10_000
"""Steps from which on a circle is looked for, and ways to have them made by others, that are tried at most."""

_ALIKE = 8
"""Ways to take the same two locks that are told apart."""


_PROCESS = 64
"""Where the number of the process begins in that of a lock which is its own."""


class _Step(NamedTuple):
    """A step of a lane's from one lock to another."""

    lane: Lane
    order: Order


_Graph = dict[int, dict[int, list[_Step]]]


def could_deadlock(timelines: Iterable[Timeline]) -> Iterator[Finding]:
    """Yield in which orders workers took locks that could have ended in a deadlock; not where one did, and once for all arms."""
    noted = set[frozenset[tuple[object, ...]]]()
    for timeline in timelines:
        if not any(lane.synced.orders for lane in (*timeline.lanes, *timeline.children)):
            continue
        if any(issubclass(type(error), Deadlock) for error in (timeline.error, *timeline.errors.values())):
            continue
        named = 0
        for circle in _circles(timeline):
            key = frozenset((step.order.names, step.order.places) for step in circle)
            if key not in noted and named < _MOST:
                noted.add(key)
                named += 1
                yield Finding(RULE, _words(circle), timeline.arm.label, "warning", {"locks": len(circle)})


def _circles(timeline: Timeline) -> Iterator[list[_Step]]:
    """Yield one circle of each set of locks from each of which orders lead to all others, where one of them can happen."""
    graph = _graph([*timeline.lanes, *timeline.children])
    workers = Counter(lane.worker.pid for lane in timeline.lanes)
    for part in _entangled(graph):
        circle = _circle(graph, part, workers)
        if circle:
            yield circle


def _graph(lanes: Iterable[Lane]) -> _Graph:
    graph: _Graph = {}
    for lane in lanes:
        for each in lane.synced.orders:
            order = _of_all(each, lane.worker.pid)
            alike = graph.setdefault(order.first, {}).setdefault(order.second, [])
            graph.setdefault(order.second, {})
            if len(alike) < _ALIKE or all(step.lane is not lane for step in alike):
                alike.append(_Step(lane, order))
    return graph


def _of_all(order: Order, pid: int) -> Order:
    """Return an order with numbers that no other lock of any process has."""
    first, second, *gates = (_number(each, pid) for each in (order.first, order.second, *order.gates))
    return replace(order, first=first, second=second, gates=frozenset(gates))


def _number(number: int, pid: int) -> int:
    return number if number >> SHARED else number | pid << _PROCESS


def _is_own(order: Order) -> bool:
    """Tell whether one of these locks is a process's own."""
    return max(order.first, order.second) >> _PROCESS > 0


def _entangled(graph: Mapping[int, Mapping[int, object]]) -> Iterator[set[int]]:
    """Yield the strongly connected components of more than one lock (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting = set[int]()
    for root in graph:
        path = [] if root in index else [(root, iter(graph[root]))]
        while path:
            node, successors = path[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                waiting.add(node)
            for other in successors:
                if other not in index:
                    path.append((other, iter(graph[other])))
                    break
                if other in waiting:
                    low[node] = min(low[node], index[other])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == index[node]:
                    part = set(stack[stack.index(node) :])
                    del stack[stack.index(node) :]
                    waiting -= part
                    if len(part) > 1:
                        yield part


def _circle(graph: _Graph, part: set[int], workers: Mapping[int, int]) -> list[_Step]:
    """Return the shortest circle in a part that can happen, of those that are the shortest through some step; none where none can."""
    steps = islice(((first, second) for first in part for second in graph[first] if second in part), _STARTS)
    ways = (_way(graph, part, second, first) for first, second in steps)
    for way in sorted({_from_least(way) for way in ways}, key=lambda way: (len(way), way)):
        hops = [graph[first][second] for first, second in zip(way, (*way[1:], way[0]), strict=True)]
        circle = _chosen(hops, workers)
        if circle:
            return circle
    return []


def _chosen(hops: Sequence[Sequence[_Step]], workers: Mapping[int, int]) -> list[_Step]:
    """Return a step for each hop, so that all can be halfway at the same time; none where none are found in so many tries."""
    chosen, choices = list[_Step](), [iter(hops[0])]
    for _ in range(_TRIES):
        step = next(choices[-1], None)
        if step is None:
            choices.pop()
            if not choices:
                break
            chosen.pop()
        elif all(_side_by_side(step, other) for other in chosen):
            chosen.append(step)
            if len(chosen) < len(hops):
                at = len(chosen) % len(hops[len(chosen)])  # who did the one before is likely not to be who does this one
                choices.append(iter((*hops[len(chosen)][at:], *hops[len(chosen)][:at])))
            elif _are_several(chosen, workers):
                return chosen
            else:
                chosen.pop()
    return []


def _way(graph: _Graph, part: set[int], begin: int, end: int) -> tuple[int, ...]:
    """Return the shortest way from a lock to another one: breadth first."""
    before, waiting = {begin: begin}, deque([begin])
    while end not in before:
        node = waiting.popleft()
        for other in graph[node]:
            if other in part and other not in before:
                before[other] = node
                waiting.append(other)
    way = [end]
    while way[-1] != begin:
        way.append(before[way[-1]])
    return tuple(reversed(way))


def _from_least(way: tuple[int, ...]) -> tuple[int, ...]:
    """Return a circle as it is told from others: begun at its least number."""
    at = way.index(min(way))
    return (*way[at:], *way[:at])


def _are_several(circle: Sequence[_Step], workers: Mapping[int, int]) -> bool:
    """Tell whether there are as many threads as it takes, and not one that did it all; what libraries do among themselves is theirs.

    What one worker did another one could have done, as all run the same body; with a process's own locks, one of that process.
    """
    by_workers = [step for step in circle if step.lane.child is None]
    if len({id(step.lane) for step in circle}) == 1 or len(by_workers) > sum(workers.values()):
        return False
    own = Counter(step.lane.worker.pid for step in by_workers if _is_own(step.order))
    if any(n > workers[pid] for pid, n in own.items()):
        return False
    return not all(library_of(place[0]) for step in circle for place in step.order.places)


def _side_by_side(one: _Step, other: _Step) -> bool:
    """Tell whether two steps can be halfway at the same time: no lock is held around both, and no start and no join is between them."""
    if not _has(one.order).isdisjoint(_has(other.order)):
        return False
    if one.lane is other.lane:
        return one.lane.child is None
    if one.lane.worker.rank != other.lane.worker.rank:
        return True
    return not (one.order.alone or other.order.alone) and _meets(one, other.lane) and _meets(other, one.lane)


def _has(order: Order) -> frozenset[int]:
    return order.gates | {order.first}


def _meets(step: _Step, lane: Lane) -> bool:
    """Tell whether who made a step was there while this thread was; a worker, who is there always, whether it made it then."""
    child, own = lane.child, step.lane.child
    if child is None:
        return True
    begin, end = (step.order.begin, step.order.end) if own is None else (own.begin, own.end)
    return end >= child.begin and (child.goes_on or begin <= child.end)


def _words(circle: Sequence[_Step]) -> str:
    first = min(range(len(circle)), key=lambda place: circle[place].lane.worker.rank)
    circle = [*circle[first:], *circle[:first]]
    files = {place[0] for step in circle for place in step.order.places}
    said = [_said(step, same_cell=len(files) == 1 and short(next(iter(files))).startswith("In[")) for step in circle]
    template = "Could deadlock, did not this time: " + "; ".join(f"{{step_{n}}}" for n in range(len(said))) + ". Use one order."
    return say(template, **{f"step_{n}": each for n, each in enumerate(said)})


def _said(step: _Step, *, same_cell: bool) -> str:
    order, (one, other) = step.order, (_at(place, same_cell=same_cell) for place in step.order.places)
    first, second = map(_called, order.names, order.made)
    text = "{who} took {first}{one}, then {second}{other}"
    return say(text, who=who(step.lane), first=first or "a lock", one=one, second=second or "another", other=other)


def _called(name: str, made: tuple[str, int]) -> str:
    """Name a lock, or say where it was made; empty where nothing is known."""
    return say("`{name}`", name=name) if name else say("a lock made at {place}", place=at(made)) if made != NOWHERE else ""


def _at(place: tuple[str, int], *, same_cell: bool) -> str:
    file, line = place
    if not file or not line:
        return ""
    return f" (line {line})" if same_cell else say(" ({file}:{line})", file=short(file), line=line)
