"""VizTracer's records become the calls of each worker, on our clock.

A record of a million calls is over 100 MB of text, and ten times that as objects. So it is
read in blocks, of which only numbers are kept: 20 bytes a call.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

import parmagic
from parmagic.model.cells import Numbers, renamed
from parmagic.model.recording import TraceFile, on_our_clock
from parmagic.model.timeline import Calls, Lane

_OURS = str(Path(parmagic.__file__).parent) + os.sep
_CLOCK = "time.perf_counter"

BLOCK = 1 << 20
"""Bytes that are read at once."""

Event = tuple[Any, Any, Any, Any, Any]
"""The thread, the begin (µs), X (a call) or B (one that was open at the end), the duration (µs) and the name of a call."""


class Events(NamedTuple):
    """The calls of a block as columns: times in µs; threads and names are keys to what they stand for."""

    threads: Sequence[Any]
    thread_of: dict[Any, int]
    begins: Any
    took: Any
    still_open: Any
    names: Sequence[Any]
    name_of: Mapping[Any, bytes | str]


_BETWEEN = b'},{"pid":'
_NAMED = rb'name":"([^"\\]*(?:\\.[^"\\]*)*)"'
_EVENT = re.compile(rb'\{"pid":\d+,"tid":(\d+),"ts":([\d.]+),"ph":"([XB])","cat":"fee","dur":([\d.]+),"' + _NAMED, re.DOTALL)
_FIELDS = 6
_PHASES = frozenset({b'ph":"X"', b'ph":"B"'})
_TID = re.compile(rb'tid":(\d+)')
_NAME = re.compile(_NAMED, re.DOTALL)


def read(trace: TraceFile, cells: Numbers | None = None) -> list[Calls]:
    """Return the calls that a trace holds, one :class:`Calls` per worker; functions of ``cells`` have their places in them.

    Threads that are no workers are left out, so are our own functions: the
    body is the outermost call. Calls that were still open at the end are closed
    there. A file that is missing has no calls, a torn one (of a killed worker) those before its end.
    """
    places: dict[bytes | str, int] = {}
    threads = {tid: number for number, tid in enumerate(trace.workers)}
    tables = [_table(events, threads, places, trace.anchors[1][0]) for events in _events(trace)]
    threads_of, begins, ends, named = (np.concatenate(column) for column in zip(*tables, strict=True)) if tables else (np.empty(0),) * 4
    names = tuple(_text(name) for name in places)
    foreign = np.array([_OURS not in name for name in names], dtype=bool)
    names = tuple(renamed(name, cells or {}) for name in names)
    found = []
    for number, rank in enumerate(trace.workers.values()):
        mine = np.flatnonzero(threads_of == number)
        mine = mine[foreign[named[mine]]] if len(mine) else mine
        from_, to = on_our_clock(trace.anchors, begins[mine]), on_our_clock(trace.anchors, ends[mine])
        order = np.lexsort((-to, from_))
        found.append(Calls(rank, from_[order], to[order], named[mine[order]].astype(np.int32), names))
    return found


def _table(events: Events, threads: dict[int, int], places: dict[bytes | str, int], end: float) -> tuple[Any, ...]:
    """Return the calls of a block as columns: the thread's number (-1: none of ours), begin, end (µs), the name's place in ``places``."""
    known = {key: threads.get(tid, -1) for key, tid in events.thread_of.items()}
    place_of = {key: places.setdefault(name, len(places)) for key, name in events.name_of.items()}
    count = len(events.names)
    return (
        np.fromiter(map(known.__getitem__, events.threads), np.int32, count), events.begins,
        np.where(events.still_open, np.maximum(events.begins, end), events.begins + events.took),
        np.fromiter(map(place_of.__getitem__, events.names), np.int32, count),
    )  # fmt: skip


def _events(trace: TraceFile) -> Iterator[Events]:
    """Yield what a trace holds, a block at a time: as VizTracer writes it, or any other JSON at once."""
    with suppress(OSError), BytesIO(trace.data) if trace.data else Path(trace.path).open("rb") as file:
        blocks, unread = _blocks(file), []
        for block in blocks:
            unread.append(block)
            if _EVENT.search(block):
                yield from filter(None, map(_calls, chain((block,), blocks)))
                return
        if others := _columns(_by_json(b"".join(unread))):
            yield others


def _calls(block: bytes) -> Events | None:
    """Return the calls of a block, if it has any."""
    with suppress(ValueError):
        return _by_commas(block)
    return _columns(_EVENT.findall(block))


def _by_commas(block: bytes) -> Events:
    """Return the calls of a block that has nothing else in it, as nearly all have not; raises ValueError for others.

    This takes two thirds of the pattern's time. A comma before a quote is between two fields: in names, quotes are escaped.
    """
    fields = block.split(b',"')
    count, rest = divmod(len(fields), _FIELDS)
    tids, begins, phases, kinds, took, names = (fields[place::_FIELDS] for place in range(1, _FIELDS + 1))
    if rest != 1 or kinds.count(b'cat":"fee"') != count or not _PHASES.issuperset(phases):
        raise ValueError("something else than calls")
    return Events(
        tids, {field: int(tid) for field, tid in _texts(_TID, tids).items()}, _numbers(b'ts":', begins), _numbers(b'dur":', took),
        np.fromiter(map(b'ph":"B"'.__eq__, phases), bool, count), names, _texts(_NAME, names),
    )  # fmt: skip


def _texts(pattern: re.Pattern[bytes], fields: list[bytes]) -> dict[bytes, bytes]:
    """Return what a pattern finds in each different field."""
    different = dict.fromkeys(fields)
    found = {field: match[1] for field in different if (match := pattern.match(field))}
    if len(found) < len(different):
        raise ValueError("a field of another form")
    return found


def _numbers(before: bytes, fields: list[bytes]) -> Any:
    """Return the numbers that fields end with."""
    numbers = np.array(list(map(float, b"".join(fields).split(before)[1:])))
    if len(numbers) != len(fields):
        raise ValueError("a field of another form")
    return numbers


def _columns(events: Sequence[Event]) -> Events | None:
    """Turn calls into columns; None where there are none."""
    if not events:
        return None
    tids, begins, phases, took, names = zip(*events, strict=True)
    from_, lasting = (np.fromiter(map(float, column), float, len(column)) for column in (begins, took))
    return Events(
        tids, {tid: int(tid) for tid in set(tids)}, from_, lasting,
        np.frombuffer(b"".join(phases), np.uint8) == ord("B"), names, dict(zip(names, names, strict=True)),
    )  # fmt: skip


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the text in parts that end between two calls: this cannot be within a name, where quotes are escaped."""
    rest = b""
    while more := file.read(BLOCK):
        rest += more
        cut = rest.rfind(_BETWEEN) + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def _by_json(data: bytes) -> list[Event]:
    """Read the calls of a trace that is not as VizTracer 1.1.1 writes it; names may have bare control characters."""
    with suppress(ValueError, KeyError, TypeError):
        events = json.loads(data, strict=False)["traceEvents"]
        return [(e["tid"], e["ts"], e["ph"].encode(), e.get("dur", 0), e.get("name", "")) for e in events if e.get("ph") in {"X", "B"}]
    return []


def _text(name: bytes | str) -> str:
    """Return a name as it was, before VizTracer escaped it; it escapes files only, so that what looks like an escape may be none."""
    if isinstance(name, str):
        return name
    text = name.decode("utf-8", "replace")
    with suppress(ValueError):
        return str(json.loads(f'"{text}"', strict=False))
    return text


def within_items(calls: Calls, lane: Lane) -> Calls:
    """Return the part of a worker's calls that happened inside of its items, none reaching beyond its item's end.

    What lies between items (pickling, the next claim) is our own work, not the body's. All of
    the time that a worker without items is accounted for is its own.
    """
    _, begins, ends = map(np.asarray, lane.items())
    if not lane.worker.takes_items and lane.at_work is not None:
        begins, ends = np.array(lane.at_work).reshape(2, 1)
    if not len(begins):
        return Calls(calls.rank, calls.begins[:0], calls.ends[:0], calls.places[:0], calls.names)
    place = np.searchsorted(begins, calls.begins, side="right") - 1
    end = ends[place]
    # the last call of an item is often the recorder's own reading of the clock at its end
    clock = calls.names.index(_CLOCK) if _CLOCK in calls.names else -1
    inside = (place >= 0) & (calls.begins < end) & ~((calls.ends > end) & (calls.places == clock))
    return Calls(calls.rank, calls.begins[inside], np.minimum(calls.ends, end)[inside], calls.places[inside], calls.names)
