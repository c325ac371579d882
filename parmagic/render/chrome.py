"""The run in Chrome's Trace Event format, for Perfetto and vizviewer; and saving to files.

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
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from parmagic.model.kinds import KIND, SAMPLED, SEEN, WAIT_KINDS
from parmagic.model.private import described
from parmagic.model.timeline import Calls, Lane, Timeline
from parmagic.render.figures import LOOKS, clean
from parmagic.system.interrupts import held_back, undo

if TYPE_CHECKING:
    from parmagic.render import View

Piece = tuple[float, float, str, dict[str, Any]]
"""A slice: begin and end in seconds, its name, its arguments."""


class Row(NamedTuple):
    """The slices of one thread of the trace.

    Begins and ends are arrays of seconds. ``words`` returns, for an array of places, the name of each slice
    as JSON, and what follows in its text: its arguments, or nothing.
    """

    begins: Any
    ends: Any
    words: Callable[[Any], Iterable[tuple[str, str]]]


SUFFIXES = (".html", ".json", ".json.gz")


BLOCK = 10_000
"""Slices that are written at once."""

LEVEL = 4
"""How hard a trace is compressed: harder saves a few percent more, and takes a quarter longer."""


def save(view: View, path: str | os.PathLike[str]) -> None:
    """Write the run to ``path``: a page (.html) or a trace (.json, .json.gz).

    The file is readable by its owner only, and is either whole or not there.
    Raises ValueError for any other suffix, OSError where it can't be written.
    """
    target = Path(path)
    name = target.name.lower()
    if name.endswith(".html"):
        from parmagic.render.page import page  # noqa: PLC0415  (the other suffixes do without)

        _write(target, (page(view).encode("utf-8"),))
    elif name.endswith(".json.gz"):
        with _whole(target) as file:
            pack(view, file)
    elif name.endswith(".json"):
        _write(target, written(view))
    else:
        raise ValueError(f"can't save to {target.name!r}: it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def save_page(path: str | os.PathLike[str], text: str) -> None:
    """Write a page to ``path`` in the same way; ValueError where that does not end in .html."""
    target = Path(path)
    if not target.name.lower().endswith(".html"):
        raise ValueError(f"can't save to {target.name!r}: it must end in .html")
    _write(target, (text.encode("utf-8"),))


def _write(target: Path, parts: Iterable[bytes]) -> None:
    with _whole(target) as file:
        file.writelines(parts)


def pack(view: View, file: IO[bytes]) -> None:
    """Write the trace, compressed, to an open file."""
    with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
        packed.writelines(written(view))


def _folder_of(target: Path) -> Path:
    """Return the folder of a file that is to be saved, whole: the working directory may be gone."""
    try:
        folder = target.parent.resolve(strict=True)
        if folder.is_dir():
            return folder
    except OSError:
        pass
    raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save {target.name!r} to")


@contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the target (0600, as mkstemp makes it), and move it there at the end: no reader sees half of it.

    Nothing of it is left where this is interrupted or fails.
    """
    folder = _folder_of(target)
    opened = ExitStack()
    try:
        with held_back():
            handle, temporary = tempfile.mkstemp(prefix=".parmagic-", dir=folder)
            opened.callback(Path(temporary).unlink, missing_ok=True)
            file = opened.enter_context(os.fdopen(handle, "wb"))
        yield file
        file.close()
        os.replace(temporary, target)  # noqa: PTH105  (the pair of mkstemp, which gives a str)
    finally:
        try:
            undo(opened.close)
        finally:
            undo(opened.close)


def dumps(view: View) -> bytes:
    """Return the trace as JSON (ASCII)."""
    return b"".join(written(view))


def written(view: View) -> Iterator[bytes]:
    """Yield the trace as JSON (ASCII), in parts; its times are microseconds from the first arm's begin."""
    view = view.saved
    zero = view.timelines[0].begin if view.timelines else 0.0
    calls = dict(view.functions())
    arms = (_arm(number, timeline, calls.pop(number, []), zero) for number, timeline in enumerate(view.timelines))
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


def _arm(number: int, timeline: Timeline, calls: Sequence[Calls], zero: float) -> Iterator[str]:
    """Yield the events of an arm, as JSON, one or more at a time with commas between them."""
    pid = number + 1
    yield _meta("process_name", pid, 0, name=timeline.arm.label)
    yield _meta("process_sort_index", pid, 0, sort_index=number)
    for lane in timeline.lanes:
        rank = lane.worker.rank
        rows: tuple[tuple[str, str, Callable[[], Row]], ...] = (
            (_who(timeline, lane), "function", partial(_functions, [each for each in calls if each.rank == rank])),
            ("items", "item", partial(_items, lane)),
            ("waits", "wait", partial(_waits, lane)),
        )
        for place, (name, category, row) in enumerate(rows):
            # unique in the whole trace, and never the pid, which would be a main thread
            tid = 1_000_000 * pid + 10 * rank + place
            yield _meta("thread_name", pid, tid, name=f"worker {rank} · {name}")
            yield _meta("thread_sort_index", pid, tid, sort_index=10 * rank + place)
            if category == "function":
                yield from _begin_of_functions(timeline, rank, pid, tid, zero)
            yield from _slices(_cut(row(), timeline), f'"cat":"{category}","pid":{pid},"tid":{tid}', zero)


def _who(timeline: Timeline, lane: Lane) -> str:
    """Name the worker as the system does: a process by its pid, a thread by its tid."""
    worker = lane.worker
    return f"{timeline.arm.kind} {worker.pid if timeline.arm.model.own_process else worker.tid}"


def _meta(what: str, pid: int, tid: int, **args: Any) -> str:
    return _json({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args})


def _begin_of_functions(timeline: Timeline, rank: int, pid: int, tid: int, zero: float) -> Iterator[str]:
    """Mark from when on all of a worker's calls are there, where the oldest are not."""
    for trace in timeline.traces:
        if trace.since is not None and rank in trace.workers.values():
            at = round((trace.since - zero) * 1e9) / 1e3
            known = {"name": "functions are complete from here on", "cat": "function", "pid": pid, "tid": tid, "ts": at}
            yield _json({"ph": "i", "s": "t", **known})


def _functions(calls: Sequence[Calls]) -> Row:
    """Return a worker's calls; one that was replaced after its death has two recordings."""
    names = [_json(clean(name, 300)) for each in calls for name in each.names]
    before = np.cumsum([0, *(len(each.names) for each in calls)])
    places = np.concatenate([each.places + shift for each, shift in zip(calls, before, strict=False)]) if calls else _NONE
    begins, ends = ([getattr(each, edge) for each in calls] or [_NONE] for edge in ("begins", "ends"))
    return Row(np.concatenate(begins), np.concatenate(ends), lambda some: [(names[place], "") for place in places[some].tolist()])


def _items(lane: Lane) -> Row:
    begins, ends = (np.array([at for batch in lane.batches for at in getattr(batch, edge)]) for edge in ("begins", "ends"))
    items = np.array([batch.first + place for batch in lane.batches for place in range(len(batch.begins))], dtype=int)
    errors = {item: error for batch in lane.batches for item, error in batch.errors.items()}

    def words(item: int) -> tuple[str, str]:
        known = {"error": error_words(errors[item])} if item in errors else {}
        return f'"item {item}"', _args({"item": item, **known})

    return Row(begins, ends, lambda some: map(words, items[some].tolist()))


def _waits(lane: Lane) -> Row:
    pieces = waits(lane)
    begins, ends = (np.array([piece[edge] for piece in pieces], dtype=float) for edge in (0, 1))
    return Row(begins, ends, lambda some: ((_json(pieces[key][2]), _args(pieces[key][3])) for key in some.tolist()))


def _args(known: dict[str, Any]) -> str:
    return f',"args":{_json(known)}' if known else ""


_NONE = np.empty(0, dtype=int)


def error_words(error: BaseException) -> str:
    """Return an error's type and message, cut."""
    return clean(described(error), 80)


def waits(lane: Lane) -> list[Piece]:
    """Return a worker's waits: recorded spans, and between them what it waited for while it had items."""
    spans: list[Piece] = [(s.begin, s.end, LOOKS[s.kind].words if s.kind in LOOKS else clean(s.kind), {}) for s in lane.spans]
    if not lane.batches:
        return spans
    begin, end = lane.batches[0].begins[0], max(batch.ends[-1] for batch in lane.batches)
    seen = _inside(_runs(lane) if lane.tally is None else _measured(lane), begin, end)
    return spans + [part for wait in seen for part in _without(wait, spans)]


def _measured(lane: Lane) -> Iterator[Piece]:
    """Return the waits that the hooks recorded; those for the GIL are named with its holder, where that was a worker."""
    names = {total.object: clean(total.name) for total in lane.totals if total.name}
    for wait in lane.waits:
        kind = KIND[WAIT_KINDS[wait.kind]]
        name = f"GIL, held by worker {wait.holder}" if kind.name == "gil" and wait.holder >= 0 else LOOKS[kind.state].words
        args: dict[str, Any] = {"kind": kind.name}
        if wait.line:
            args["line"] = wait.line
        if wait.object:
            args["object"] = names.get(wait.object) or (hex(wait.object) if kind.object == "address" else wait.object)
        if wait.with_gil:
            args["held the GIL"] = True
        yield wait.begin * 1e-9, wait.end * 1e-9, name, args


def _runs(lane: Lane) -> Iterator[Piece]:
    """Join consecutive samples of one state; a state lasts until halfway to the next sample."""
    at, states = lane.samples.at, lane.samples.states
    first = 0
    for place in range(1, len(at) + 1):
        if place < len(at) and states[place] == states[first]:
            continue
        begin = (at[first - 1] + at[first]) / 2 if first else at[0]
        end = (at[place - 1] + at[place]) / 2 if place < len(at) else at[-1]
        name = SAMPLED.get(SEEN[states[first]])
        if name is not None and end > begin:
            yield begin, end, LOOKS[name].words, {"inferred": True, "samples": place - first}
        first = place


def _inside(pieces: Iterable[Piece], low: float, high: float) -> list[Piece]:
    """Cut pieces to a range; what lies outside is left out."""
    return [(max(b, low), min(e, high), name, args) for b, e, name, args in pieces if b <= high and e >= low]


def _without(piece: Piece, holes: Sequence[Piece]) -> list[Piece]:
    """Cut recorded spans out of an inferred wait."""
    begin, end, name, args = piece
    parts = []
    for low, high, *_ in sorted(holes, key=lambda hole: hole[0]):
        if low > begin:
            parts.append((begin, min(low, end), name, args))
        begin = max(begin, high)
        if begin >= end:
            break
    if begin < end:
        parts.append((begin, end, name, args))
    return [part for part in parts if part[1] > part[0]]


def _cut(row: Row, timeline: Timeline) -> Row:
    """Cut a row to its arm; what lies outside is left out."""
    inside = np.flatnonzero((row.begins <= timeline.end) & (row.ends >= timeline.begin))
    begins, ends = np.maximum(row.begins[inside], timeline.begin), np.minimum(row.ends[inside], timeline.end)
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
