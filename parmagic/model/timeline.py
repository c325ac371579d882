"""Recordings of an arm, put together: one clock, a lane for each worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parmagic.model.kinds import MEASURED
from parmagic.model.plan import Arm
from parmagic.model.recording import NO_WAITS, Batch, Clocks, Failure, Moved, Samples, Span, Tally, Total, TraceFile, Usage, Waits, WorkerId


@dataclass(frozen=True, slots=True)
class Lane:
    """One worker's whole story in one arm: the parts of its Recordings, in time order.

    Where it has a tally its waits were measured; else they are inferred from clocks and samples.
    All its times are on our clock, to within ``uncertainty`` seconds.
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

    @property
    def at_work(self) -> tuple[float, float] | None:
        """From when until when its time is divided: from its first item to its last, without items from its first reading to its last."""
        if self.worker.takes_items:
            return (self.batches[0].begins[0], max(batch.ends[-1] for batch in self.batches)) if self.batches else None
        read = self.clocks.at if self.tally is None else self.tally.rows[:: 1 + len(MEASURED)]
        return (read[0], read[-1]) if read else None


@dataclass(frozen=True, slots=True)
class Packed:
    """What the notebook packed for the processes of an arm: bytes and seconds."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """One arm on one clock: ``begin`` to ``end``, a lane per worker, in rank order.

    ``packed`` is None where nothing had to be packed: for threads, and for a fork of the notebook.
    ``failure`` is the one that ``error`` came from; None where it came from no item.
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
    ``isolated``: measured in a process of its own. ``results`` are by item, for a comparison.
    """

    serial_s: float | None
    how: str
    isolated: bool = False
    results: dict[int, Any] = field(default_factory=dict)

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
