"""The run in Chrome's Trace Event format, for Perfetto and vizviewer.

Each arm is a process of the trace, each worker three threads: its function
calls, its items, its waits. They are apart because Perfetto silently drops
slices of one thread that do not nest, and these three need not.

A trace may have millions of slices. It is written as it is made, a block of text
at a time; what is kept of all are arrays of numbers.

The format: "Trace Event Format", Duffy and Sinclair, 2016.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from parmagic.model.recording import Child
from parmagic.model.timeline import Calls, Lane, Slice, Timeline
from parmagic.render.figures import clean, error_words, lane_name, slice_words
from parmagic.render.flows import Threads, flows

if TYPE_CHECKING:
    from parmagic.render import View

class Row(NamedTuple):
    """The slices of one thread of the trace.

    Begins and ends are arrays of seconds. ``words`` returns, for an array of places, the name of each slice
    as JSON, and what follows in its text: its arguments, or nothing.
    """

    begins: Any
    ends: Any
    words: Callable[[Any], Iterable[tuple[str, str]]]


BLOCK = 10_000
"""Slices that are written at once."""

_CHILDREN, _BELOW = 500_000, 5
"""Where the threads' numbers begin of what bodies started, and where these stand below their worker."""

LEVEL = 3
"""How hard a trace is compressed: harder saves a few percent more, and takes a third longer."""


def pack(view: View, file: IO[bytes]) -> None:
    """Write the trace, compressed, to an open file."""
    with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
        packed.writelines(written(view))


def dumps(view: View) -> bytes:
    """Return the trace as JSON (ASCII)."""
    return b"".join(written(view))


def written(view: View) -> Iterator[bytes]:
    """Yield the trace as JSON (ASCII), in parts; its times are microseconds from the first arm's begin."""
    view = view.saved
    zero = view.timelines[0].begin if view.timelines else 0.0
    calls = dict(view.functions())
    arms = (_arm(view, number, timeline, calls.pop(number, []), zero) for number, timeline in enumerate(view.timelines))
    before = '{"traceEvents":['
    for events in chain.from_iterable(arms):
        yield (before + events).encode("ascii")
        before = ","
    rest = {
        "displayTimeUnit": "ms",
        "otherData": {
            "title": clean(view.title),
            "verdict": clean(view.verdict),
            "notes": [clean(note) for note in view.notes],
        },
    }
    yield f"{'' if before == ',' else before}],{_json(rest)[1:]}".encode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _arm(view: View, number: int, timeline: Timeline, calls: Sequence[Calls], zero: float) -> Iterator[str]:
    """Yield the events of an arm, as JSON, one or more at a time with commas between them."""
    pid = number + 1
    yield _meta("process_name", pid, 0, name=timeline.arm.label)
    yield _meta("process_sort_index", pid, 0, sort_index=number)
    yield from _children(view, timeline, pid, zero)
    for lane in timeline.lanes:
        rank = lane.worker.rank
        rows: tuple[tuple[str, str, Callable[[], Row]], ...] = (
            (_who(timeline, lane), "function", partial(_functions, [each for each in calls if each.rank == rank])),
            ("items", "item", partial(_items, lane)),
            ("waits", "wait", partial(_waits, view, lane)),
        )
        for place, (name, category, row) in enumerate(rows):
            # unique in the whole trace, and never the pid, which would be a main thread
            tid = 1_000_000 * pid + 10 * rank + place
            yield _meta("thread_name", pid, tid, name=f"worker {rank} · {name}")
            yield _meta("thread_sort_index", pid, tid, sort_index=10 * rank + place)
            if category == "function":
                yield from _begin_of_functions(timeline, rank, pid, tid, zero)
                yield from _gaps_in_functions(timeline, lane, pid, tid, zero)
            yield from _slices(_cut(row(), timeline.begin, timeline.end), f'"cat":"{category}","pid":{pid},"tid":{tid}', zero)
    yield from flows(view, timeline, _threads(timeline, pid, zero))


def _threads(timeline: Timeline, pid: int, zero: float) -> Threads:
    """Return in which threads of the trace the items and the waits of each lane are."""
    workers = {id(lane): 1_000_000 * pid + 10 * lane.worker.rank for lane in timeline.lanes}
    below = {id(lane): 1_000_000 * pid + _CHILDREN + place for place, lane in enumerate(timeline.children)}
    tids = {lane: (tid + 1, tid + 2) for lane, tid in workers.items()} | {lane: (tid, tid) for lane, tid in below.items()}
    return Threads(timeline, pid, tids, zero)


def _children(view: View, timeline: Timeline, pid: int, zero: float) -> Iterator[str]:
    """Yield the events of what workers' bodies started: a slice for each life, and its waits in that."""
    for place, lane in enumerate(timeline.children):
        if lane.child is None:
            continue
        tid = 1_000_000 * pid + _CHILDREN + place
        yield _meta("thread_name", pid, tid, name=lane_name(lane))
        yield _meta("thread_sort_index", pid, tid, sort_index=10 * lane.worker.rank + _BELOW)
        begin, end = max(lane.child.begin, timeline.begin), min(lane.child.end, timeline.end)
        for category, row in (("life", _life(lane.child)), ("wait", _waits(view, lane))):
            yield from _slices(_cut(row, begin, end), f'"cat":"{category}","pid":{pid},"tid":{tid}', zero)


def _life(child: Child) -> Row:
    words = _json(clean(child.name, 80)), _args({"kind": child.kind})
    return Row(np.array([child.begin]), np.array([child.end]), lambda some: [words] * len(some))


def _who(timeline: Timeline, lane: Lane) -> str:
    """Name the worker as the system does: a process by its pid, a thread by its tid."""
    worker = lane.worker
    return f"{timeline.arm.model.name} {worker.pid if timeline.arm.model.own_process else worker.tid}"


def _meta(what: str, pid: int, tid: int, **args: Any) -> str:
    return _json({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args})


def _begin_of_functions(timeline: Timeline, rank: int, pid: int, tid: int, zero: float) -> Iterator[str]:
    """Mark from when on all of a worker's calls are there, where the oldest are not."""
    for trace in timeline.traces:
        if trace.since is not None and rank in trace.workers.values():
            at = round((trace.since - zero) * 1e9) / 1e3
            known = {"name": "functions are complete from here on", "cat": "function", "pid": pid, "tid": tid, "ts": at}
            yield _json({"ph": "i", "s": "t", **known})


def _gaps_in_functions(timeline: Timeline, lane: Lane, pid: int, tid: int, zero: float) -> Iterator[str]:
    """Mark where functions were not recorded, and from when on they were again."""
    for gap in timeline.gaps(lane):
        for name, edge in zip(("functions are not recorded from here on", "functions are recorded again from here on"), gap, strict=True):
            known = {"name": name, "cat": "function", "pid": pid, "tid": tid, "ts": round((edge - zero) * 1e9) / 1e3}
            yield _json({"ph": "i", "s": "t", **known})


def _functions(calls: Sequence[Calls]) -> Row:
    """Return a worker's calls; one that was replaced after its death has two recordings."""
    names = [_json(clean(name, 300)) for each in calls for name in each.names]
    before = np.cumsum([0, *(len(each.names) for each in calls)])
    places = np.concatenate([each.places + shift for each, shift in zip(calls, before, strict=False)]) if calls else _NONE
    begins, ends = ([getattr(each, edge) for each in calls] or [_NONE] for edge in ("begins", "ends"))
    return Row(np.concatenate(begins), np.concatenate(ends), lambda some: [(names[place], "") for place in places[some].tolist()])


def _items(lane: Lane) -> Row:
    items, begins, ends = map(np.asarray, lane.items())
    errors = lane.errors

    def words(item: int) -> tuple[str, str]:
        known = {"error": error_words(errors[item])} if item in errors else {}
        return f'"item {item}"', _args({"item": item, **known})

    return Row(begins, ends, lambda some: map(words, items[some].tolist()))


def _waits(view: View, lane: Lane) -> Row:
    slices = view.slices(lane)
    begins, ends = (np.array([piece[edge] for piece in slices], dtype=float) for edge in (0, 1))

    told: dict[tuple[Any, ...], tuple[str, str]] = {}  # there are many slices, and few that differ

    def words(piece: Slice) -> tuple[str, str]:
        found = told.get(piece[2:])
        if found is None:
            name, known = slice_words(piece)
            found = told[piece[2:]] = _json(name), _args(known)
        return found

    return Row(begins, ends, lambda some: (words(slices[key]) for key in some.tolist()))


def _args(known: dict[str, Any]) -> str:
    return f',"args":{_json(known)}' if known else ""


_NONE = np.empty(0, dtype=int)


def _cut(row: Row, begin: float, end: float) -> Row:
    """Cut a row to its arm, or to a life; what lies outside is left out."""
    inside = np.flatnonzero((row.begins <= end) & (row.ends >= begin))
    begins, ends = np.maximum(row.begins[inside], begin), np.minimum(row.ends[inside], end)
    return Row(begins, ends, lambda some: row.words(inside[some]))


def nest(begins: Any, ends: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield slices in the order of their begins, the longest first, some at a time: their places, begins, and ends.

    Each end is cut to that of the slice that it begins in. Works on whole nanoseconds:
    rounding after the cut could make them overlap again.
    """
    order = np.lexsort((-ends, begins))
    open_ends: list[int] = []
    for first in range(0, len(order), BLOCK):
        some = order[first : first + BLOCK]
        cut = ends[some].tolist()
        for place, begin in enumerate(begins[some].tolist()):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            if open_ends and cut[place] > open_ends[-1]:
                cut[place] = open_ends[-1]
            open_ends.append(cut[place])
        yield some, begins[some], np.array(cut)


def _slices(row: Row, same: str, zero: float) -> Iterator[str]:
    """Yield the slices of a row as JSON, some at a time; ``same`` is what they have in common."""
    begins, ends = (np.rint((edges - zero) * 1e9).astype(np.int64) for edges in (row.begins, row.ends))
    for some, from_, to in nest(begins, np.maximum(begins, ends)):
        yield ",".join([
            f'{{"ph":"X","name":{name},{same},"ts":{at},"dur":{took}{args}}}'
            for at, took, (name, args) in zip(_microseconds(from_), _microseconds(to - from_), row.words(some), strict=True)
        ])


_FRACTIONS = [f".{thousandths:03d}".rstrip("0") if thousandths else ".0" for thousandths in range(1000)]


def _microseconds(nanoseconds: Any) -> list[str]:
    """Return microseconds as ``repr`` writes them, three times as fast; none is negative."""
    whole, rest = np.divmod(nanoseconds, 1000)
    return [f"{number}{_FRACTIONS[place]}" for number, place in zip(whole.tolist(), rest.tolist(), strict=True)]
