"""Workers with memory of their own: processes.

::

    notebook ── start, end ──▶ server ── forks ──▶ worker 0 … n-1
       ▲  ◀── started, ended ────┘                     │  │
       │◀───────── recordings, results (a pipe each) ──┘  │
       └◀───────── stdout, stderr (pipes) ────────────────┘
                   board: stop flag, current items, claims (shared memory)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from parmagic.model.progress import InLine
from parmagic.system import limits
from parmagic.system.interrupts import forget, held_back
from parmagic.workers import Job, Report
from parmagic.workers.processes.crew import Crew
from parmagic.workers.processes.hub import Hub

if TYPE_CHECKING:
    from parmagic.workers.processes.ship import Cargo


class IsolatedWorkers:
    """Runs jobs in processes that ``hub`` starts.

    ``cargo`` is what they unpickle; None where the hub was forked off this
    process, with the body and the items in its memory.
    """

    in_this_process = False

    def __init__(self, hub: Hub, cargo: Cargo | None) -> None:
        self._hub = hub
        self._cargo = cargo

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job in ``job.arm.count`` processes; closing the iterator kills them."""
        waited = False
        for _ in self._hub.lease.turn():
            waited = True
            yield InLine()
        try:
            if waited:
                yield InLine()  # until now
            with limits.explained():
                yield from self._run(Crew(self._hub, self._cargo, job))
        finally:
            self._hub.lease.release()

    def _run(self, crew: Crew) -> Iterator[Report]:
        try:
            with held_back():
                crew.open()
            yield from crew.listen()
        except GeneratorExit:
            raise
        except BaseException:
            forget()  # it is not lost: it is raised when all has been said
            yield from crew.unfinished()  # interrupted: the items that were under way are named
            crew.end()
            yield from crew.not_left
            raise
        finally:
            try:
                crew.end()
            finally:
                crew.end()  # a Ctrl-C may come just before it begins
