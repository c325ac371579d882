"""Workers that share the notebook's memory: threads, and one thread for a serial arm."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from parmagic.errors import Ended, ItemTimeout, ParmagicError
from parmagic.model.recording import Batch, Readings, Recording, Span, WorkerId
from parmagic.model.taken import NONE
from parmagic.record import lives, meter, tracing, usage
from parmagic.record.board import NOTHING, STOP, TRY, blank_board, item_slot
from parmagic.record.children import Children
from parmagic.record.circles import Circles
from parmagic.record.helpers import HelperThreads
from parmagic.record.holding import named
from parmagic.record.hooks import hooked
from parmagic.record.items import Worker, enter
from parmagic.system import limits, runs
from parmagic.system.interrupts import calm, forget, heed_forks, held_back, undo
from parmagic.system.real import Empty, lead_the_loop, new_thread
from parmagic.workers import Job, Patience, Report
from parmagic.workers.dispatch import Counter, Deck, OwnItem, SharedDeck
from parmagic.workers.doing import Doing
from parmagic.workers.endings import GRACE, cut_off, over_time
from parmagic.workers.gate import Gate
from parmagic.workers.interrupting import Interrupts
from parmagic.workers.loop import InTurn, body_of, names_in, work
from parmagic.workers.output import ThreadOutput, leave
from parmagic.workers.overtime import LateThreads
from parmagic.workers.pyplot import Pyplot
from parmagic.workers.reports import Reports
from parmagic.workers.settings.taken import in_thread, of_threads


class SharedWorkers:
    """Runs a job in threads of this process."""

    in_this_process = True

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job in ``job.arm.count`` threads; closing the iterator ends them."""
        crew = _Crew(job)
        output, hooks = crew.output, hooked()

        def end() -> None:
            for each in (crew.circles, hooks, output, crew.trace, crew.pyplot, crew.children):
                each.end()

        try:
            with limits.explained(), output, crew.children, hooks as crew.measuring:
                try:
                    yield from self._run(crew)
                finally:
                    crew.trace.end()  # also where a second interrupt kept it from being finished
        finally:
            undo(end)  # a Ctrl-C may have come at the begin or the end of the block
        yield from crew.waiting()  # lines that no newline ended

    def _run(self, crew: _Crew) -> Iterator[Report]:
        try:
            crew.trace.start()
            if crew.count > 1:
                crew.pyplot.begin()
            crew.start()
            yield from crew.listen()
        except GeneratorExit:
            crew.end()
            crew.trace.finish(crew.job.trace_file(0))
            raise
        except BaseException:
            forget()  # it is not lost: it is raised when all has been said
            yield from crew.last_words()  # interrupted: what was recorded is reported all the same
            raise
        yield from crew.last_words()


class _Gone(NamedTuple):  # the worker of this rank reports no more
    rank: int


class _Crew:
    """The threads of one arm."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.count = job.arm.count
        self.reports: Reports[Report | _Gone] = Reports()
        self.board = blank_board(self.count).tolist()  # written at each item, where a list is faster than an array
        self.who: dict[int, WorkerId] = {}
        self._them: dict[int, Worker] = {}
        self.gauges: dict[int, meter.Meter] = {}
        self.heard: dict[int, float] = {}  # when each worker reported last
        self.trace = tracing.prepare(job.plan.trace)
        self._of, self._settings = runs.current(), of_threads()
        self._contexts = [copy_context() for _ in range(self.count)]  # the notebook's: what it set, the cell that display shows under
        self.output = ThreadOutput(self.reports.put)
        self.pyplot = Pyplot(names_in(job.call))
        self.measuring = False
        self._ending = 0.0  # when the threads were told to end: items that go on are cut off there
        self._accounted = set[int]()  # ranks that have handed in their accounts
        self.given_up: set[int] = set()  # ranks whose last item was reported for them
        self._done = 0
        self._fault: BaseException | None = None  # what ended a worker that was not to end
        self._call = InTurn(job.call, len(job.items)) if job.sharing.in_turn else job.call
        self._n_items = sum(map(len, job.sharing.claims)) or len(job.items)
        self._counter = Counter(len(job.items))
        self._gate = Gate(self.count)
        self._begin, self._born = perf_counter(), [0.0] * self.count
        self._threads = [new_thread(self._run, (rank,), name=f"parmagic {job.arm.model.name} {rank}") for rank in range(self.count)]
        self._helpers, self.children = HelperThreads(from_birth=False), Children(body_of(job.call))
        self.circles = Circles(self._alive, self.children, shared=True)
        self._interrupts = Interrupts(self._threads)
        self._late = LateThreads(job.plan, self.board, self._threads)
        self._doing = Doing(job, self.board, self._threads, self.who, self.gauges)

    def start(self) -> None:
        heed_forks()
        lead_the_loop()
        self.circles.begin(measuring=self.measuring)
        for rank, thread in enumerate(self._threads):
            self._born[rank] = perf_counter()
            limits.start(thread)

    def listen(self) -> Iterator[Report]:
        """Yield reports until all threads are done, but for those that are blocked in an item that is over its time."""
        left, patience = set(range(self.count)), Patience()
        while left - self.given_up:
            try:
                report = self.reports.take(self._late.next_look())
            except Empty:
                yield None
                self._look_for_the_lost()
                if patience.is_over():
                    yield from self._doing.standing(for_good=self.circles.outsiders)
            else:
                if isinstance(report, _Gone):
                    left.discard(report.rank)
                    self._raise_a_fault()  # at once: the others may wait for that worker
                elif not self._is_late(report):
                    patience.hear(report)
                    self._done += report.n_done if isinstance(report, Recording) else 0
                    yield from self.reports.delivered(report)
            self.output.forks.take()
            yield from self._end_overdue(left) if self.job.plan.item_timeout else ()
            if patience.pulse_is_due():
                yield self._doing.pulse()

    def _end_overdue(self, left: set[int]) -> Iterator[Report]:
        """End tries that are over their time; say which do not end, and give these up where nothing else is waited for."""
        for rank in self._late.strike(left - self.given_up):
            yield self._doing.is_at(rank, self.board[item_slot(rank)], "is over its --item-timeout, and cannot be interrupted there")
        for rank in self._late.hopeless(left - self.given_up, self._done, self._n_items):
            late = ItemTimeout(f"{over_time(self.job.plan.item_timeout)}, and is blocked")
            yield from self._cut_off(rank, perf_counter(), late)
            self.board[STOP] = 1  # with --keep-going, nothing is left to be started

    def _is_late(self, report: Report) -> bool:
        return isinstance(report, Recording) and report.worker.rank in self.given_up

    def _raise_a_fault(self) -> None:
        """Raise what ended a worker that was not to end; what would end this thread as well, or interrupt it, in words."""
        if isinstance(self._fault, Exception):
            raise self._fault
        if self._fault is not None:
            raise ParmagicError(f"A worker was ended by {type(self._fault).__name__}: {self._fault}") from self._fault

    def _look_for_the_lost(self) -> None:
        """Raise where all threads have ended and one did not say so: nothing more will come."""
        if not any(thread.is_alive() for thread in self._threads) and self.reports.empty():
            self._raise_a_fault()
            raise ParmagicError("A worker's thread ended without saying why.")

    def _alive(self) -> set[int]:
        """Return the idents of the threads that have not ended their work."""
        return {thread.ident or 0 for rank, thread in enumerate(self._threads) if rank not in self._accounted and thread.is_alive()}

    def last_words(self) -> Iterator[Report]:
        """End all threads, then yield what is still to be reported."""
        stuck = self.end()
        trace = self.trace.finish(self.job.trace_file(0))
        yield from self.waiting()
        yield from self._unfinished(stuck)
        self.circles.end()
        me, children = self.who.get(0, WorkerId(0, os.getpid(), 0)), self.children.take()
        notes = (*(self._doing.stuck(rank) for rank in stuck), *self.pyplot.notes, *self.children.notes())
        yield Recording(me, trace=trace, notes=notes, noted=True, helpers=self._helpers.found(), children=children)

    def waiting(self) -> Iterator[Report]:
        """Yield what was reported and not yet taken."""
        for report in self.reports.rest():
            if not isinstance(report, _Gone) and not self._is_late(report):
                yield report

    def _unfinished(self, stuck: list[int]) -> Iterator[Report]:
        """Yield the items that threads are blocked in, as ended before their time, with what their meters tell."""
        for rank in stuck:
            if rank not in self.given_up:
                yield from self._cut_off(rank, self._ending, Ended())

    def _cut_off(self, rank: int, now: float, error: BaseException) -> Iterator[Report]:
        item, gauge = self.board[item_slot(rank)], self.gauges.get(rank)
        if gauge is None or item <= NOTHING or rank not in self.who:
            return
        me = self.who[rank]
        left = gauge.peek(now, usage.cpu_seconds(me.pid, me.tid))
        if left is None and gauge.measures:
            return  # it has come back meanwhile, and reported
        begin, readings, totals = left or (0.0, None, ())
        self.given_up.add(rank)
        yield cut_off(me, item, (begin or self.heard.get(rank, now), readings, totals), now, error, tries=self.board[item_slot(rank) + TRY])

    def end(self) -> list[int]:
        """End all threads: none takes a further item, and one that runs Python is interrupted.

        Returns the ranks of those that would not end: they are blocked in C.
        """
        self.board[STOP] = 1
        self._ending = self._ending or perf_counter()
        with held_back():  # the lock within would stay locked
            self._gate.abort()
        alive = [thread for thread in self._threads if thread.is_alive()]
        interrupted = bool(alive) and sys.exc_info()[0] is not None
        if interrupted:
            self._interrupts.raise_in_all(self.heard)
        deadline = perf_counter() + GRACE
        for rank, thread in enumerate(self._threads):  # also those that are ending: they still have what VizTracer knows of them
            if thread.ident is not None and rank not in self.given_up:
                thread.join(max(0.0, deadline - perf_counter()))
        if interrupted or self.given_up:
            calm()
        return [rank for rank, thread in enumerate(self._threads) if thread.is_alive()]

    def _run(self, rank: int) -> None:
        """Be worker ``rank``; whatever ends it, the main thread hears of it."""
        try:
            self._guarded(self._contexts[rank].run, self._work, rank)
            try:
                self._interrupts.leave(rank)
            except Ended:
                self._interrupts.leave(rank)  # it came in the last moment
            self._guarded(self._report_the_end, rank)
        finally:
            self.reports.put(_Gone(rank))

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do a step; what it raises is not the body's, which is recorded: the run ends, and the main thread raises it."""
        try:
            step(*arguments)
        except Ended:
            pass  # the run is over: what was done is reported
        except BaseException as error:  # noqa: BLE001  (raised by the main thread)
            self._fault = self._fault or error
            self.board[STOP] = 1
            self._gate.abort()

    def _work(self, rank: int) -> None:
        worker = self._them[rank] = Worker(rank, self.count, self.job.arm.model.name, self.job.plan)
        worker.guard = self._late.alarm(rank)
        gauge = meter.meter(rank, own_process=False, measuring=self.measuring, born=self._born[rank])
        self.gauges[rank] = gauge
        me = self.who[rank] = meter.who(rank, gauge)
        enter(worker)
        in_thread(self._settings)
        self.children.adopt(rank, measuring=self.measuring, enter=partial(self.output.attach_below, worker))
        self.output.attach(worker)
        self.pyplot.attach()
        if self._of is not None:
            self._of.attach(self.count)
        self.trace.attach(rank)
        self.heard[rank] = ready = perf_counter()
        readings = gauge.take()
        try:
            self._gate.wait(rank)
        finally:
            self.reports.put(Recording(me, spans=(Span("startup", self._begin, self._gate.opened or ready),), readings=readings))
        try:
            work(
                self._call, lambda claim: self.job.items[claim.start : claim.stop], self._deck(rank), worker, gauge, self.board,
                lambda *what: self._report(me, *what), self.trace.refresh, self.trace.detach, keep_going=self.job.plan.keep_going,
            )  # fmt: skip
        finally:
            if worker.keeps:
                try:
                    self._interrupts.part(rank)
                    self._hand_in(rank)  # to leave that is none of its items' time
                finally:
                    worker.leave()

    def _hand_in(self, rank: int) -> None:
        """End a worker's account and report it; once."""
        if rank not in self._accounted:
            self._accounted.add(rank)
            self.trace.leave()
            gauge = self.gauges[rank]
            self.circles.leaves(rank)
            synced, readings, used = gauge.synced(), gauge.take(), gauge.usage()
            me, waits, later = self.who[rank], gauge.close(), synced.has_things  # to find the names of things takes a while
            self.reports.put(Recording(me, readings=readings, usage=used, totals=waits, synced=NONE if later else synced))
            if later:
                (synced,) = named([synced], body_of(self.job.call))
                self.reports.put(Recording(me, synced=synced, noted=True))
            self._helpers.look(waits)

    def _report_the_end(self, rank: int) -> None:
        try:
            if rank in self.who:
                self._hand_in(rank)
                if notes := self._them[rank].notes():
                    self.reports.put(Recording(self.who[rank], notes=tuple(notes)))
        finally:
            if rank in self.gauges:
                self.gauges[rank].close()
            self._helpers.end()
            enter(None)
            leave()
            lives.leave()

    def _deck(self, rank: int) -> Deck:
        claims = self.job.sharing.claims_of(rank)
        return OwnItem(*claims) if claims is not None else SharedDeck(self._counter, self.count, self.job.plan.claim, self.board)

    def _report(self, me: WorkerId, batch: Batch, readings: Readings) -> None:
        self.heard[me.rank] = perf_counter()
        if batch.errors:
            self.trace.explain(batch)
        self.reports.put(Recording(me, batches=(batch,), readings=readings))
