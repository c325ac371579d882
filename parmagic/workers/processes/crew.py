"""The processes of one arm: they are started, listened to, replaced, and ended together."""

from __future__ import annotations

import select
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from parmagic.errors import WorkerDied
from parmagic.model.recording import Recording, WorkerId
from parmagic.record import hooks
from parmagic.record.board import NOTHING, SINCE, STOP, TRY, item_slot, loading
from parmagic.system.interrupts import held_back, undo
from parmagic.system.real import Poll
from parmagic.workers import HEARTBEAT, Job, Patience, Report
from parmagic.workers.dispatch import claimed
from parmagic.workers.endings import GRACE, Mercy
from parmagic.workers.loop import body_file, body_of
from parmagic.workers.processes import messages
from parmagic.workers.processes.across import Across
from parmagic.workers.processes.board import BoardFile
from parmagic.workers.processes.deaths import (
    Abort,
    Died,
    Dismiss,
    Event,
    Fail,
    Ignore,
    Kill,
    Note,
    Refused,
    Replace,
    State,
    Stop,
    TryAgain,
    decide,
)
from parmagic.workers.processes.hub import Hub
from parmagic.workers.processes.late import LateProcesses
from parmagic.workers.processes.member import Heir, Member
from parmagic.workers.processes.orders import Descriptors, Orders, environment, tracker_descriptor
from parmagic.workers.processes.status import Status
from parmagic.workers.processes.wreck import Wreck

if TYPE_CHECKING:
    from parmagic.workers.processes.ship import Cargo

_ENTRY = "parmagic.workers.processes.child:main"


class Crew:
    """The processes of one arm."""

    def __init__(self, hub: Hub, cargo: Cargo | None, job: Job) -> None:
        self._hub = hub
        self._cargo = cargo
        self._job = job
        self._begin = perf_counter()
        self._members: list[Member] = []
        self._board = BoardFile(job.arm.count)
        self._status = Status(hub, job, self._board, self._members)
        self._at_gate = 0
        self._given_back = False
        self.not_left: list[Report] = []  # notes on workers that were ended before they left what they kept
        self._to_start: deque[Heir] = deque(Heir(rank) for rank in range(job.arm.count))
        self._late = LateProcesses(hub, job, self._board, self._members)
        self._across = Across(self._board, self._members)
        self._asking: Member | None = None  # its order has not been sent yet
        self._environment = environment() if cargo else {}  # as it is when the arm begins, for all its workers

    def open(self) -> None:
        """Make what all workers share."""
        self._board.open()

    def _start_some(self) -> None:
        """Have as many workers started as the server takes orders for, without waiting for it: it also has to be listened to."""
        while self._to_start or self._asking:
            with held_back():
                if self._asking is None:
                    self._asking = self._ordered(self._to_start.popleft())
                assert self._asking.order is not None
                if not self._hub.sent(self._asking.order):
                    return
                self._asking.release()
                self._asking = None

    def _ordered(self, heir: Heir) -> Member:
        job, cargo = self._job, self._cargo
        member = Member(heir, self._board.places[item_slot(heir.rank) + 2])
        self._members.append(member)  # from here on it is closed, whatever happens
        member.open_files()
        out, err = member.open_pipe("stdout"), member.open_pipe("stderr")
        null, tracker = self._board.file, tracker_descriptor() if cargo else None
        orders = self._orders(member, tracked=tracker is not None)
        descriptors = Descriptors(
            connection=member.theirs[0], board=self._board.file, out=out, err=err, box=member.box, stack=member.stack,
            tracker=null if tracker is None else tracker,
            folder=member.open_folder(null) if cargo else null, file=cargo.file if cargo else null,
        )  # fmt: skip
        fresh = cargo is not None and job.plan.start_method == "spawn"
        all_of_them = [*descriptors, *(cargo.descriptors if cargo else ())]
        member.order = self._hub.order(_ENTRY, orders, all_of_them, fresh=fresh, semaphores=orders.semaphores)
        member.key = member.order.key
        return member

    def _orders(self, member: Member, *, tracked: bool) -> Orders:
        job, cargo, rank = self._job, self._cargo, member.rank
        rest = member.replaces and job.sharing.share == "fixed"
        return Orders(
            rank=rank, count=job.arm.count, model=job.arm.model.name, plan=job.plan, n_items=len(job.items), begin=self._begin,
            sharing=replace(job.sharing, claims=member.left) if rest else job.sharing, left=member.left, tried=member.tried,
            trace_file=job.trace_file(rank), manifest=cargo.manifest if cargo else None,
            environment={**self._environment, "tracked": tracked} if cargo else None, measure=not hooks.why_inferred(),
        )  # fmt: skip

    def listen(self) -> Iterator[Report]:
        """Yield what workers send and print, until all of them have said their last word or have ended."""
        patience, beat = Patience(), perf_counter()
        while self._to_start or self._asking or any(member.ended is None for member in self._members):
            self._start_some()
            ready = self._wait()
            for member in list(self._members):
                for report in self._read(member, ready):
                    patience.hear(report)
                    yield report
            if self._job.plan.item_timeout:
                self._late.end()
            if self._hub.fileno() in ready:
                yield from self._news()
            self._across.look(all_started=not (self._to_start or self._asking) and self._all_greeted)
            if not ready or perf_counter() - beat > HEARTBEAT:
                yield None
                beat = perf_counter()
            if patience.is_over():
                yield from self._status.standing()
            if patience.pulse_is_due():
                yield self._status.pulse()
            if self._hub.left:
                yield self._status.immune()

    def unfinished(self) -> Iterator[Report]:
        """Yield the items that workers are on, as ended before their time; and who was stopped."""
        yield from self._status.unfinished()

    def _wait(self) -> set[int]:
        if self._hub.fileno() < 0:
            self._hub.listen()  # which raises, and says why
        poll = Poll()
        poll.register(self._hub.fileno(), select.POLLIN | (select.POLLOUT if self._hub.pending else 0))
        for member in self._members:
            for descriptor in member.pipes:
                poll.register(descriptor, select.POLLIN)
            if member.ended is None and not member.broken and not member.done:
                poll.register(member.inbox.fileno(), select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(self._late.next_look() * 1000)}

    def _read(self, member: Member, ready: set[int]) -> Iterator[Report]:
        for descriptor in ready & set(member.pipes):
            yield from member.printed(descriptor)
        if member.inbox.fileno() in ready:
            yield from self._message(member)
            if member.done:
                yield from self._over(member)

    def _over(self, member: Member) -> Iterator[Report]:
        """Let go of a worker that has said its last word, and printed its last line before: its end is the server's business."""
        member.ended = 0
        yield from member.last_prints()
        undo(member.close)

    def _message(self, member: Member) -> Iterator[Report]:
        """Take a worker's next message, where all of it is there."""
        what = messages.take(member)
        if isinstance(what, Event):
            yield from self._deal_with(member, what)
            return
        if isinstance(what, Recording):
            self._note(member, what)
        if what is not None:
            yield what

    def _note(self, member: Member, recording: Recording) -> None:
        if not member.pid:
            member.pid = recording.worker.pid
            self._at_gate += 1
            if self._job.sharing.together and self._all_greeted:
                for each in self._members:
                    if each.ended is None and each.pid and not each.released:
                        each.released = True
                        each.inbox.answer(b"g")
        member.heard = perf_counter()
        for batch in recording.batches:
            member.reported = max(member.reported, batch.first + len(batch.begins))
            if batch.errors and not self._job.plan.keep_going:  # also of a result that only cannot be read here
                self._board.places[STOP] = 1

    @property
    def _all_greeted(self) -> bool:
        return self._at_gate >= self._job.arm.count

    def _news(self) -> Iterator[Report]:
        try:
            self._hub.listen()
            while self._hub.events:
                verb, key, *words = self._hub.events.popleft()
                for member in self._members:
                    if member.key != key or member.ended is not None:
                        continue
                    if verb == "ended":
                        yield from self._ended(member, *words)
                    elif verb == "failed":
                        yield from self._deal_with(member, Refused(*words))
        except WorkerDied:  # often as the server has gone, and its workers with it: take what they had sent
            for member in self._members:
                yield from self._last_messages(member)
            raise

    def _last_messages(self, member: Member) -> Iterator[Report]:
        while not member.done and not member.broken and member.inbox.waits():
            yield from self._message(member)

    def _ended(self, member: Member, pid: int, code: int, cpu_s: float) -> Iterator[Report]:
        """Take what an ended worker left in its pipes; where it was not done, it died."""
        member.ended = code
        yield from self._last_messages(member)
        yield from member.last_prints()
        wreck = None
        if not member.done:
            wreck = Wreck.of(member, pid, cpu_s)
            yield from self._status.not_left(member)
        undo(member.close)
        yield from self._deal_with(member, Died(pid, code), wreck)

    def _deal_with(self, member: Member, event: Event, wreck: Wreck | None = None) -> Iterator[Report]:
        """Do what is to be done about an event."""
        for action in decide(self._state(member, event), event):
            match action:
                case Ignore(fault):
                    member.broken, member.fault = True, fault
                case Kill():
                    self._hub.end({member.key})
                case Replace(undone, tried):
                    slot = item_slot(member.rank)
                    for place, value in ((slot, NOTHING), (slot + SINCE, 0), (slot + TRY, 0)):
                        self._board.places[place] = value
                    self._to_start.append(Heir(member.rank, undone, tried, replaces=True))
                case Stop():
                    self._board.places[STOP] = 1
                case Dismiss():
                    self.end()
                case Fail(item, text, kind):
                    assert wreck is not None
                    yield wreck.failed(member, item, kind(text), body_file(self._job.call), self._tries(member, item))
                case TryAgain(item, text):
                    assert wreck is not None
                    yield wreck.cut_off(member, item, None, text, self._tries(member, item))
                case Note(text):
                    assert wreck is not None
                    yield Recording(WorkerId(member.rank, wreck.pid, wreck.pid), notes=(text,), noted=True)
                case Abort(kind, text, cause):
                    raise kind(text) from cause

    def _state(self, member: Member, event: Event) -> State:
        job = self._job
        mark = member.rank if job.sharing.together else NOTHING
        had, until = member.left if member.replaces else job.sharing.claims, 0
        if isinstance(event, Died) and member.pid and not job.sharing.together:  # only then: somebody may have cut the board short
            places, slot = self._board.places, item_slot(member.rank)
            mark, until = places[slot], places[slot + 2]
            if job.sharing.share == "common":
                had = (*member.left, claimed(places, member.rank, member.since))
        return State(
            rank=member.rank, workers=job.arm.count, n_items=len(job.items), share=job.sharing.share, keep_going=job.plan.keep_going,
            greeted=bool(member.pid), all_greeted=self._all_greeted, done=member.done, ended=member.ended is not None, fault=member.fault,
            mark=mark, had=had, claimed_until=until, reported=member.reported, tries=self._tries(member, mark), retry=job.plan.retry,
            overdue=member.overdue, allowed=job.plan.item_timeout or 0.0,
        )  # fmt: skip

    def _tries(self, member: Member, mark: int) -> int:
        """Return how often a worker, and others before, have tried the item that it is on, by its mark."""
        known = self._board.places[item_slot(member.rank) + TRY]
        return max(1, known, member.tried.get(loading(mark) if mark < NOTHING else mark, 0) + 1)

    def end(self) -> None:
        """End what still runs, and give everything back; once."""
        if self._given_back:
            return
        try:
            self._end_all()
        finally:
            try:
                undo(self._close)
            finally:
                if not self._given_back:
                    undo(self._close)
        self._across.free(body_of(self._job.call))

    def _end_all(self) -> None:
        self._board.places[STOP] = 1
        self._to_start.clear()
        asking, self._asking = self._asking, None
        if asking is not None and asking.order is not None:
            self._hub.withdraw(asking.order)
        alive = {member.key for member in self._members if member.ended is None and member.key}  # one without was never started
        with suppress(WorkerDied):  # without their server they are dead already
            try:
                self._ask()
            finally:
                self._hub.end(alive | {member.key for member in self._members if member.done})
            patience = Mercy(self._hub)
            while alive and not patience.is_over():
                self._hub.listen(HEARTBEAT)
                alive -= {event[1] for event in self._hub.events if event[0] in {"ended", "immune"}}
                self._hub.events.clear()
            self.not_left += [note for member in self._members if not member.done for note in self._status.not_left(member)]

    def _ask(self) -> None:
        """Ask workers to end, and give them a little time: what their bodies have opened is closed.

        Again and again: one that has only begun does not listen yet, and one that is busy may miss a signal.
        """
        left = {member.key for member in self._members if member.ended is None and member.key and not member.broken}
        until = perf_counter() + GRACE
        while left and perf_counter() < until:
            self._hub.end(left, ask=True)
            self._hub.listen(HEARTBEAT)
            left -= {event[1] for event in self._hub.events if event[0] == "ended"}

    def _close(self) -> None:
        for member in self._members:
            if member.ended is None:
                member.ended = -signal.SIGKILL
            member.close()
        self._board.close()
        self._given_back = True
