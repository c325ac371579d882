"""Recordings of an arm, put together: one clock, a lane for each worker."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil, isfinite, nan
from operator import itemgetter
from typing import Any, NamedTuple

from parmagic.model.helpers import Helpers
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Child, Clocks, End, Failure, Moved, Samples, Span, Tally, TraceFile, Usage, WorkerId
from parmagic.model.taken import NONE, Synced
from parmagic.model.waits import NO_WAITS, Total, Waits

NEXT = 0.01
"""Seconds between two items of a worker that are not worth an interruption."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One worker's whole story in one arm: the parts of its Recordings, in time order.

    Where it has a tally its waits were measured; else they are inferred from clocks and samples.
    All its times are on our clock, to within ``uncertainty`` seconds. ``lost_tries`` are those of items that ended with a worker
    of this rank, and that another one has tried again.

    It may also be the lane of what a worker's body started, below the worker's: ``child`` tells of that, and its rank is the worker's.
    """

    worker: WorkerId
    spans: tuple[Span, ...]
    batches: tuple[Batch, ...]
    clocks: Clocks
    samples: Samples
    usage: Usage | None
    tally: Tally | None = None
    waits: Waits = NO_WAITS
    totals: tuple[Total, ...] = ()
    moved: Moved | None = None
    uncertainty: float = 0.0
    lost_tries: tuple[Batch, ...] = ()
    child: Child | None = None
    synced: Synced = NONE

    @property
    def at_work(self) -> tuple[float, float] | None:
        """From when until when its time is divided: from its first item to its last, without items from its first reading to its last."""
        if self.worker.takes_items:
            stretches = self.stretches()
            return (stretches[0][0], max(end for _, end in stretches)) if stretches else None
        read = self.clocks.at if self.tally is None else self.tally.times
        return (read[0], read[-1]) if read else None

    @property
    def in_line_s(self) -> float:
        """The seconds for which it waited for a core; 0 where that is not known."""
        queue = self.clocks.queue
        seconds = self.tally.seconds_in("cpu_wait") if self.tally is not None else queue[-1] - queue[0] if queue else 0.0
        return seconds if isfinite(seconds) else 0.0

    @property
    def n_done(self) -> int:
        """How many items ended here, well or not."""
        return sum(len(batch.begins) for batch in self.batches)

    @property
    def errors(self) -> dict[int, BaseException]:
        """The exceptions of its items that failed, by item, in the order in which they ran."""
        return {item: error for batch in self.batches for item, error in batch.errors.items()}

    @property
    def tries(self) -> dict[int, int]:
        """How often items were tried that needed more than one try, by item."""
        return {item: tries for batch in self.batches for item, tries in batch.tries.items()}

    @property
    def breaks(self) -> list[tuple[float, int]]:
        """The items that broke the loop here, each behind the time at which it ended."""
        return [(batch.ends[batch.broke - batch.first], batch.broke) for batch in self.batches if batch.broke is not None]

    def items(self) -> tuple[array[int], array[float], array[float]]:
        """Return the numbers of its items, their begins and their ends, in the order in which they ran."""
        numbers, begins, ends = array("q"), array("d"), array("d")
        for batch in self.batches:
            numbers.extend(batch.items)
            begins.extend(batch.begins)
            ends.extend(batch.ends)
        return numbers, begins, ends

    def stretches(self) -> list[tuple[float, float]]:
        """Return the begins and ends of the stretches in which items ran one right after another, in order."""
        found = [(batch.begins[0], batch.ends[-1]) for batch in (*self.batches, *self.lost_tries)]
        return sorted(found) if self.lost_tries else found

    def failures(self) -> Iterator[tuple[float, Failure]]:
        """Yield the failures of its items, each with the time at which it ended the item."""
        rank = self.worker.rank
        return (
            (batch.ends[item - batch.first], Failure(item, rank, error)) for batch in self.batches for item, error in batch.errors.items()
        )

    def item_at(self, time: float) -> int | None:
        """Return the item that ran at a time; None between items."""
        return next((item for item, begin, end in zip(*self.items(), strict=True) if begin <= time <= end), None)


@dataclass(frozen=True, slots=True)
class Packed:
    """What the notebook packed for the processes of an arm: bytes and seconds."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """One arm on one clock: ``begin`` to ``end``, a lane per worker, in rank order.

    ``packed`` is None where nothing had to be packed: for threads, and for a fork of the notebook.
    ``failure`` is the one that ``error`` came from; None where it came from no item. ``load`` is what else went on meanwhile.
    ``helpers`` are the threads of each library, ``children`` the lanes of what its body started, by rank and begin. ``peak_mb`` is the
    peak memory of the process that its workers share, else NaN. ``ends`` is what the names ended as that its body changes, where
    that is to be compared with another run's.
    """

    arm: Arm
    begin: float
    end: float
    n_items: int
    lanes: tuple[Lane, ...]
    traces: tuple[TraceFile, ...] = ()
    cpu_s: float = float("nan")
    gil: bool = True
    error: BaseException | None = None
    packed: Packed | None = None
    failure: Failure | None = None
    load: Load | None = None
    helpers: tuple[Helpers, ...] = ()
    peak_mb: float = nan
    children: tuple[Lane, ...] = ()
    ends: dict[str, End] = field(default_factory=dict, compare=False)

    @property
    def wall_s(self) -> float:
        """Its wall seconds."""
        return self.end - self.begin

    @property
    def cpus(self) -> int:
        """How many CPUs its workers could use, a part of one as one; 0 where that is not known, as for other machines."""
        return 0 if self.load is None else max(1, ceil(self.load.usable))

    @property
    def items_s(self) -> float:
        """The seconds from the begin of its first item to the end of its last; 0 without items."""
        stretches = [stretch for lane in self.lanes for stretch in lane.stretches()]
        return max(end for _, end in stretches) - min(begin for begin, _ in stretches) if stretches else 0.0

    @property
    def overhead_s(self) -> float:
        """The estimated seconds by which tracing made it longer: of what runs side by side, the mean.

        That is processes, and threads that no GIL puts one after another.
        """
        own = [trace.overhead_s for trace in self.traces]
        abreast = len(own) if self.gil else max(len(own), len(self.lanes))
        return sum(own) / abreast if own else 0.0

    @property
    def overhead(self) -> float:
        """The share of its wall time by which tracing made it longer."""
        return self.overhead_s / self.wall_s if self.wall_s > 0 else 0.0

    def gaps(self, lane: Lane) -> list[tuple[float, float]]:
        """Return the stretches in which a worker ran items and its functions were not recorded, to keep tracing within its budget."""
        traces = [trace for trace in self.traces if trace.gaps and lane.worker.rank in trace.workers.values()]
        stretches = lane.stretches() if traces else []
        cut = ((max(a, begin), min(b, end)) for trace in traces for a, b in trace.gaps for begin, end in stretches if begin < b and a < end)
        return _joined(sorted(cut))

    @property
    def n_done(self) -> int:
        """How many of its items ended, well or not."""
        return sum(lane.n_done for lane in self.lanes)

    @property
    def errors(self) -> dict[int, BaseException]:
        """The exceptions of its items that failed, by item, in their order."""
        return dict(sorted((pair for lane in self.lanes for pair in lane.errors.items()), key=itemgetter(0)))

    @property
    def tries(self) -> dict[int, int]:
        """How often items were tried that needed more than one try, by item, in their order."""
        return dict(sorted((pair for lane in self.lanes for pair in lane.tries.items()), key=itemgetter(0)))

    @property
    def broke(self) -> int | None:
        """The item that broke the loop first; None where none did."""
        return min((each for lane in self.lanes for each in lane.breaks), default=(0.0, None))[1]

    @property
    def made(self) -> set[int]:
        """The items in which workers made what they kept for others."""
        return {item for lane in self.lanes for batch in lane.batches for item in batch.made}

    @property
    def all_failed(self) -> bool:
        """Whether there were items, and none of them ended well."""
        return 0 < self.n_items <= sum(len(lane.errors) for lane in self.lanes)

    @property
    def results(self) -> list[Any]:
        """The results in item order; None for items that failed or never started."""
        results: list[Any] = [None] * self.n_items
        for lane in self.lanes:
            for batch in lane.batches:
                results[batch.first : batch.first + len(batch.values)] = batch.values
        return results

    @property
    def results_by_item(self) -> dict[int, Any]:
        """The results of the items that ended well."""
        found: dict[int, Any] = {}
        for lane in self.lanes:
            for batch in lane.batches:
                found |= {item: value for item, value in enumerate(batch.values, batch.first) if item not in batch.errors}
        return found

    @property
    def items_run(self) -> set[int]:
        """The numbers of the items that ended, well or not."""
        return {item for lane in self.lanes for batch in lane.batches for item in batch.items}

    @property
    def seconds_by_item(self) -> list[float]:
        """The wall seconds of each item, in item order; NaN for those that never ended."""
        seconds = [nan] * self.n_items
        for lane in self.lanes:
            for item, begin, end in zip(*lane.items(), strict=True):
                seconds[item] = end - begin
        return seconds


def _joined(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Make one of stretches, in the order of their begins, that lie no further apart than a worker needs for its next items."""
    found: list[tuple[float, float]] = []
    for begin, end in stretches:
        if found and begin - found[-1][1] <= NEXT:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


class Slice(NamedTuple):
    """A part of a worker's time, in seconds on our clock, in which it was in one state that is not work.

    ``state`` is one of ``WORKER_STATES``. Of a wait that was measured, ``kind`` is one of ``WAIT_KINDS``; ``holder`` is the rank
    that held the GIL when it began, or -1; ``line`` is the cell's, or 0; ``object`` is an address or a descriptor, or 0, and
    ``name`` what the body calls it, where that is known; ``with_gil`` tells whether the worker held the GIL while it waited.
    Of a wait that was inferred, ``samples`` is how many it was seen in; elsewhere 0.
    """

    begin: float
    end: float
    state: str
    kind: str = ""
    holder: int = -1
    line: int = 0
    object: int = 0
    name: str = ""
    with_gil: bool = False
    samples: int = 0


@dataclass(slots=True)
class Baseline:
    """The serial seconds that an arm is measured against, and how they are known: ``measured``, ``sampled`` or ``estimated``.

    An estimate has none of its own (None): it is the arm's own useful seconds, which its table has.
    ``isolated``: measured in a process of its own. ``results`` are by item, for a comparison, and ``ends`` is what the names ended as
    that the body changes, where it ran all items. ``load`` is what else went on meanwhile, ``run`` the account of the serial run.
    """

    serial_s: float | None
    how: str
    isolated: bool = False
    results: dict[int, Any] = field(default_factory=dict)
    load: Load | None = None
    ends: dict[str, End] = field(default_factory=dict)
    run: Timeline | None = None

    @classmethod
    def estimated(cls) -> Baseline:
        """Take the arm's own useful seconds."""
        return cls(None, "estimated")


@dataclass(frozen=True, slots=True)
class Calls:
    """A worker's function calls, as NumPy arrays of one length, in the order of their begins, the longest first.

    ``begins`` and ``ends`` are seconds on our clock; ``places`` say where each call's
    function, with its file and line, is in ``names``.
    """

    rank: int
    begins: Any
    ends: Any
    places: Any
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return how many calls there are."""
        return len(self.begins)

    def __iter__(self) -> Iterator[tuple[float, float, str]]:
        """Yield (begin, end, name) of each."""
        return zip(self.begins.tolist(), self.ends.tolist(), (self.names[place] for place in self.places.tolist()), strict=True)
