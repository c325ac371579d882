"""Items that are over their ``--item-timeout``: which they are, and how one that runs in a thread is ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import perf_counter, perf_counter_ns

from parmagic.errors import Overdue
from parmagic.model.plan import Plan
from parmagic.record.board import SINCE, STOP, TRY, Board, item_slot
from parmagic.system import debugger
from parmagic.system.interrupts import calm, raise_in, settle
from parmagic.system.real import Lock, get_ident
from parmagic.workers import HEARTBEAT
from parmagic.workers.stack import in_library

OUT_OF_LIBRARY = 0.1
"""Seconds that a thread gets before it is interrupted, to come out of the standard library: locks would stay locked."""

BLOCKED, AGAIN = 0.1, 1.0
"""Seconds after which an item that was struck counts as blocked, and after which, or after its time, it is struck again."""


class Overtime:
    """Looks on the board of an arm for items whose try takes longer than ``seconds``; None: as long as it likes."""

    def __init__(self, seconds: float | None, workers: int) -> None:
        self._seconds = seconds
        self._places = [item_slot(rank) + SINCE for rank in range(workers)] if seconds else []

    def next_look(self, board: Board) -> float:
        """Return in how many seconds to look again: when the next item is over its time, at the latest at the next beat."""
        if self._seconds is None:
            return HEARTBEAT
        begun = [since for place in self._places if (since := board[place]) > 0]
        left = (min(begun) - perf_counter_ns()) / 1e9 + self._seconds if begun else HEARTBEAT
        return left if 0 < left < HEARTBEAT else HEARTBEAT

    def over(self, board: Board) -> list[tuple[int, int, float]]:
        """Return who is over its time: the ranks, since when each tries its item (ns), and by how many seconds it is over."""
        now, found = perf_counter_ns(), []
        for rank, place in enumerate(self._places):
            since = board[place]
            late = (now - since) / 1e9 - (self._seconds or 0.0)
            if since > 0 and late > 0:
                found.append((rank, since, late))
        return found


class Alarm:
    """Ends a try of an item in a thread, and never what comes behind it.

    ``struck`` is how often it has, in this try.
    """

    def __init__(self, board: Board, rank: int) -> None:
        self._board = board
        self._place = item_slot(rank) + SINCE
        self._thread = get_ident()
        self._lock = Lock()
        self._armed = False
        self._at = 0.0
        self.struck = 0

    def begin(self) -> None:
        """From here on the try may be ended."""
        with self._lock:
            self.struck = 0
            self._armed = True

    def end(self) -> bool:
        """From here on it is not; tell whether it was. What was raised comes here at the latest, or never."""
        with self._lock:
            was_armed, self._armed = self._armed, False
        if was_armed and self.struck:
            with suppress(Overdue):
                settle()
        return self.struck > 0

    def strike(self, since: int) -> None:
        """End the try that began ``since`` (ns), where that goes on: raise in its thread, as soon as it runs Python."""
        with self._lock:
            if self._armed and self._board[self._place] == since and raise_in(self._thread, Overdue):
                self.struck += 1
                self._at = perf_counter()

    def waited(self) -> float:
        """Return the seconds since it was struck; 0 where it was not, in this try."""
        return perf_counter() - self._at if self.struck else 0.0


class LateThreads:
    """The threads of an arm whose items are over their time: struck, known as blocked where that is of no use, given up in the end."""

    def __init__(self, plan: Plan, board: Board, threads: Sequence[threading.Thread]) -> None:
        self._plan = plan
        self._board = board
        self._threads = threads
        self._overtime = Overtime(plan.item_timeout, len(threads))
        self._alarms: dict[int, Alarm] = {}
        self._blocked: dict[int, int] = {}  # since when each tries its item

    def alarm(self, rank: int) -> Alarm | None:
        """In that thread: return what ends its tries; None where they may take as long as they like."""
        if not self._plan.item_timeout:
            return None
        self._alarms[rank] = alarm = Alarm(self._board, rank)
        return alarm

    def next_look(self) -> float:
        """Return in how many seconds to look again."""
        return self._overtime.next_look(self._board)

    def strike(self, ranks: set[int]) -> Iterator[int]:
        """Strike those of these threads whose item is over its time; yield which have just proved to be blocked."""
        over = {rank: (since, late) for rank, since, late in self._overtime.over(self._board) if rank in ranks}
        self._blocked = {rank: since for rank, since in self._blocked.items() if rank in over and over[rank][0] == since}
        for rank, (since, late) in over.items():
            if not debugger.holds(self._threads[rank]):
                self._strike(rank, since, late)
            if self._alarms[rank].waited() > BLOCKED and rank not in self._blocked:
                self._blocked[rank] = since
                calm()
                yield rank

    def _strike(self, rank: int, since: int, late: float) -> None:
        """Strike once, and again where it goes on as long again."""
        alarm = self._alarms[rank]
        if alarm.waited() > max(AGAIN, self._plan.item_timeout or 0.0) if alarm.struck else self._is_out_of_library(rank, late):
            alarm.strike(since)

    def _is_out_of_library(self, rank: int, late: float) -> bool:
        return late > OUT_OF_LIBRARY or not in_library(self._threads[rank])

    def hopeless(self, ranks: set[int], done: int, n_items: int) -> list[int]:
        """Return those of the blocked whose item has failed: nobody waits for them.

        Without --keep-going, when there is no further try; with it, when there is nothing else to be done by these threads.
        """
        if not self._blocked:
            return []
        if not self._plan.keep_going:
            return [rank for rank in self._blocked if self._board[item_slot(rank) + TRY] > self._plan.retry]
        others = ranks - self._blocked.keys()
        is_last = not others and (self._board[STOP] or done + len(self._blocked) >= n_items)
        return [*self._blocked] if is_last else []
