"""A model of workers in one file: plain threads, and the least that a model has to do.

``with registered():`` lets magic lines have it, as in ``%%parallel toy=2 for x in xs``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from parmagic.model.recording import Recording
from parmagic.model.traits import Model
from parmagic.record import meter
from parmagic.record.board import STOP, blank_board
from parmagic.record.hooks import hooked
from parmagic.record.items import Worker, enter
from parmagic.system import limits
from parmagic.system.interrupts import forget, undo
from parmagic.workers import HEARTBEAT, Job, Report, registry
from parmagic.workers.dispatch import Counter, OwnItem, SharedDeck
from parmagic.workers.loop import work

TOY = Model("toy", "toys", shares_memory=True, own_process=False, shares_gil=True, also=("toys",), meant=("plaything",))


class ToyWorkers:
    """Threads that take items until there are none, or until they are told to stop."""

    in_this_process = True

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job; closing the iterator ends it with the items that are under way."""
        hooks = hooked()
        try:
            with hooks as measuring:
                yield from self._run(_Crew(job, measuring))
        finally:
            undo(hooks.end)  # a Ctrl-C may have come at the begin of the block's end

    def _run(self, crew: _Crew) -> Iterator[Report]:
        try:
            crew.start()
            yield from crew.listen()
        except GeneratorExit:
            raise  # nobody listens any more
        except BaseException:
            forget()  # an interrupt is not lost: it is raised when all has been said
            crew.end()
            yield from crew.listen()
            raise
        finally:
            crew.end()


class _Crew:
    def __init__(self, job: Job, measuring: bool) -> None:
        self.job = job
        self.measuring = measuring
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.board = blank_board(job.arm.count)
        self.counter = Counter(len(job.items))
        self.threads = [threading.Thread(target=self._run, args=(rank,), name=f"parmagic {job.arm.label} {rank}") for rank in range(job.arm.count)]

    def start(self) -> None:
        for thread in self.threads:
            limits.start(thread)  # which no Ctrl-C cuts short

    def end(self) -> None:
        self.board[STOP] = 1
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()

    def listen(self) -> Iterator[Report]:
        """Yield what the workers report, and a heartbeat where they have nothing to say."""
        while any(thread.is_alive() for thread in self.threads) or not self.reports.empty():
            try:
                yield self.reports.get(timeout=HEARTBEAT)
            except queue.Empty:
                yield None

    def _run(self, rank: int) -> None:
        job, gauge = self.job, meter.meter(rank, own_process=False, measuring=self.measuring)
        worker, me = Worker(rank, job.arm.count, job.arm.model.name, job.plan), meter.who(rank, gauge)
        claims = job.sharing.claims_of(rank)
        deck = SharedDeck(self.counter, job.arm.count, job.plan.chunk, self.board) if claims is None else OwnItem(*claims)
        enter(worker)
        try:
            work(
                job.call, lambda claim: job.items[claim.start : claim.stop], deck, worker, gauge, self.board,
                lambda batch, readings: self.reports.put(Recording(me, batches=(batch,), readings=readings)),
                keep_going=job.plan.keep_going,
            )  # fmt: skip
        finally:
            self.reports.put(Recording(me, readings=gauge.take(), usage=gauge.usage(), totals=gauge.close()))
            worker.leave()
            self.reports.put(Recording(me, notes=tuple(worker.notes())))
            enter(None)


@contextmanager
def registered() -> Iterator[None]:
    """Register the model within a block."""
    registry.register(TOY, lambda _: ToyWorkers())
    try:
        yield
    finally:
        registry.unregister(TOY)
