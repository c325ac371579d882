"""What the workers of a crew are on, and what is told of that while they run, or when they are cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter

from parmagic.errors import Ended
from parmagic.model.private import Private, say
from parmagic.model.progress import Pulse, Standing
from parmagic.model.recording import Recording, WorkerId
from parmagic.record import meter, usage
from parmagic.record.board import OPEN, item_slot
from parmagic.workers import Job, Report
from parmagic.workers.endings import cut_off, who_was_stopped
from parmagic.workers.loop import body_file
from parmagic.workers.processes.board import BoardFile
from parmagic.workers.processes.hub import Hub
from parmagic.workers.processes.member import Member
from parmagic.workers.stack import last_stack, line_in

_NOT_LEFT = "ended before it left what worker.once had made there: what such a context manager does at its end was not done."


class Status:
    """Looks at the members of one arm, which come and go."""

    def __init__(self, hub: Hub, job: Job, board: BoardFile, members: list[Member]) -> None:
        self._hub = hub
        self._job = job
        self._board = board
        self._members = members

    def pulse(self) -> Pulse:
        """Return a look at what every worker does that has an item, for whoever wants to see it."""
        return Pulse(lambda: tuple(self._doing(member) for member in self._members if self._on(member) is not None))

    def standing(self) -> Iterator[Standing]:
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
                left = (begin or member.item_begun, readings, totals)
                yield cut_off(WorkerId(member.rank, member.pid, member.pid), item, left, now, Ended())

    def immune(self) -> Recording:
        """Return notes on what workers have started, and nobody here may end."""
        return self._told(self._left_behind())

    def _left_behind(self) -> Iterator[str]:
        while self._hub.left:
            pid, name = self._hub.left.pop()
            yield say(
                f"{{name}} (process {pid}), which a worker has started, belongs to another user by now: "
                "it could not be ended with its worker, and was left behind.",
                name=Private(name or "A process", "A process"),
            )

    def not_left(self, member: Member) -> Iterator[Recording]:
        """Return a note on a worker that has ended before it left what ``worker.once`` had entered; once."""
        slot = item_slot(member.rank) + OPEN
        if member.pid and self._board.places[slot] > 0:
            self._board.places[slot] = 0
            me = WorkerId(member.rank, member.pid, member.pid)
            yield Recording(me, notes=(f"Worker {member.rank} (process {member.pid}) {_NOT_LEFT}",), noted=True)

    def _told(self, notes: Iterable[str]) -> Recording:
        """Return notes on the whole crew."""
        rank, pid = (self._members[0].rank, self._members[0].pid) if self._members else (0, 0)
        return Recording(WorkerId(rank, pid, pid), notes=tuple(notes), noted=True)

    def _on(self, member: Member) -> int | None:
        """Return the item that a worker is on, or None."""
        item = self._board.places[item_slot(member.rank)]
        began = member.ended is None and member.pid and max(0, member.reported) <= item < len(self._job.items)
        return item if began else None

    def _doing(self, member: Member) -> str:
        now = perf_counter()
        left = meter.autopsy(member.box, now, usage.cpu_seconds(member.pid))
        return meter.doing(WorkerId(member.rank, member.pid, member.pid), left, now)
