"""Workers that share the notebook's memory: threads, and one thread for a serial arm."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from time import perf_counter
from typing import Any

from parmagic.errors import Ended, EndedHeld, ParmagicError
from parmagic.model.private import Private, say
from parmagic.model.progress import Pulse, Standing
from parmagic.model.recording import Batch, Readings, Recording, Span, WorkerId
from parmagic.record import meter, tracing, usage
from parmagic.record.hooks import hooked
from parmagic.record.items import NOTHING, STOP, Worker, blank_board, enter, item_slot
from parmagic.system import debugger, limits, runs
from parmagic.system.interrupts import calm, forget, heed_forks, held_back, raise_in, undo
from parmagic.system.real import Empty, Lock, SimpleQueue, lead_the_loop, new_thread, sleep
from parmagic.workers import HEARTBEAT, Job, Patience, Report
from parmagic.workers.dispatch import Counter, Deck, OwnItem, SharedDeck
from parmagic.workers.endings import GRACE, cut_off
from parmagic.workers.loop import InTurn, body_file, names_in, work
from parmagic.workers.output import ThreadOutput, leave
from parmagic.workers.pyplot import Pyplot
from parmagic.workers.settings.taken import in_thread, of_threads
from parmagic.workers.stack import frames_of, in_library, line_in

OUT_OF_LIBRARY = 0.1
"""Seconds that a thread gets before that to come out of the standard library."""


class SharedWorkers:
    """Runs a job in threads of this process."""

    in_this_process = True

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job in ``job.arm.count`` threads; closing the iterator ends them."""
        crew = _Crew(job)
        output, hooks = crew.output, hooked()

        def end() -> None:
            hooks.end()
            output.end()
            crew.trace.end()
            crew.pyplot.end()

        try:
            with limits.explained(), output, hooks as crew.measuring:
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


class _Crew:
    """The threads of one arm."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.count = job.arm.count
        self.reports: SimpleQueue[Report] = SimpleQueue()
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
        self._leaving = Lock()
        self._accounted: set[int] = set()  # ranks that have handed in their accounts already
        self._left: set[int] = set()
        self.given_up: set[int] = set()  # ranks whose last item was reported for them
        self._fault: BaseException | None = None  # what ended a worker that was not to end
        self._call = InTurn(job.call, len(job.items)) if job.sharing.in_turn else job.call
        self._counter = Counter(len(job.items))
        together = job.sharing.together or debugger.is_attached()  # which loses sight of threads that are born while it holds another
        self._gate = threading.Barrier(self.count) if together else None
        self._begin = perf_counter()
        self._threads = [new_thread(self._run, (rank,), name=f"parmagic {job.arm.model.name} {rank}") for rank in range(self.count)]

    def start(self) -> None:
        heed_forks()
        lead_the_loop()
        for thread in self._threads:
            limits.start(thread)

    def listen(self) -> Iterator[Report]:
        """Yield reports until all threads are done; each of them puts one None at its end."""
        left, patience = self.count, Patience()
        while left:
            try:
                report = self.reports.get(timeout=HEARTBEAT)
            except Empty:
                yield None
                self._look_for_the_lost()
                if patience.is_over():
                    yield from self._standing()
            else:
                if report is None:
                    left -= 1
                    self._raise_a_fault()  # at once: the others may wait for that worker
                else:
                    patience.hear(report)
                    yield report
            self.output.forks.take()
            if patience.pulse_is_due():
                yield self._pulse()

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

    def last_words(self) -> Iterator[Report]:
        """End all threads, then yield what is still to be reported."""
        stuck = self.end()
        trace = self.trace.finish(self.job.trace_file(0))
        yield from self.waiting()
        yield from self._unfinished(stuck)
        me = self.who.get(0, WorkerId(0, os.getpid(), 0))
        notes = (*(self._stuck(self._threads[rank]) for rank in stuck), *self.pyplot.notes)
        yield Recording(me, trace=trace, notes=notes, noted=True)

    def waiting(self) -> Iterator[Report]:
        """Yield what was reported and not yet taken."""
        while not self.reports.empty():
            report = self.reports.get()
            late = isinstance(report, Recording) and report.worker.rank in self.given_up
            if report is not None and not late:
                yield report

    def _unfinished(self, stuck: list[int]) -> Iterator[Report]:
        """Yield the items that threads are blocked in, as ended before their time, with what their meters tell."""
        for rank in stuck:
            item, now, gauge = self.board[item_slot(rank)], self._ending, self.gauges.get(rank)
            if gauge is None or item <= NOTHING or rank not in self.who:
                continue
            me = self.who[rank]
            left = gauge.peek(now, usage.cpu_seconds(me.pid, me.tid))
            if left is None and gauge.measures:
                continue  # it has come back meanwhile, and reported
            begin, readings, totals = left or (0.0, None, ())
            self.given_up.add(rank)
            yield cut_off(me, item, (begin or self.heard.get(rank, now), readings, totals), now, Ended())

    def _at_work(self) -> Iterator[tuple[int, int, str]]:
        """Yield the rank of every thread that has an item, that item, and what the thread is doing."""
        now, found = perf_counter(), []
        for rank, thread in enumerate(self._threads):
            item = self.board[item_slot(rank)]
            if rank in self.who and thread.is_alive() and item > NOTHING:
                # nothing here lets go of a GIL: all are seen at one moment (so the CPU clocks, which no word depends on, are not read)
                found.append((rank, item, self.gauges[rank].peek(now, 0.0)))
        for rank, item, left in found:
            held = debugger.holds(self._threads[rank])
            yield rank, item, "is held by the debugger" if held else meter.doing(self.who[rank], left, now)

    def _pulse(self) -> Pulse:
        return Pulse(lambda: tuple(doing for _, _, doing in self._at_work()))

    def _standing(self) -> Iterator[Standing]:
        """Yield what every thread is doing that has an item."""
        filename = body_file(self.job.call)
        for rank, item, doing in self._at_work():
            yield Standing(rank, item, line_in(frames_of(self._threads[rank].ident), filename), doing)

    def end(self) -> list[int]:
        """End all threads: none takes a further item, and one that runs Python is interrupted.

        Returns the ranks of those that would not end: they are blocked in C.
        """
        self.board[STOP] = 1
        self._ending = self._ending or perf_counter()
        if self._gate:
            with held_back():  # the lock within would stay locked
                self._gate.abort()
        alive = [thread for thread in self._threads if thread.is_alive()]
        interrupted = bool(alive) and sys.exc_info()[0] is not None
        if interrupted:
            self._interrupt()
        deadline = perf_counter() + GRACE
        for thread in self._threads:  # also those that are ending: they still have what VizTracer knows of them
            if thread.ident is not None:
                thread.join(max(0.0, deadline - perf_counter()))
        if interrupted:
            calm()
        return [rank for rank, thread in enumerate(self._threads) if thread.is_alive()]

    def _interrupt(self) -> None:
        """Raise in every thread, as soon as it is out of a fork and of the standard library's own code: locks would stay locked.

        And not while it opens what it is measured by: nobody would close that.
        """
        waiting, until = list(range(self.count)), perf_counter() + OUT_OF_LIBRARY
        while waiting:
            for rank in list(waiting):
                thread = self._threads[rank]
                with self._leaving:
                    left, held = rank in self._left, debugger.holds(thread)
                    if not (left or held) and perf_counter() < until and (self._begins(rank) or in_library(thread)):
                        continue
                    if not left and not raise_in(thread.ident, EndedHeld if held else Ended) and perf_counter() < until + GRACE:
                        continue
                waiting.remove(rank)
            debugger.let_go()  # only now: the body does not go on behind a breakpoint
            if waiting:
                sleep(0.001)

    def _begins(self, rank: int) -> bool:
        """Tell whether a thread is there, and is not yet known with what it is measured by."""
        return self._threads[rank].is_alive() and rank not in self.heard

    def _stuck(self, thread: threading.Thread) -> str:
        frame = next(frames_of(thread.ident), None)
        where = f" at {frame.file}:{frame.line}" if frame else ""
        name = Private(repr(thread.name), "of a worker")  # the body may have given it another
        return say(f"The thread {{name}} is blocked{where} and could not be ended; it is left behind.", name=name)

    def _run(self, rank: int) -> None:
        """Be worker ``rank``; whatever ends it, the main thread hears of it."""
        try:
            self._guarded(self._contexts[rank].run, self._work, rank)
            try:
                self._leave(rank)
            except Ended:
                self._leave(rank)  # it came in the last moment
            self._guarded(self._report_the_end, rank)
        finally:
            self.reports.put(None)

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do a step; what it raises is not the body's, which is recorded: the run ends, and the main thread raises it."""
        try:
            step(*arguments)
        except (Ended, threading.BrokenBarrierError):
            pass  # the run is over: what was done is reported
        except BaseException as error:  # noqa: BLE001  (raised by the main thread)
            self._fault = self._fault or error
            self.board[STOP] = 1
            if self._gate:
                self._gate.abort()

    def _work(self, rank: int) -> None:
        worker = self._them[rank] = Worker(rank, self.count, self.job.arm.model.name, self.job.plan)
        gauge = meter.meter(rank, own_process=False, measuring=self.measuring)
        self.gauges[rank] = gauge
        me = self.who[rank] = meter.who(rank, gauge)
        enter(worker)
        in_thread(self._settings)
        self.output.attach(worker)
        self.pyplot.attach()
        if self._of is not None:
            self._of.attach(self.count)
        self.trace.attach(rank)
        self.heard[rank] = ready = perf_counter()
        self.reports.put(Recording(me, spans=(Span("startup", self._begin, ready),)))
        if self._gate:
            self._gate.wait()
        try:
            work(
                self._call, lambda claim: self.job.items[claim.start : claim.stop], self._deck(rank), worker, gauge, self.board,
                lambda batch, readings: self._report(me, batch, readings), self.trace.refresh, keep_going=self.job.plan.keep_going,
            )  # fmt: skip
        finally:
            if worker.keeps:
                try:
                    self._hand_in(rank)  # to leave that is none of its items' time
                finally:
                    worker.leave()

    def _hand_in(self, rank: int) -> None:
        """End a worker's account and report it; once."""
        if rank not in self._accounted:
            self._accounted.add(rank)
            self.trace.detach()
            gauge = self.gauges[rank]
            self.reports.put(Recording(self.who[rank], readings=gauge.take(), usage=gauge.usage(), totals=gauge.close()))

    def _leave(self, rank: int) -> None:
        """From here on, the calling thread is not interrupted any more: an account must be closed, and the end reported.

        What was raised in it before comes at the latest within this loop: at its turns, Python looks. (To take an
        exception back would leave the alarm on that :func:`calm` is about.)
        """
        with self._leaving:
            self._left.add(rank)
        for _ in range(2):
            pass

    def _report_the_end(self, rank: int) -> None:
        try:
            if rank in self.who:
                self._hand_in(rank)
                if notes := self._them[rank].notes():
                    self.reports.put(Recording(self.who[rank], notes=tuple(notes)))
        finally:
            if rank in self.gauges:
                self.gauges[rank].close()
            enter(None)
            leave()

    def _deck(self, rank: int) -> Deck:
        claims = self.job.sharing.claims_of(rank)
        if claims is not None:
            return OwnItem(*claims)
        return SharedDeck(self._counter, self.count, self.job.plan.chunk, self.board)

    def _report(self, me: WorkerId, batch: Batch, readings: Readings) -> None:
        self.heard[me.rank] = perf_counter()
        if batch.errors:
            self.trace.explain(batch)
        self.reports.put(Recording(me, batches=(batch,), readings=readings))
