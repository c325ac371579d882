"""What workers report.

All is frozen; times are float seconds on ``CLOCK_MONOTONIC`` (what
``time.perf_counter`` reads on Linux and macOS), which all processes of a
machine share; a recording says whose clock its times are on.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from parmagic.model.helpers import Helpers
from parmagic.model.kinds import MEASURED
from parmagic.model.sent import sent
from parmagic.model.taken import NONE, Synced
from parmagic.model.waits import Total, Waits
from parmagic.system.host import HOST


@dataclass(frozen=True, slots=True)
class WorkerId:
    """Who a worker is for the system: its rank in the arm, process and thread.

    ``runtime`` is where its process keeps ``_PyRuntime``: the sampler tells
    the GIL from other locks by it. 0 where no sampler is needed. ``gil`` tells
    whether its process had a GIL when it began. ``host`` is the machine that it is on.

    ``takes_items`` tells what its time is about: a worker that items are handed to is idle outside of
    them, also where it got none; all others are accounted for from their first reading to their last.
    """

    rank: int
    pid: int
    tid: int
    runtime: int = 0
    gil: bool = True
    host: str = HOST
    takes_items: bool = True


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock that times are on: its machine, the seconds to add to be on ours, and by how many these may be wrong.

    Only who reads a recording can know how that clock differs from its own: who writes it
    says :data:`HERE`, and that is what it is where it is read.
    """

    host: str
    offset: float = 0.0
    uncertainty: float = 0.0

    def __reduce__(self) -> str | tuple[type[Clock], tuple[str, float, float]]:
        """Cross a border as the one clock that nobody has to look at, where it is that."""
        return "HERE" if self is HERE else (Clock, (self.host, self.offset, self.uncertainty))


HERE = Clock(HOST)
"""The clock that all processes of this machine share."""


@dataclass(frozen=True, slots=True)
class Span:
    """A worker did ``kind`` from ``begin`` to ``end``.

    Kinds: ``startup``, ``transfer``; everything else follows from items,
    clocks and samples.
    """

    kind: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive items ``first`` … ``first + len(begins) - 1`` on one worker.

    ``errors`` maps an item's number to its exception; its value is None then. ``broke`` is the item that broke the loop,
    and ``made`` are those in which the worker made something that it kept for others.
    ``tries`` tells how often items were tried that needed more than one try. ``again``: of its one item, this was a try that
    ended with its worker, and another worker tries it again.
    """

    first: int
    begins: array[float]
    ends: array[float]
    values: list[Any]
    errors: dict[int, BaseException] = field(default_factory=dict)
    broke: int | None = None
    made: tuple[int, ...] = ()
    tries: dict[int, int] = field(default_factory=dict)
    again: bool = False

    @property
    def items(self) -> range:
        """The numbers of its items."""
        return range(self.first, self.first + len(self.begins))


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that raised: its number, the rank of the worker that ran it, and the exception.

    The same exception may be raised at several items, by several workers and in
    several runs: what is to be said of one of them stands here, and not on the exception.
    """

    item: int
    worker: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Clocks:
    """A worker's own clocks, read now and then while it works.

    ``cpu`` is the thread's CPU time and ``queue`` the time that it stood in a
    run queue, both cumulative at ``at``; ``queue`` is NaN where the system
    does not tell.
    """

    at: array[float]
    cpu: array[float]
    queue: array[float]


@dataclass(frozen=True, slots=True)
class Tally:
    """A worker's account, read now and then: where every second went until then.

    ``rows`` holds readings one behind another, each of them the time, and then the seconds so far in each of the states of
    ``MEASURED``. Between two readings these seconds add up to the time that passed.
    """

    rows: array[float]

    @property
    def times(self) -> array[float]:
        """When it was read."""
        return self.rows[:: 1 + len(MEASURED)]

    def seconds_in(self, state: str) -> float:
        """Return the seconds that were counted in one of these states between the first reading and the last."""
        place, width = 1 + MEASURED.index(state), 1 + len(MEASURED)
        return self.rows[place - width] - self.rows[place] if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Readings:
    """What a worker's meter hands over with a report: clocks where waits are inferred, else a tally and waits."""

    clocks: Clocks | None = None
    tally: Tally | None = None
    waits: Waits | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """What a worker's thread was seen doing: ``states[i]`` at ``at[i]``.

    ``states`` are the names' places in ``SEEN``.
    """

    at: array[float]
    states: array[int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker used in an arm: seconds, switches, peak memory in MB.

    ``cpu_s`` is the worker thread's; ``process_cpu_s`` and ``rss_mb`` are the whole process's, for
    a worker that has a process to itself, else NaN.
    """

    cpu_s: float
    process_cpu_s: float
    ctx_voluntary: float
    ctx_involuntary: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Moved:
    """What crossed a worker process's border, names and items on their way in, results on their way home: bytes and seconds."""

    unpacked: int = 0
    unpack_s: float = 0.0
    returned: int = 0
    return_s: float = 0.0

    def __add__(self, other: Moved) -> Moved:
        """Add up what a rank moved that was started again after a death."""
        return Moved(
            self.unpacked + other.unpacked, self.unpack_s + other.unpack_s, self.returned + other.returned, self.return_s + other.return_s
        )

CALLS_KEPT = 1_000_000
"""Function calls that VizTracer keeps of a process; the oldest are lost beyond that."""


@dataclass(frozen=True, slots=True)
class TraceFile:
    """What VizTracer recorded in one process: in a file, or as ``data`` where that is small.

    ``anchors`` are two pairs (VizTracer's microseconds, our seconds). ``gaps`` are the begins and ends of the stretches in
    which functions were not recorded, so that tracing kept within its budget. ``workers`` maps a
    thread id to the worker's rank; events of other threads are not ours.

    ``lost`` is how many calls are not in it, the oldest of the process: NaN where that is not known, and maybe more
    where it is not ``lost_exactly``. All calls that ended at ``since`` or later are in it; None: all.
    """

    path: str
    pid: int
    anchors: tuple[tuple[float, float], tuple[float, float]]
    workers: dict[int, int]
    gaps: tuple[tuple[float, float], ...] = ()
    overhead_s: float = 0.0
    notes: tuple[str, ...] = ()
    data: bytes = b""
    lost: float = 0
    lost_exactly: bool = True
    since: float | None = None


def on_our_clock(anchors: tuple[tuple[float, float], tuple[float, float]], at: Any) -> Any:
    """Map VizTracer's microseconds (a number, or an array of them) onto our seconds, linearly through both anchors."""
    (theirs, ours), (theirs_end, ours_end) = anchors
    rate = (ours_end - ours) / (theirs_end - theirs) if theirs_end > theirs else 1e-6
    return ours + (at - theirs) * rate


@dataclass(frozen=True, slots=True)
class Child:
    """A thread that a worker's body started, or that such a thread started.

    ``worker`` is who it is for the system, its rank that of the worker below which it ran. ``name`` is what it is called, ``kind``
    what it is (``thread``). It was started at ``begin``, and has ended at ``end``; or was looked at then, as it still ``goes_on``.
    """

    worker: WorkerId
    name: str
    kind: str
    begin: float
    end: float
    goes_on: bool = False
    readings: Readings | None = None
    totals: tuple[Total, ...] = ()
    synced: Synced = NONE


@dataclass(frozen=True, slots=True)
class End:
    """What a name ends as, told by numbers alone: a whole number, or how many elements there are in a thing of that ``kind``.

    ``total`` is what these add up to, where they count something.
    """

    kind: str
    number: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A part of what a worker reports; the only thing that crosses its border.

    Parts of one worker add up: see :func:`parmagic.analyze.merge.merge`. All times in it are on its
    ``clock``, which need not be that of the worker's machine: a death is noted by who saw it.
    ``samples`` are those that were taken where the worker is; ours are not part of any recording.
    ``noted`` ones are from who watches the worker, and of its ``worker`` only rank, process and thread are known.
    ``helpers`` are the threads of libraries in its process, ``children`` what the body started, told once in an arm. ``ends`` is what
    names ended as that the body changes, of a serial run that has the notebook's memory for itself. ``synced`` is what the worker did
    with locks.
    """

    worker: WorkerId
    spans: tuple[Span, ...] = ()
    batches: tuple[Batch, ...] = ()
    readings: Readings | None = None
    totals: tuple[Total, ...] = ()
    usage: Usage | None = None
    trace: TraceFile | None = None
    notes: tuple[str, ...] = ()
    moved: Moved | None = None
    samples: Samples | None = None
    clock: Clock = HERE
    noted: bool = False
    helpers: tuple[Helpers, ...] = ()
    children: tuple[Child, ...] = ()
    ends: dict[str, End] = field(default_factory=dict)
    synced: Synced = NONE

    @property
    def n_done(self) -> int:
        """How many items it tells of: all of them have ended, well or not."""
        return sum(len(batch.begins) for batch in self.batches if not batch.again)

    @property
    def last_end(self) -> float | None:
        """When the last of them ended; None where it tells of none."""
        return max((batch.ends[-1] for batch in self.batches if batch.ends), default=None)


for _kind in (
    WorkerId, Span, Batch, Failure, Clocks, Tally, Waits, Total, Readings, Samples, Usage, Moved, TraceFile, Child, End, Recording,
):  # fmt: skip
    sent(_kind)
