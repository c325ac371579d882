"""Workers with memory of their own: processes.

::

    notebook ── start, end ──▶ server ── forks ──▶ worker 0 … n-1
       ▲  ◀── started, ended ────┘                     │  │
       │◀───────── recordings, results (a pipe each) ──┘  │
       └◀───────── stdout, stderr (pipes) ────────────────┘
                   board: stop flag, current items, claims (shared memory)
"""

from __future__ import annotations

import select
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from parmagic.errors import Ended, LimitReached, NotShippable, WorkerDied
from parmagic.model.private import Private, say
from parmagic.model.progress import Displayed, Pulse, Standing
from parmagic.model.recording import Recording, WorkerId
from parmagic.model.words import describe
from parmagic.record import hooks, meter, usage
from parmagic.record.items import NOTHING, STOP, item_slot
from parmagic.system import limits
from parmagic.system.interrupts import forget, held_back, is_interrupt, undo
from parmagic.workers import HEARTBEAT, Job, Patience, Report
from parmagic.workers.dispatch import claimed, lost
from parmagic.workers.endings import Mercy, cut_off, how_it_ended, where, who_was_stopped
from parmagic.workers.loop import body_file
from parmagic.workers.processes import capacity, home
from parmagic.workers.processes.board import BoardFile
from parmagic.workers.processes.frames import Garbled
from parmagic.workers.processes.hub import Hub
from parmagic.workers.processes.member import Member
from parmagic.workers.processes.orders import Orders, Unreadable, environment, tracker_descriptor
from parmagic.workers.stack import Frame, last_stack, line_in

if TYPE_CHECKING:
    from parmagic.workers.processes.ship import Cargo

_ENTRY = "parmagic.workers.processes.child:main"

_FRONT_ENDS = frozenset(
    {
        "IPython", "_pydevd_bundle", "asyncio", "concurrent", "debugpy", "ipykernel", "ipyparallel", "jupyter_client", "parmagic",
        "prompt_toolkit", "pydevd", "tornado", "tqdm", "traitlets", "viztracer", "zmq",
    }
)  # fmt: skip
"""The packages whose own threads sit still while a cell runs."""


def user_threads() -> list[str]:
    """Return the names of the user's threads that are alive: with these, forking this process is not safe."""
    names = []
    for thread in threading.enumerate():
        if thread is threading.main_thread() or thread is threading.current_thread():
            continue
        target = getattr(thread, "_target", None)
        home = type(thread).__module__.partition(".")[0]
        if home == "threading":
            home = (getattr(target, "__module__", None) or "").partition(".")[0]
        if home not in _FRONT_ENDS:
            names.append(thread.name)
    return names


class IsolatedWorkers:
    """Runs jobs in processes that ``hub`` starts.

    ``cargo`` is what they unpickle; None where the hub was forked off this
    process, with the body and the items in its memory.
    """

    def __init__(self, hub: Hub, cargo: Cargo | None) -> None:
        self._hub = hub
        self._cargo = cargo

    def map(self, job: Job) -> Iterator[Report]:
        """Run the job in ``job.arm.count`` processes; closing the iterator kills them."""
        yield from self._hub.turn()
        try:
            with limits.explained():
                yield from self._run(_Crew(self._hub, self._cargo, job))
        finally:
            self._hub.release()

    def _run(self, crew: _Crew) -> Iterator[Report]:
        try:
            with held_back():
                crew.open()
            yield from crew.listen()
        except GeneratorExit:
            raise
        except BaseException:
            forget()  # it is not lost: it is raised when all has been said
            yield from crew.unfinished()  # interrupted: the items that were under way are named
            raise
        finally:
            try:
                crew.end()
            finally:
                crew.end()  # a Ctrl-C may come just before it begins


class _Crew:
    """The processes of one arm."""

    def __init__(self, hub: Hub, cargo: Cargo | None, job: Job) -> None:
        self._hub = hub
        self._cargo = cargo
        self._job = job
        self._begin = perf_counter()
        self._members: list[Member] = []
        self._board = BoardFile(job.arm.count)
        self._at_gate = 0
        self._given_back = False
        self._to_start: deque[tuple[int, tuple[range, ...]]] = deque((rank, ()) for rank in range(job.arm.count))
        self._asking: Member | None = None  # its order has not been sent yet

    def open(self) -> None:
        """Make what all workers share."""
        self._board.open()

    def _start_some(self) -> None:
        """Have as many workers started as the server takes orders for, without waiting for it: it has to be listened to, too."""
        while self._to_start or self._asking:
            with held_back():
                if self._asking is None:
                    self._asking = self._ordered(*self._to_start.popleft())
                assert self._asking.order is not None
                if not self._hub.sent(self._asking.order):
                    return
                self._asking.release()
                self._asking = None

    def _ordered(self, rank: int, left: tuple[range, ...]) -> Member:
        job, cargo = self._job, self._cargo
        member = Member(rank, left, self._board.places[item_slot(rank) + 2])
        self._members.append(member)  # from here on it is closed, whatever happens
        member.open_files()
        out, err = member.open_pipe("stdout"), member.open_pipe("stderr")
        claims = job.claims
        if job.spmd:
            claims = (range(rank, rank + 1),)
        null, tracker = self._board.file, tracker_descriptor() if cargo else None
        orders = Orders(
            (rank, job.arm.count, job.arm.kind), job.plan, len(job.items), self._begin, job.spmd and not left, job.in_turn,
            claims, left, job.trace_file(rank), cargo.manifest if cargo else None,
            environment(tracked=tracker is not None) if cargo else None, not hooks.why_inferred(),
        )  # fmt: skip
        descriptors = [
            member.theirs[0], self._board.file, out, err, member.box, member.stack,
            null if tracker is None else tracker, *((member.open_folder(null), cargo.file, *cargo.descriptors) if cargo else (null, null)),
        ]  # fmt: skip
        fresh = cargo is not None and job.plan.start_method == "spawn"
        member.order = self._hub.order(_ENTRY, orders, descriptors, fresh=fresh, semaphores=orders.semaphores)
        member.key = member.order.key
        return member

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
            if self._hub.fileno() in ready:
                try:
                    yield from self._news()
                except WorkerDied:  # the server has gone, and its workers with it: take what they had sent
                    for member in self._members:
                        yield from self._last_messages(member)
                    raise
            if not ready or perf_counter() - beat > HEARTBEAT:
                yield None
                beat = perf_counter()
            if patience.is_over():
                yield from self._standing()
            if patience.pulse_is_due():
                yield self._pulse()
            if self._hub.left:
                yield self._told(self._immune())

    def _immune(self) -> Iterator[str]:
        while self._hub.left:
            pid, name = self._hub.left.pop()
            yield say(
                f"{{name}} (process {pid}), which a worker has started, belongs to another user by now: "
                "it could not be ended with its worker, and was left behind.",
                name=Private(name or "A process", "A process"),
            )

    def _wait(self) -> set[int]:
        if self._hub.fileno() < 0:
            self._hub.listen()  # which raises, and says why
        poll = select.poll()
        poll.register(self._hub.fileno(), select.POLLIN | (select.POLLOUT if self._hub.pending else 0))
        for member in self._members:
            for descriptor in member.pipes:
                poll.register(descriptor, select.POLLIN)
            if member.ended is None and not member.broken and not member.done:
                poll.register(member.inbox.fileno(), select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(HEARTBEAT * 1000)}

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
        try:
            parcel = home.receive(member.inbox)
        except Garbled as error:
            self._distrust(member, str(error))
            return
        except (EOFError, OSError) as error:
            if why := limits.why(error):  # the descriptor of a large result did not arrive: there was no number for it
                raise LimitReached(why) from error
            member.broken = True
            return
        if parcel is None:
            return
        try:
            what = home.unpack(parcel)
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise NotShippable(
                f"A result of worker {member.rank} cannot be read here ({describe(error, 500)}). "
                "Return what is in it (a list, an array, a number), or use threads."
            ) from error
        if what is None:
            member.done = True
        elif isinstance(what, LimitReached):
            raise what
        elif isinstance(what, Unreadable):
            why = str(what).rstrip(".")
            raise NotShippable(f"A worker process cannot read the body: {why}. Is a module missing, or does it live only in the notebook?")
        elif isinstance(what, Displayed) and what.rank == member.rank:
            yield what
        elif isinstance(what, Recording) and what.worker.rank == member.rank:
            yield self._recorded(member, what)
        else:
            self._distrust(member, f"it is no message of this worker's (a {type(what).__name__})")

    def _distrust(self, member: Member, fault: str) -> None:
        """End a worker that sent what cannot be read: what would come next cannot be either. It counts as died."""
        member.broken, member.fault = True, fault
        if member.ended is None:
            self._hub.end({member.key})

    def _recorded(self, member: Member, recording: Recording) -> Recording:
        if not member.pid:
            member.pid = recording.worker.pid
            self._at_gate += 1
            if self._job.spmd and self._at_gate == self._job.arm.count:
                for each in self._members:
                    if each.ended is None:
                        each.inbox.answer(b"g")
        member.heard = perf_counter()
        for batch in recording.batches:
            member.reported = max(member.reported, batch.first + len(batch.begins))
        return recording

    def _news(self) -> Iterator[Report]:
        self._hub.listen()
        while self._hub.events:
            verb, key, *words = self._hub.events.popleft()
            for member in self._members:
                if member.key != key or member.ended is not None:
                    continue
                if verb == "ended":
                    yield from self._ended(member, *words)
                elif verb == "failed":
                    raise WorkerDied(f"Worker {member.rank} of {self._job.arm.count} could not be started: {capacity.why_not(*words)}")

    def _last_messages(self, member: Member) -> Iterator[Report]:
        while not member.done and not member.broken and member.inbox.waits():
            yield from self._message(member)

    def _ended(self, member: Member, pid: int, code: int, cpu_s: float) -> Iterator[Report]:
        """Take what an ended worker left in its pipes; where it was not done, it died."""
        member.ended = code
        yield from self._last_messages(member)
        yield from member.last_prints()
        now = perf_counter()
        left = None if member.done else meter.autopsy(member.box, now, cpu_s)
        stack = [] if member.done else last_stack(member.stack, crash=True)
        undo(member.close)
        if not member.done:
            yield self._died(member, pid, code, now, left or (member.heard, None, ()), stack)

    def _died(self, member: Member, pid: int, code: int, now: float, left: meter.Left, stack: list[Frame]) -> Recording:
        """Report a death: its item failed; with ``--keep-going`` another worker takes its place.

        ``left`` is what its black box tells: its last item's begin, readings, waits. ``stack`` is where it crashed.
        """
        who = f"Worker {member.rank} (process {pid})"
        if not member.pid:
            raise WorkerDied(f"{who} {how_it_ended(code, 'before its first item', member.fault)}.")
        item, undone = self._lost(member)
        if item is None:
            return self._died_between_items(member, pid, code, undone)
        error = WorkerDied(f"{who} {how_it_ended(code, f'in item {item}', member.fault)}.")
        if stack:
            error.add_note(f"It was in {where(stack, body_file(self._job.call))}.")
        if self._replaces:
            self._start_again(member, undone)
        else:
            if not (self._job.spmd and self._job.plan.keep_going):
                self._board.places[STOP] = 1
            if self._job.spmd and self._at_gate < self._job.arm.count:
                self.end()  # the others wait at the gate for ever
        left = (left[0] or member.heard, left[1], left[2])  # it may have died before its account knew of an item
        return cut_off(WorkerId(member.rank, pid, pid), item, left, now, error, str(error))

    @property
    def _replaces(self) -> bool:
        """Whether another worker takes a dead one's place."""
        return self._job.plan.keep_going and not self._job.spmd and self._job.claims is None

    def _start_again(self, member: Member, undone: tuple[range, ...]) -> None:
        self._board.places[item_slot(member.rank)] = NOTHING
        self._to_start.append((member.rank, undone))

    def _lost(self, member: Member) -> tuple[int | None, tuple[range, ...]]:
        """Return the item that a dead worker was in, None where it was between two, and what else it had and did not report."""
        if self._job.spmd:
            return (None if member.reported > member.rank else member.rank), ()
        had = self._job.claims
        if had is None:
            had = *member.left, claimed(self._board.places, member.rank, member.since)
        return lost(self._board.places[item_slot(member.rank)], had, member.reported)

    def _died_between_items(self, member: Member, pid: int, code: int, undone: tuple[range, ...]) -> Recording:
        """Report a death that no item is lost by."""
        none_left = self._job.spmd or self._job.claims is not None or self._board.places[item_slot(member.rank) + 2] >= len(self._job.items)
        all_taken = none_left and not undone
        when = "after its last item" if all_taken else "between two items"
        died = f"Worker {member.rank} (process {pid}) {how_it_ended(code, when, member.fault)}."
        if not all_taken and not self._replaces:
            raise WorkerDied(died)
        if not all_taken:
            self._start_again(member, undone)
        return Recording(WorkerId(member.rank, pid, pid), notes=(died,))

    def _on(self, member: Member) -> int | None:
        """Return the item that a worker is on, or None."""
        item = self._board.places[item_slot(member.rank)]
        began = member.ended is None and member.pid and max(0, member.reported) <= item < len(self._job.items)
        return item if began else None

    def _doing(self, member: Member) -> str:
        now = perf_counter()
        left = meter.autopsy(member.box, now, usage.cpu_seconds(member.pid))
        return meter.doing(WorkerId(member.rank, member.pid, member.pid), left, now)

    def _pulse(self) -> Pulse:
        return Pulse(lambda: tuple(self._doing(member) for member in self._members if self._on(member) is not None))

    def _standing(self) -> Iterator[Standing]:
        """Yield what every worker is doing that has an item."""
        filename = body_file(self._job.call)
        for member in self._members:
            if (item := self._on(member)) is not None:
                line = line_in(last_stack(member.stack, crash=False), filename)
                yield Standing(member.rank, item, line, self._doing(member))

    def unfinished(self) -> Iterator[Report]:
        """Yield the items that workers are on, as ended before their time, with what their black boxes tell; and who was stopped."""
        stopped = who_was_stopped({m.rank: m.pid for m in self._members if m.ended is None}, self._hub.pid_if_known)
        if stopped:
            yield self._told(stopped)
        for member in self._members:
            if (item := self._on(member)) is not None:
                now = perf_counter()
                begin, readings, totals = meter.autopsy(member.box, now, usage.cpu_seconds(member.pid)) or (0.0, None, ())  # it still runs
                yield cut_off(WorkerId(member.rank, member.pid, member.pid), item, (begin or member.heard, readings, totals), now, Ended())

    def _told(self, notes: Iterable[str]) -> Recording:
        """Return notes on the whole crew."""
        first = self._members[0] if self._members else Member(0)
        return Recording(WorkerId(first.rank, first.pid, first.pid), notes=tuple(notes))

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

    def _end_all(self) -> None:
        self._board.places[STOP] = 1
        self._to_start.clear()
        asking, self._asking = self._asking, None
        if asking is not None and asking.order is not None:
            self._hub.withdraw(asking.order)
        alive = {member.key for member in self._members if member.ended is None and member.key}  # one without was never started
        with suppress(WorkerDied):  # without their server they are dead already
            self._hub.end(alive | {member.key for member in self._members if member.done})
            patience = Mercy(self._hub)
            while alive and not patience.is_over():
                self._hub.listen(HEARTBEAT)
                alive -= {event[1] for event in self._hub.events if event[0] in {"ended", "immune"}}
                self._hub.events.clear()

    def _close(self) -> None:
        for member in self._members:
            if member.ended is None:
                member.ended = -signal.SIGKILL
            member.close()
        self._board.close()
        self._given_back = True
