"""Recordings become one timeline per arm, on one clock."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from parmagic.analyze.clocks import on_ours
from parmagic.analyze.places import placed
from parmagic.errors import Ended
from parmagic.model.helpers import Helpers, called, within
from parmagic.model.kinds import MEASURED
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Child, Clocks, Failure, Moved, Readings, Recording, Samples, Span, Tally, TraceFile, WorkerId
from parmagic.model.taken import NONE
from parmagic.model.timeline import Lane, Packed, Timeline
from parmagic.model.waits import NO_WAITS, Total, Waits


def merge(
    arm: Arm,
    begin: float,
    end: float,
    n_items: int,
    parts: Sequence[Recording],
    samples: Mapping[int, Samples],
    *,
    cpu_s: float = float("nan"),
    gil: bool = True,
    error: BaseException | None = None,
    packed: Packed | None = None,
    load: Load | None = None,
    peak_mb: float = float("nan"),
) -> Timeline:
    """Join the parts that an arm's workers reported into its timeline.

    Parts from other machines are put on our clock. ``samples`` are ours, by rank. ``cpu_s`` is the arm's CPU time where it was
    measured as a whole (threads); where it is NaN and every worker had a
    process to itself, it is the sum over these. ``error`` is what ended the arm; without one,
    it is the first that an item raised. ``load`` is what else went on, ``peak_mb`` the peak memory of the process that they share.
    """
    parts = [on_ours(part) for part in parts]
    ranks = sorted({part.worker.rank for part in parts})
    lanes = tuple(_lane([p for p in parts if p.worker.rank == rank], samples.get(rank)) for rank in ranks)
    if cpu_s != cpu_s:
        known = [part.usage.process_cpu_s for part in parts if part.usage]
        cpu_s = sum(known) if known else float("nan")
    helpers = _helpers(parts)
    waited_for = {called(each.library) for each in helpers}
    lanes = tuple(_helped(lane, waited_for) for lane in lanes)
    traces: tuple[TraceFile, ...] = tuple(part.trace for part in parts if part.trace is not None)
    failure = _first_failure(lanes) if error is None else None
    error = failure.error if failure else error
    children = tuple(sorted((_lane_of(child) for part in parts for child in part.children if child.begin < end), key=_place))
    ends = {name: value for part in parts for name, value in part.ends.items()}
    return Timeline(arm, begin, end, n_items, lanes, traces, cpu_s, gil, error, packed, failure, load, helpers, peak_mb, children, ends)


def _helpers(parts: Iterable[Recording]) -> tuple[Helpers, ...]:
    """Add up by library what threads of libraries used in all processes, most first."""
    found: dict[str, Helpers] = {}
    for each in (each for part in parts for each in part.helpers):
        before = found.get(each.library, Helpers(each.library, 0.0))
        found[each.library] = Helpers(each.library, before.cpu_s + each.cpu_s, before.queue_s + each.queue_s)
    return tuple(sorted(found.values(), key=lambda each: -each.cpu_s))


def _helped(lane: Lane, helpers: Collection[str]) -> Lane:
    """Tell waits for these threads from those within libraries that have none: they are for a lock of the library's own."""
    if all(total.kind != "helpers" or total.name in helpers for total in lane.totals):
        return lane
    return replace(lane, totals=tuple(each if each.name in helpers else _lock_within(each) for each in lane.totals))


def _lock_within(total: Total) -> Total:
    return total if total.kind != "helpers" else replace(total, kind="lock", name=within(total.name), thing="native")


def _lane(parts: Sequence[Recording], samples: Samples | None) -> Lane:
    spans: list[Span] = sorted((s for p in parts for s in p.spans), key=lambda s: s.begin)
    batches: list[Batch] = sorted((b for p in parts for b in p.batches if b.begins), key=lambda b: b.begins[0])
    again = tuple(each for each in batches if each.again)
    usages = [part.usage for part in parts if part.usage]
    readings = [part.readings for part in parts if part.readings]
    moved = [part.moved for part in parts if part.moved]
    return Lane(
        _worker([part.worker for part in parts if not part.noted], parts[-1].worker),
        tuple(spans),
        tuple(each for each in batches if not each.again),
        _join(r.clocks for r in readings if r.clocks),
        _seen([each for each in (samples, *(part.samples for part in parts)) if each]),
        usages[-1] if usages else None,
        _add_up([r.tally for r in readings if r.tally]),
        Waits(b"".join(r.waits.events for r in readings if r.waits), sum(r.waits.lost for r in readings if r.waits)),
        tuple(placed(total) for part in parts for total in part.totals),
        sum(moved, Moved()) if moved else None,
        max(part.clock.uncertainty for part in parts),
        again,
        synced=sum((part.synced for part in parts if part.synced is not NONE), NONE),
    )


def _lane_of(child: Child) -> Lane:
    readings = child.readings or Readings()
    clocks, totals = readings.clocks or Clocks(array("d"), array("d"), array("d")), tuple(map(placed, child.totals))
    of = replace(child, readings=None, totals=(), synced=NONE)
    read = readings.tally.times if readings.tally else clocks.at
    spans = (Span("startup", child.begin, read[0]),) if read and read[0] > child.begin else ()
    waits = readings.waits or NO_WAITS
    lane = Lane(child.worker, spans, (), clocks, _seen([]), None, readings.tally, waits, totals, child=of)
    return replace(lane, synced=child.synced)


def _place(lane: Lane) -> tuple[int, float]:
    return lane.worker.rank, lane.child.begin if lane.child else 0.0


def _worker(own: Sequence[WorkerId], last: WorkerId) -> WorkerId:
    """Return who ``last`` was, by what it said of itself first; whoever notes a death does not know all of that."""
    first = own[0] if own else last
    return replace(last, host=first.host, takes_items=first.takes_items, runtime=0)  # an address is nobody's business but the sampler's


def _seen(parts: Sequence[Samples]) -> Samples:
    """Join samples in time order."""
    if len(parts) == 1:
        return parts[0]
    at, states = array("d"), array("b")
    for part in sorted((p for p in parts if p.at), key=lambda p: p.at[0]):
        at.extend(part.at)
        states.extend(part.states)
    return Samples(at, states)


def _join(parts: Iterable[Clocks]) -> Clocks:
    """Join readings in time order.

    A rank that was started again after a death counts from zero again: its
    clocks are shifted to go on where the ones before ended.
    """
    at, cpu, queue = array("d"), array("d"), array("d")
    for part in sorted((p for p in parts if p.at), key=lambda p: p.at[0]):
        restarted = bool(cpu) and part.cpu[0] < cpu[-1]
        cpu_shift = cpu[-1] - part.cpu[0] if restarted else 0.0
        queue_shift = queue[-1] - part.queue[0] if restarted else 0.0
        at.extend(part.at)
        cpu.extend(c + cpu_shift for c in part.cpu)
        queue.extend(q + queue_shift for q in part.queue)
    return Clocks(at, cpu, queue)


def _add_up(parts: Sequence[Tally]) -> Tally | None:
    """Join readings in time order; None where there are none.

    As with clocks, what a rank that was started again counts goes on where the one before ended.
    """
    if not parts:
        return None
    rows, width = array("d"), 1 + len(MEASURED)
    for part in sorted((p for p in parts if p.rows), key=lambda p: p.rows[0]):
        if rows and sum(part.rows[1:width]) < sum(rows[1 - width :]):
            shift = (0.0, *(before - own for before, own in zip(rows[1 - width :], part.rows[1:width], strict=True)))
            rows.extend(value + shift[place % width] for place, value in enumerate(part.rows))
        else:
            rows.extend(part.rows)
    return Tally(rows)


def _first_failure(lanes: Sequence[Lane]) -> Failure | None:
    """Return the failure that came first in time."""
    found = [each for lane in lanes for each in lane.failures() if not issubclass(type(each[1].error), Ended)]
    return min(found, key=itemgetter(0))[1] if found else None
