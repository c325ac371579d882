"""The run in Chrome's Trace Event format, for Perfetto and vizviewer; and saving to files.

Each arm is a process of the trace, each worker three threads: its function
calls, its items, its waits. They are apart because Perfetto silently drops
slices of one thread that do not nest, and these three need not.

The format: "Trace Event Format", Duffy and Sinclair, 2016.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parmagic.model import STATES, WAIT_KINDS, WAIT_STATES, Calls, Lane, Timeline
from parmagic.render.figures import LOOKS, clean, saved_verdict

if TYPE_CHECKING:
    from parmagic.render import View

Piece = tuple[float, float, str, dict[str, Any]]
"""A slice: begin and end in seconds, its name, its arguments."""

Event = dict[str, Any]

SUFFIXES = (".html", ".json", ".json.gz")
_NAMES = {"gil": "gil_wait", "lock": "lock_wait", "sleep": "sleep", "io": "io_wait"}


def save(view: View, path: str | os.PathLike[str]) -> None:
    """Write the run to ``path``: a page (.html) or a trace (.json, .json.gz).

    The file is readable by its owner only, and is either whole or not there.
    Raises ValueError for any other suffix, OSError where it can't be written.
    """
    target = Path(path)
    name = target.name.lower()
    if name.endswith(".html"):
        from parmagic.render.page import page  # noqa: PLC0415  (the other suffixes do without)

        data = page(view).encode("utf-8")
    elif name.endswith(".json.gz"):
        data = gzip.compress(dumps(view), 6, mtime=0)
    elif name.endswith(".json"):
        data = dumps(view)
    else:
        raise ValueError(f"can't save to {target.name!r}: it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    _write(target, data)


def save_page(path: str | os.PathLike[str], text: str) -> None:
    """Write a page to ``path`` in the same way; ValueError where that does not end in .html."""
    target = Path(path)
    if not target.name.lower().endswith(".html"):
        raise ValueError(f"can't save to {target.name!r}: it must end in .html")
    _write(target, text.encode("utf-8"))


def _write(target: Path, data: bytes) -> None:
    """Write beside the target (0600, as mkstemp makes it), then move: no reader sees half a file."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save {target.name!r} to")
    handle, temporary = tempfile.mkstemp(prefix=".parmagic-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, target)  # noqa: PTH105  (the pair of mkstemp, which gives a str)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def dumps(view: View) -> bytes:
    """Return the trace as JSON (ASCII)."""
    return json.dumps(trace(view), separators=(",", ":"), allow_nan=False).encode("ascii")


def trace(view: View) -> dict[str, Any]:
    """Return the trace; its times are microseconds from the first arm's begin."""
    zero = view.timelines[0].begin if view.timelines else 0.0
    events: list[Event] = []
    calls = dict(view.functions())
    for number, timeline in enumerate(view.timelines):
        events += _arm(view, number, timeline, calls.get(number, []), zero)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "title": clean(view.title),
            "verdict": clean(saved_verdict(view)),
            "notes": [clean(note) for note in view.notes],
        },
    }


def _arm(view: View, number: int, timeline: Timeline, calls: Sequence[Calls], zero: float) -> Iterator[Event]:
    pid = number + 1
    yield _meta("process_name", pid, 0, name=timeline.arm.label)
    yield _meta("process_sort_index", pid, 0, sort_index=number)
    by_rank: dict[int, list[Piece]] = {}
    for each in calls:  # a worker that was replaced after its death has two
        by_rank.setdefault(each.rank, []).extend((begin, end, clean(name, 300), {}) for begin, end, name in each)
    for lane in timeline.lanes:
        rank = lane.worker.rank
        rows = (
            (f"worker {rank} · {_who(timeline, lane)}", "function", by_rank.get(rank, [])),
            (f"worker {rank} · items", "item", _items(view, lane)),
            (f"worker {rank} · waits", "wait", waits(lane)),
        )
        for place, (name, category, pieces) in enumerate(rows):
            # unique in the whole trace, and never the pid, which would be a main thread
            tid = 1_000_000 * pid + 10 * rank + place
            yield _meta("thread_name", pid, tid, name=name)
            yield _meta("thread_sort_index", pid, tid, sort_index=10 * rank + place)
            inside = _inside(pieces, timeline.begin, timeline.end)
            yield from _slices(inside, category, pid, tid, zero)


def _who(timeline: Timeline, lane: Lane) -> str:
    """Name the worker as the system does: a process by its pid, a thread by its tid."""
    worker = lane.worker
    return f"{timeline.arm.kind} {worker.pid if timeline.arm.kind == 'procs' else worker.tid}"


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _items(view: View, lane: Lane) -> Iterator[Piece]:
    for batch in lane.batches:
        for place, (begin, end) in enumerate(zip(batch.begins, batch.ends, strict=True)):
            item = batch.first + place
            args: dict[str, Any] = {"item": item}
            if item in batch.errors:
                args["error"] = error_words(view, batch.errors[item])
            yield begin, end, f"item {item}", args


def error_words(view: View, error: BaseException) -> str:
    """Return an error for a file: its message may hold an item's value, so it needs leave."""
    name = type(error).__name__
    return clean(f"{name}: {error}", 80) if view.show_items else clean(name)


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
        kind = WAIT_KINDS[wait.kind]
        state = LOOKS[WAIT_STATES[wait.kind]].words
        name = f"GIL, held by worker {wait.holder}" if kind == "gil" and wait.holder >= 0 else state
        args: dict[str, Any] = {"kind": kind}
        if wait.line:
            args["line"] = wait.line
        if wait.object:
            args["object"] = names.get(wait.object) or (hex(wait.object) if kind in {"lock", "queue"} else wait.object)
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
        name = _NAMES.get(STATES[states[first]])
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


def nest(spans: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, key) in order, each end cut to that of the slice that it begins in.

    Works on whole nanoseconds: rounding after the cut could make them overlap again.
    """
    open_ends: list[int] = []
    for begin, end, key in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        cut = min(end, open_ends[-1]) if open_ends else end
        cut = max(cut, begin)
        open_ends.append(cut)
        yield begin, cut, key


def _slices(pieces: Sequence[Piece], category: str, pid: int, tid: int, zero: float) -> Iterator[Event]:
    whole = ((round((p[0] - zero) * 1e9), round((p[1] - zero) * 1e9), key) for key, p in enumerate(pieces))
    for begin, end, key in nest(whole):
        _, _, name, args = pieces[key]
        event: Event = {
            "ph": "X",
            "name": name,
            "cat": category,
            "pid": pid,
            "tid": tid,
            "ts": begin / 1e3,
            "dur": (end - begin) / 1e3,
        }
        if args:
            event["args"] = args
        yield event
