"""Recordings of an arm, put together: one clock, a lane for each worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parmagic.model.plan import Arm
from parmagic.model.recording import NO_WAITS, Batch, Clocks, Failure, Moved, Samples, Span, Tally, Total, TraceFile, Usage, Waits, WorkerId


@dataclass(frozen=True, slots=True)
class Lane:
    """One worker's whole story in one arm: the parts of its Recordings, in time order.

    Where it has a tally its waits were measured; else they are inferred from clocks and samples.
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
