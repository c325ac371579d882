"""The processes that a server has started, as the server knows them: by key, by what tells of their end, by what they leave."""

from __future__ import annotations

import select
from collections.abc import Iterable

from parmagic.system.real import close_descriptor
from parmagic.workers.processes import leftovers
from parmagic.workers.processes.handle import descriptor_of


class Started:
    """Those that run; ``poll`` is what the server waits by."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self.keys: dict[int, int] = {}  # pid -> the key by which the notebook knows it
        self._ends: dict[int, int] = {}  # pid -> descriptor that tells of its end
        self._semaphores: dict[int, str] = {}  # pid -> what the names of its semaphores begin with
        self._left: set[str] = set()  # the same, of those that have ended, and may have left some

    def note(self, pid: int, key: int, semaphores: str) -> None:
        """Know a process from now on."""
        self.keys[pid] = key
        if semaphores:
            self._semaphores[pid] = semaphores
        end = descriptor_of(pid)
        if end >= 0:
            self._ends[pid] = end
            self._poll.register(end, select.POLLIN)

    @property
    def ends(self) -> Iterable[int]:
        """The descriptors that tell of their ends."""
        return self._ends.values()

    def take_leave(self, pid: int) -> int:
        """Let go of a process that has ended; return its key."""
        self._note_end(pid)
        return self.keys.pop(pid)

    def take_leave_of_all(self) -> None:
        """Let go of all at the server's end."""
        for pid in [*self._semaphores]:
            self._note_end(pid)

    def _note_end(self, pid: int) -> None:
        if pid in self._semaphores:
            self._left.add(self._semaphores.pop(pid))
        if pid in self._ends:
            end = self._ends.pop(pid)
            self._poll.unregister(end)
            close_descriptor(end)

    @property
    def have_left(self) -> bool:
        """Whether some have ended that may have left semaphores."""
        return bool(self._left)

    def clean_up(self) -> None:
        """Remove what ended processes left, with all that they had started, in files that nobody else would remove."""
        left, self._left = self._left, set()
        leftovers.remove(left)
