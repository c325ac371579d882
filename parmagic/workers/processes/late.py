"""The processes of an arm whose items are over their time: asked to end, so that what the body has opened is closed, then killed."""

from __future__ import annotations

from time import perf_counter

from parmagic.record.board import SINCE, item_slot
from parmagic.workers import Job
from parmagic.workers.endings import GRACE
from parmagic.workers.overtime import Overtime
from parmagic.workers.processes.board import BoardFile
from parmagic.workers.processes.hub import Hub
from parmagic.workers.processes.member import Member


class LateProcesses:
    """Ends those members of one arm, which come and go."""

    def __init__(self, hub: Hub, job: Job, board: BoardFile, members: list[Member]) -> None:
        self._hub = hub
        self._board = board
        self._members = members
        self._overtime = Overtime(job.plan.item_timeout, job.arm.count)

    def next_look(self) -> float:
        """Return in how many seconds to look again."""
        return self._overtime.next_look(self._board.places)

    def end(self) -> None:
        """Ask those that are over their time to end, again and again, for one may miss a signal; kill who does not within a second."""
        late = {rank: since for rank, since, _ in self._overtime.over(self._board.places)}
        for member in self._members:
            if member.ended is None and member.pid and (member.overdue is not None or member.rank in late):
                self._end(member, late.get(member.rank))

    def _end(self, member: Member, since: int | None) -> None:
        places, slot = self._board.places, item_slot(member.rank)
        if member.overdue is None:
            member.overdue, member.told = places[slot], perf_counter()
            if since is not None and places[slot + SINCE] == since:
                places[slot + SINCE] = -1
                member.began = since * 1e-9
        if places[slot + SINCE] >= 0 or places[slot] != member.overdue:
            member.overdue, member.began = None, 0.0  # it has come to its end in the last moment
        else:
            self._hub.end({member.key}, ask=perf_counter() - member.told < GRACE)
