"""One small interface, and the ways to run a body behind it: serial, threads, processes.

In: a ``Job``. Out: recordings, prints, news. Imported by: execute.

::

    Job ──▶ Workers.map(job) ──▶ Recording, Recording, Printed, None, Recording, …

``map`` streams what the workers report while they work; None is a heartbeat,
so that the caller can show progress and look at the clock. Closing the
iterator ends its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from parmagic.model.plan import Arm, Plan
from parmagic.model.progress import QUIET_FOR, Displayed, InLine, Logged, Printed, Pulse, Standing
from parmagic.model.recording import Recording
from parmagic.record.items import Call
from parmagic.system.files import RunFile
from parmagic.workers.dispatch import Sharing

Report = Recording | Printed | Displayed | Logged | Standing | Pulse | InLine | None

HEARTBEAT = 0.05
"""Seconds between two heartbeats at most."""

PULSE = 0.5
"""Seconds between two looks at what the workers are doing, after that."""

PATIENCE = 10.0
"""Seconds without an item's end from which on a run tells what its workers are doing."""


class Patience:
    """Tells when it is time to say what the workers are doing: after 10 s without an item's end, then 20, then 40.

    And when to have a look at all of them: after the first 2 s, twice a second.
    """

    def __init__(self) -> None:
        self._pulse = perf_counter() + QUIET_FOR
        self.progress()

    def progress(self) -> None:
        """Items have ended."""
        self._since, self._bound = perf_counter(), PATIENCE

    def hear(self, report: Report) -> None:
        """Look whether a report is of items that have ended."""
        if isinstance(report, Recording) and report.batches:
            self.progress()

    def pulse_is_due(self) -> bool:
        """Tell whether it is time to have a look."""
        if perf_counter() < self._pulse:
            return False
        self._pulse = perf_counter() + PULSE
        return True

    def is_over(self) -> bool:
        """Tell whether it is time now."""
        if perf_counter() - self._since < self._bound:
            return False
        self._bound *= 2
        return True


@dataclass(frozen=True, slots=True)
class Job:
    """An arm's work: ``call(item, worker)`` for every item.

    ``sharing`` tells which worker runs which items, ``trace_file`` where the
    functions of a worker's process go.
    """

    call: Call
    items: Sequence[Any]
    arm: Arm
    plan: Plan
    sharing: Sharing
    trace_file: Callable[[int], RunFile]


class Workers(Protocol):
    """A way to run a job.

    ``in_this_process`` tells whether they run in this process, so that its CPU time and its GIL are theirs.
    """

    in_this_process: bool

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job and stream what its workers report."""
        ...
