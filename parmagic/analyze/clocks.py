"""Recordings from other machines come onto our clock."""

from __future__ import annotations

from array import array
from dataclasses import replace

from parmagic.model.kinds import MEASURED
from parmagic.model.recording import Batch, Child, Clocks, Readings, Recording, Samples, Span, Tally, TraceFile


def on_ours(part: Recording) -> Recording:
    """Return a recording with all of its times on our clock; one that is on it already, as it is.

    How uncertain that is stays in its ``clock``.
    """
    by = part.clock.offset
    if not by:
        return part
    return replace(
        part,
        spans=tuple(Span(span.kind, span.begin + by, span.end + by) for span in part.spans),
        batches=tuple(_batch(batch, by) for batch in part.batches),
        readings=part.readings and _readings(part.readings, by),
        trace=part.trace and _trace(part.trace, by),
        children=tuple(_child(child, by) for child in part.children),
        samples=part.samples and Samples(_later(part.samples.at, by), part.samples.states),
        clock=replace(part.clock, offset=0.0),
        synced=part.synced.shifted(by),
    )


def _later(times: array[float], by: float) -> array[float]:
    return array("d", [at + by for at in times])


def _batch(batch: Batch, by: float) -> Batch:
    return replace(batch, begins=_later(batch.begins, by), ends=_later(batch.ends, by))


def _child(child: Child, by: float) -> Child:
    readings, synced = child.readings and _readings(child.readings, by), child.synced.shifted(by)
    return replace(child, begin=child.begin + by, end=child.end + by, readings=readings, synced=synced)


def _readings(readings: Readings, by: float) -> Readings:
    clocks, tally, waits = readings.clocks, readings.tally, readings.waits
    return Readings(
        clocks and Clocks(_later(clocks.at, by), clocks.cpu, clocks.queue),
        tally and _tally(tally, by),
        waits and waits.shifted(by),
    )


def _tally(tally: Tally, by: float) -> Tally:
    rows, width = tally.rows[:], 1 + len(MEASURED)
    rows[::width] = _later(rows[::width], by)
    return Tally(rows)


def _trace(trace: TraceFile, by: float) -> TraceFile:
    (first, begin), (last, end) = trace.anchors
    return replace(
        trace,
        anchors=((first, begin + by), (last, end + by)),
        gaps=tuple((from_ + by, to + by) for from_, to in trace.gaps),
        since=None if trace.since is None else trace.since + by,
    )
