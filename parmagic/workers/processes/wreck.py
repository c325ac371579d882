"""What is found where a worker process has died, and what is reported of it."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from parmagic.errors import ParmagicError, WorkerDied
from parmagic.model.recording import Recording, WorkerId
from parmagic.record import meter
from parmagic.workers.endings import cut_off, where
from parmagic.workers.processes.member import Member
from parmagic.workers.stack import Frame, last_stack


class Wreck(NamedTuple):
    """A dead worker's process, when it was found, what its black box tells (its last item's begin, readings, waits), where it crashed."""

    pid: int
    now: float
    left: meter.Left
    stack: list[Frame]

    @classmethod
    def of(cls, member: Member, pid: int, cpu_s: float) -> Wreck:
        """Look at what a worker has left, which used so many seconds of a core."""
        now = perf_counter()
        left = meter.autopsy(member.box, now, cpu_s) or (0.0, None, ())
        return cls(pid, now, left, last_stack(member.stack, crash=True))

    def failed(self, member: Member, item: int, error: ParmagicError, filename: str, tries: int) -> Recording:
        """Report the item that it was on as failed; where it crashed, with where that was, in the body's file or what it called."""
        if self.stack:
            error.add_note(f"It was in {where(self.stack, filename)}.")
        return self.cut_off(member, item, error, str(error) if isinstance(error, WorkerDied) else "", tries)

    def cut_off(self, member: Member, item: int, error: ParmagicError | None, text: str, tries: int) -> Recording:
        """Report the try that it was in; without an error, another one follows."""
        begin, readings, totals = self.left
        left = (begin or member.item_begun, readings, totals)  # it may have died before its account knew of an item
        return cut_off(WorkerId(member.rank, self.pid, self.pid), item, left, self.now, error, text, tries)
