"""A run written down as plain data, as JSON has it, and read again; nothing of it is trusted, and nothing is unpickled.

How a value is written follows from its field's type, and each is read by that type alone:
a dataclass as an object of its fields, a tuple as a list, a dict as a list of pairs, arrays
as base64 of their bytes, bytes as that of what zlib makes of them, a number that is none
as a text, an error as its place in a list of types and messages. Items' values are left out.
"""

from __future__ import annotations

import math
import sys
import zlib
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from parmagic.model import kinds
from parmagic.model.classes import type_name
from parmagic.model.finding import Finding
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.private import stand_in
from parmagic.model.recording import Batch, Clocks, Samples, Span, Tally, TraceFile
from parmagic.model.taken import Handover
from parmagic.model.timeline import Baseline, Lane, Timeline
from parmagic.model.waits import WAIT_LAYOUT, Total, Waits
from parmagic.model.words import messages

VERSION = [2, kinds.VERSION]
"""Of this format, and of what the numbers in tallies, waits and samples mean."""

MOST_ITEMS = 10_000_000
"""Items that an arm can have that is read: its tables take 100 bytes for each, whether it ran or not."""

MOST_BYTES = 1 << 30
"""Bytes that a trace, or an arm's waits, can unpack to: a thousandth of them may stand in the file."""

LATEST = 1e18
"""No time is beyond it, in seconds or in VizTracer's microseconds: pictures count in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that is told of a run."""

    title: str
    timelines: tuple[Timeline, ...]
    baselines: dict[str, Baseline]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    error: BaseException | None
    show_items: bool
    cells: dict[str, int]


# ---------------------------------------------------------------------------------------------------------------------------------
# writing


def written(story: Story) -> dict[str, Any]:
    """Return a story as plain data, the traces that lie in files with it. What may be told is for the caller to know.

    TypeError names what has no plain form, and evidence that is no Python number.
    """
    _check_evidence(story.findings)
    timelines = tuple(replace(each, traces=tuple(map(_embedded, each.traces))) for each in story.timelines)
    baselines = {label: replace(each, results={}, run=None) for label, each in story.baselines.items()}
    writer = _Writer()
    told = writer.write(replace(story, timelines=timelines, baselines=baselines))
    errors = zip(map(type_name, writer.errors), messages(writer.errors), strict=True)
    return {"parmagic": VERSION, "byteorder": sys.byteorder, "errors": [list(each) for each in errors], "run": told}


def _check_evidence(findings: Iterable[Finding]) -> None:
    for finding in findings:
        for name, value in finding.evidence.items():
            if type(value) is not int and not isinstance(value, float):
                raise TypeError(f"the finding {finding.rule!r} has a {type(value).__name__} as its {name}: evidence is int or float")


def _embedded(trace: TraceFile) -> TraceFile:
    """Return a trace that needs no file; one whose file is gone has no calls."""
    data = trace.data
    if trace.path and not data:
        try:
            data = Path(trace.path).read_bytes()
        except OSError:
            data = b""
    return replace(trace, path="", data=data)


class _Writer:
    """Writes values; the same error is one, wherever it appears."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._places: dict[int, int] = {}

    def write(self, value: Any) -> Any:
        if value is None or type(value) in {bool, int}:
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, tuple):
            return [self.write(each) for each in value]
        if isinstance(value, dict):
            return [[self.write(key), self.write(each)] for key, each in value.items()]
        if isinstance(value, array):
            return _text(value.tobytes())
        if isinstance(value, bytes):
            return _text(zlib.compress(value, 1))
        if isinstance(value, BaseException):
            return self._error(value)
        kind: Any = type(value)
        return {name: self.write(getattr(value, name)) for name in _fields(kind)}

    def _error(self, error: BaseException) -> int:
        place = self._places.setdefault(id(error), len(self.errors))
        if place == len(self.errors):
            self.errors.append(error)
        return place


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


_Number = TypeVar("_Number")


class _Array(Generic[_Number]):
    """What stands for ``array`` in types, which in 3.11 can have no type of its numbers."""


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are written, with their types; values, which are the user's, are not."""
    if not is_dataclass(kind):
        raise TypeError(f"a {kind.__name__} has no plain form")
    hints = get_type_hints(kind, localns={"array": _Array})
    return {each.name: hints[each.name] for each in fields(kind) if (kind, each.name) != (Batch, "values")}


# ---------------------------------------------------------------------------------------------------------------------------------
# reading


def read(data: Any) -> Story:
    """Return the story that :func:`written` has written; ValueError says what is wrong with any other."""
    if not isinstance(data, dict) or "parmagic" not in data:
        raise ValueError("this is not a run that parmagic wrote")
    if (data["parmagic"], data.get("byteorder")) != (VERSION, sys.byteorder):
        found = f"format {data['parmagic']}, {data.get('byteorder')}-endian"
        raise ValueError(f"this run was written by another version of parmagic: it has {found}, expected {VERSION}, {sys.byteorder}-endian")
    if data.keys() != {"parmagic", "byteorder", "errors", "run"}:
        raise ValueError(f"this run is garbled: expected its errors and itself, found {', '.join(map(repr, data))}")
    errors = _Reader([]).read(tuple[tuple[str, str], ...], data["errors"], "errors")
    try:
        reader = _Reader([stand_in(name)(*([text] if text else [])) for name, text in errors])
    except (ValueError, TypeError) as wrong:
        raise ValueError(f"this run is garbled: errors: {wrong}") from None
    story: Story = reader.read(Story, data["run"], "run")
    return story


class _Reader:
    """Reads values by their types."""

    def __init__(self, errors: list[BaseException]) -> None:
        self._errors = errors

    def read(self, kind: Any, data: Any, where: str) -> Any:
        """Return a value of that type; ``where`` is where it stands, for the error."""
        origin, of = get_origin(kind), get_args(kind)
        if origin in {Union, UnionType}:
            (some,) = (each for each in of if each is not NoneType)
            return None if data is None else self.read(some, data, where)
        if origin is tuple:
            return self._tuple(of, _checked(list, data, where), where)
        if origin is Literal:
            return _literal(of, data, where)
        if origin in {dict, Mapping}:
            pairs = self.read(tuple[tuple[of], ...], data, where)  # type: ignore[valid-type]
            return _made(dict, pairs, where)
        if origin is _Array:
            return _numbers("d" if of == (float,) else "b", data, where)
        if is_dataclass(kind):
            return self._dataclass(kind, data, where)
        if kind is BaseException:
            place = _checked(int, data, where)
            if not 0 <= place < len(self._errors):
                raise _wrong(where, f"the error {place}, which is not there")
            return self._errors[place]
        return _checked(kind, data, where)

    def _tuple(self, of: tuple[Any, ...], data: list[Any], where: str) -> tuple[Any, ...]:
        kinds_of = of[:1] * len(data) if of[-1] is Ellipsis else of
        if len(kinds_of) != len(data):
            raise _wrong(where, f"{len(data)} values, not {len(kinds_of)}")
        return tuple(self.read(kind, each, f"{where}[{place}]") for place, (kind, each) in enumerate(zip(kinds_of, data, strict=True)))

    def _dataclass(self, kind: Any, data: Any, where: str) -> Any:
        """Make one as it was, without asking anything that has changed since: a model may no longer be known."""
        wanted = _fields(kind)
        if _checked(dict, data, where).keys() != wanted.keys():
            raise _wrong(where, f"the fields {', '.join(map(str, data))}, not {', '.join(wanted)}")
        made = object.__new__(kind)
        for name, type_of in wanted.items():
            object.__setattr__(made, name, self.read(type_of, data[name], f"{where}.{name}"))
        if kind is Batch:
            object.__setattr__(made, "values", [None] * len(made.begins))
        try:
            sound = _SOUND.get(kind, _always)(made)
        except (IndexError, KeyError):
            sound = False
        if not sound:
            raise _wrong(where, f"a {kind.__name__} that cannot be")
        return made


def _checked(kind: Any, data: Any, where: str) -> Any:
    """Return a plain value as it is; numbers that are none have their names."""
    if kind is bytes:
        return _made(_unpacked, _bytes(data, where), where)
    if kind is float and type(data) is str and data in {"nan", "inf", "-inf"}:
        return float(data)
    if type(data) is kind or (kind is float and type(data) is int and abs(data) <= sys.float_info.max):
        return data
    raise _wrong(where, f"a {type(data).__name__}, not a {kind.__name__}")


def _unpacked(data: bytes) -> bytes:
    made = zlib.decompressobj()
    found = made.decompress(data, MOST_BYTES)
    if not made.eof:
        raise ValueError(f"cut short, or more than {MOST_BYTES:,} bytes")
    return found


def _literal(of: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, str) or data not in of:
        raise _wrong(where, f"none of {', '.join(map(str, of))}")
    return data


def _bytes(data: Any, where: str) -> bytes:
    return bytes(_made(lambda text: b64decode(text, validate=True), _checked(str, data, where), where))


def _numbers(code: str, data: Any, where: str) -> array[Any]:
    return _made(lambda packed: array(code, packed), _bytes(data, where), where)  # type: ignore[no-any-return]


def _made(make: Callable[[Any], Any], of: Any, where: str) -> Any:
    try:
        return make(of)
    except (ValueError, TypeError, zlib.error) as wrong:
        raise _wrong(where, f"what cannot be read ({wrong})") from None


def _wrong(where: str, found: str) -> ValueError:
    return ValueError(f"this run is garbled: {where} has {found}")


# ---------------------------------------------------------------------------------------------------------------------------------
# what is read must be able to be drawn


def _always(_: Any) -> bool:
    return True


def _times(*numbers: float) -> bool:
    return all(abs(number) < LATEST for number in numbers)


def _batch(batch: Batch) -> bool:
    items = range(batch.first, batch.first + len(batch.begins))
    whole = batch.first >= 0 and len(items) > 0 and len(batch.begins) == len(batch.ends) and all(item in items for item in batch.errors)
    return whole and _times(*batch.begins, *batch.ends)


def _clocks(clocks: Clocks) -> bool:
    return len(clocks.at) == len(clocks.cpu) == len(clocks.queue) and _times(*clocks.at, *clocks.cpu)


def _tally(tally: Tally) -> bool:
    width = 1 + len(kinds.MEASURED)
    return len(tally.rows) % width == 0 and _times(*tally.rows[::width])


def _waits(waits: Waits) -> bool:
    whole, whats = len(waits.events) % WAIT_LAYOUT.size == 0, range(len(kinds.EVENTS))
    return whole and all(0 <= wait.kind < len(kinds.WAIT_KINDS) and wait.what in whats for wait in waits.every())


def _samples(samples: Samples) -> bool:
    return len(samples.at) == len(samples.states) and _times(*samples.at) and all(0 <= each < len(kinds.SEEN) for each in samples.states)


def _handover(each: Handover) -> bool:
    return _times(each.begin, each.end) and (math.isnan(each.woken) or _times(each.woken))


def _timeline(timeline: Timeline) -> bool:
    ranks = [lane.worker.rank for lane in timeline.lanes]
    last = max((batch.first + len(batch.begins) for lane in timeline.lanes for batch in lane.batches), default=0)
    whole = len(set(ranks)) == len(ranks) and last <= timeline.n_items <= MOST_ITEMS
    return whole and _times(timeline.begin, timeline.end) and timeline.begin < timeline.end


def _story(story: Story) -> bool:
    labels = [timeline.arm.label for timeline in story.timelines]
    return len(set(labels)) == len(labels) and set(labels) <= story.baselines.keys()


_SOUND: dict[type, Callable[[Any], bool]] = {
    Arm: lambda arm: arm.count > 0,
    Span: lambda span: span.kind in kinds.SPANS and _times(span.begin, span.end),
    Batch: _batch,
    Clocks: _clocks,
    Tally: _tally,
    Waits: _waits,
    Samples: _samples,
    Total: lambda total: total.kind in kinds.KIND and total.object >= 0,
    TraceFile: lambda trace: _times(*trace.anchors[0], *trace.anchors[1], *(edge for gap in trace.gaps for edge in gap)),
    Lane: lambda lane: lane.worker.rank >= 0,
    Handover: _handover,
    Load: lambda load: load.cpus > 0 and not load.quota <= 0,
    Timeline: _timeline,
    Story: _story,
}
"""What holds of each, so that tables and pictures can be made of it."""
