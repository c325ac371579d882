"""Workers of an arm that wait for each other, or for one that has ended, through locks that all processes have: found, and ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from parmagic.record import entangled, notices, objects, stuck
from parmagic.record.circles import SURE, SURE_OF_ALL, is_alone
from parmagic.record.hooks import extension
from parmagic.record.notices import Notice, Verdict
from parmagic.record.waiting import Waiter
from parmagic.workers.processes.board import BoardFile
from parmagic.workers.processes.member import Member

OFTEN = 0.1
"""Seconds between two looks: as often as those tell who wait."""

RECENT = 2.0
"""Seconds for which what a worker tells is looked at: one that has what it wanted tells nothing of that."""

MOST_TOLD = 4
"""Verdicts that stand in the row: who has been told is on its way by then."""

_RANK = 40
"""Bits of the handles of accounts: each process has its own, and here they are told apart."""


class Across:
    """Looks at what the members of one arm, which come and go, tell of their waits.

    What a member tells may be over when it is read. So a circle is one when all in it have told so, and told again behind that: each
    waited all that time, and all of them at that moment.
    """

    def __init__(self, board: BoardFile, members: list[Member]) -> None:
        self._board = board
        self._members = members
        self._looked = 0.0
        self._told: dict[int, tuple[bytes, Notice | None]] = {}
        self._seen: tuple[frozenset[tuple[int, int, float]], float] = (frozenset(), 0.0)
        self._verdicts: list[Verdict] = []
        self._times = 0

    def look(self, *, all_started: bool) -> None:
        """Where workers stand still for good, end their waits; ``all_started`` tells whether each has been."""
        now = perf_counter()
        if now - self._looked >= OFTEN:
            self._looked = now
            told = self._notices(now)
            if told:
                self._look(told, now, all_started=all_started)
            else:
                self._seen = frozenset(), 0.0

    def _look(self, told: dict[int, Notice], now: float, *, all_started: bool) -> None:
        threads = [each for rank in sorted(told) for each in _threads(rank, told[rank])]
        circle = entangled.certain(threads, all_wait=True, outsiders=True)
        sure = circle or self._left_alone(threads)
        still = sure or (self._standing(told, threads) if all_started else [])
        key = frozenset((each.serial, each.wants, each.since) for each in still)
        before, since = self._seen
        self._seen = key, since if key == before else now
        if not still or key != before or now - since < (SURE if sure else SURE_OF_ALL):
            return
        if min(told[each.serial >> _RANK].at for each in still) < since:
            return  # one of them has not told since
        self._seen = frozenset(), 0.0
        self._end(still, not circle, self._words(circle, still, threads, told, now))

    def _notices(self, now: float) -> dict[int, Notice]:
        """Return what those tell who are there, by rank."""
        found = dict[int, Notice]()
        for member in self._members:
            if member.ended is not None or not member.pid:
                continue
            before, notice = self._told.get(member.rank, (b"", None))
            times, data = self._board.told(member.rank, before)
            if data:
                notice = notices.notice_in(data)
                self._told[member.rank] = times, notice
            if notice is not None and notice.pid == member.pid and now - notice.at < RECENT:
                found[member.rank] = notice
        return found

    def free(self, function: Any) -> None:
        """Behind the arm: release the locks that processes had which ended before they were done; what the body reads leads to them."""
        gone, (waits, _) = self._gone(), extension()
        if gone and waits is not None:
            for lock in objects.semaphores(function):
                for pid in gone:
                    waits.free_of(lock, pid)

    def _left_alone(self, threads: list[Waiter]) -> list[Waiter]:
        """Return who waits for what one has that has ended."""
        gone = self._gone()
        return [each for each in threads if each.wants and each.patient and each.holder in gone]

    def _gone(self) -> dict[int, int]:
        """Return which processes of the arm have ended before they were done, with their ranks; no others have their numbers by now."""
        alive = {member.pid for member in self._members if member.ended is None}
        ended = {member.pid: member.rank for member in self._members if member.ended is not None and member.pid and not member.done}
        return {pid: rank for pid, rank in ended.items() if pid not in alive and not _is_there(pid)}

    def _standing(self, told: dict[int, Notice], threads: list[Waiter]) -> list[Waiter]:
        """Return who waits, where all workers that are left do, and nobody is there who could wake them; else nobody."""
        left = {member.rank for member in self._members if member.ended is None and not member.done}
        if left != told.keys() or not all(notice.still for notice in told.values()) or not is_alone():
            return []
        still = {rank << _RANK | serial for rank, notice in told.items() for serial in notice.still}
        return [each for each in threads if each.serial in still]

    def _words(self, circle: list[Waiter], still: list[Waiter], threads: list[Waiter], told: dict[int, Notice], now: float) -> str:
        def said(of: Callable[[Notice], dict[int, str]]) -> dict[int, str]:
            return {rank << _RANK | serial: text for rank, notice in told.items() for serial, text in of(notice).items()}

        called, who = said(lambda notice: notice.called), said(lambda notice: notice.who)
        if circle:
            return entangled.words(circle, now, called, lambda each: who[each.serial])
        holders = {held.lock: f"{who[each.serial]} took at {held.place} and has not let go of" for each in threads for held in each.held}
        ended = {member.pid: member.rank for member in self._members if member.ended is not None}
        for each in still:
            if each.holder in ended:
                holders[each.wants] = f"worker {ended[each.holder]} (process {each.holder}), which has ended, had taken"
        whys = said(lambda notice: notice.why)
        return stuck.words(still, now, called, lambda each: who[each.serial], holders, whys)

    def _end(self, still: list[Waiter], is_stuck: bool, text: str) -> None:
        told = [(each.serial >> _RANK, each.serial & (1 << _RANK) - 1, each.since) for each in still]
        self._verdicts = [*self._verdicts, Verdict(told, is_stuck, text)][-MOST_TOLD:]
        while len(data := notices.verdicts(self._verdicts)) > notices.MOST and len(self._verdicts) > 1:
            del self._verdicts[0]
        if len(data) <= notices.MOST:
            self._times += 1
            self._board.tell(self._times, data)


def _threads(rank: int, notice: Notice) -> Iterator[Waiter]:
    """Yield a worker's threads, with handles, and locks of its own, that no other worker's have."""
    for each in notice.threads:
        held = [has._replace(lock=_lock(rank, has.lock)) for has in each.held]
        yield each._replace(serial=rank << _RANK | each.serial, wants=_lock(rank, each.wants), held=held)


def _lock(rank: int, lock: int) -> int:
    """Return a number for a lock: addresses are those of one process, and forked ones have the same."""
    return lock if not lock or lock >> 63 else rank + 1 << 64 | lock


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
