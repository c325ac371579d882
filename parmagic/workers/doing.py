"""What the threads of an arm are doing at this moment, for whoever watches the run."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

from parmagic.model.cells import place
from parmagic.model.kinds import KINDS
from parmagic.model.private import Private, say
from parmagic.model.progress import Pulse, Standing
from parmagic.model.recording import WorkerId
from parmagic.record import meter
from parmagic.record.board import NOTHING, Board, item_slot
from parmagic.system import debugger
from parmagic.workers import Job
from parmagic.workers.loop import body_file
from parmagic.workers.stack import frames_of, line_in

_FOR_OTHERS = frozenset(kind.doing for kind in KINDS if kind.lock and kind.doing.startswith("waits"))


class Doing:
    """Looks at the threads of one arm; ``who`` and ``gauges`` fill as these begin."""

    def __init__(
        self, job: Job, board: Board, threads: Sequence[threading.Thread], who: Mapping[int, WorkerId], gauges: Mapping[int, meter.Meter]
    ) -> None:
        self._file = body_file(job.call)
        self._board = board
        self._threads = threads
        self._who = who
        self._gauges = gauges

    def pulse(self) -> Pulse:
        """Return a look at what every thread does that has an item, for whoever wants to see it."""
        return Pulse(lambda: tuple(doing for _, _, doing in self._at_work()))

    def standing(self, *, for_good: bool) -> Iterator[Standing]:
        """Yield what every thread is doing that has an item; ``for_good``: all wait, and none of them can wake another one."""
        for rank, item, doing in self._at_work():
            waits = doing if doing in _FOR_OTHERS else "waits"  # it looks about, now and then, and needs the GIL for that
            yield self.is_at(rank, item, f"{waits}, and no worker can wake it" if for_good else doing)

    def is_at(self, rank: int, item: int, doing: str) -> Standing:
        """Return on which line a thread is that does this, in an item."""
        return Standing(rank, item, line_in(frames_of(self._threads[rank].ident), self._file), doing)

    def stuck(self, rank: int) -> str:
        """Say where a thread is that could not be ended."""
        thread = self._threads[rank]
        frame = next(frames_of(thread.ident), None)
        where = f" at {place(frame.file, frame.line)}" if frame else ""
        name = Private(repr(thread.name), "of a worker")  # the body may have given it another
        return say(f"The thread {{name}} is blocked{where} and could not be ended; it is left behind.", name=name)

    def _at_work(self) -> Iterator[tuple[int, int, str]]:
        """Yield the rank of every thread that has an item, that item, and what the thread is doing."""
        now, found = perf_counter(), []
        for rank, thread in enumerate(self._threads):
            item = self._board[item_slot(rank)]
            if rank in self._who and thread.is_alive() and item > NOTHING:
                # nothing here lets go of a GIL: all are seen at one moment (so the CPU clocks, which no word depends on, are not read)
                found.append((rank, item, self._gauges[rank].peek(now, 0.0)))
        for rank, item, left in found:
            held = debugger.holds(self._threads[rank])
            yield rank, item, "is held by the debugger" if held else meter.doing(self._who[rank], left, now)
