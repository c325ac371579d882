"""What threads wait for that others have: the GIL, and permits (locks, semaphores, places and things in a queue)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from parmagic.analyze.replay.clock import Clock, Event, cancel
from parmagic.analyze.replay.cores import Cores, Thread
from parmagic.analyze.replay.work import Machine

GoOn = Callable[[Any], None]
"""Has a thread go on that has what it waited for."""


class Waiter(Thread):
    """A thread that may wait; ``gil`` is that of its process, None where there is none."""

    gil: Gil | None = None
    wakes = False  # it was told, and is on its way
    saw = 0  # how often the GIL had been taken when it last began to wait for it
    timer: Event | None = None


class _Awaited:
    """What is waited for: who waits, the first one first; ``go_on`` is called with who has it."""

    def __init__(self, cores: Cores, machine: Machine, go_on: GoOn) -> None:
        self._cores = cores
        self._machine = machine
        self._go_on = go_on
        self._waiting: deque[Waiter] = deque()

    def _tell(self, thread: Waiter) -> None:
        """Wake a thread that waits: it looks again as soon as it is at work."""
        thread.wakes = True
        self._cores.compute(thread, self._machine.latency_s, self._is_awake, woken=True)

    def _is_awake(self, thread: Waiter) -> None:
        raise NotImplementedError


class Gil(_Awaited):
    """The GIL of one interpreter, by CPython's own rules (``Python/ceval_gil.c``).

    Who wants it waits for a switch interval. If nobody has taken it meanwhile, the holder is asked to drop it, which one that
    computes does at once; and so on. Who drops it wakes the first who waits, which takes it when it is at work, if it is free still: a
    thread that comes back in between is there before it.
    """

    def __init__(self, clock: Clock, cores: Cores, machine: Machine, go_on: GoOn) -> None:
        super().__init__(cores, machine, go_on)
        self._clock = clock
        self._n_taken = 0
        self._asked = False
        self.holder: Waiter | None = None

    def take(self, thread: Waiter) -> bool:
        """Take it where it is free; else have the thread wait, and call ``go_on`` when it has it."""
        if self.holder is thread:
            return True
        if self.holder is None:
            self._take(thread)
            return True
        self._wait(thread, last=True)
        return False

    def drop(self, thread: Waiter) -> None:
        """Give it away, where the thread has it."""
        if self.holder is thread:
            self.holder, self._asked = None, False
            self._wake()

    def resumed(self, thread: Waiter) -> bool:
        """Have a thread that gets a core again drop the GIL that it was asked for meanwhile; tell whether it goes on."""
        if self._asked and self.holder is thread and thread.doing == "running":
            self._force(thread)
            return False
        return True

    def _take(self, thread: Waiter) -> None:
        self.holder = thread
        self._n_taken += 1

    def _wait(self, thread: Waiter, *, last: bool) -> None:
        thread.wakes, thread.saw = False, self._n_taken
        thread.wait("gil_wait")
        (self._waiting.append if last else self._waiting.appendleft)(thread)
        thread.timer = self._clock.after(self._machine.switch_s, self._is_late, thread)
        self._cores.leave(thread)

    def _is_late(self, thread: Waiter) -> None:
        """It has waited for an interval."""
        holder = self.holder
        if holder is not None and self._n_taken == thread.saw:
            self._asked = True
            if holder.core is not None and holder.doing == "running":
                self._force(holder)
        if thread in self._waiting and not thread.wakes:
            thread.saw = self._n_taken
            thread.timer = self._clock.after(self._machine.switch_s, self._is_late, thread)

    def _force(self, holder: Waiter) -> None:
        """Have the holder drop it, and want it again at once."""
        self._cores.stop(holder)
        holder.rest = holder.left
        self.holder, self._asked = None, False
        self._wake()
        self._wait(holder, last=True)

    def _wake(self) -> None:
        if self._waiting and not self._waiting[0].wakes:
            cancel(self._waiting[0].timer)
            self._tell(self._waiting[0])

    def _is_awake(self, thread: Waiter) -> None:
        self._waiting.remove(thread)
        if self.holder is None:
            self._take(thread)
            self._go_on(thread)
        else:
            self._wait(thread, last=False)


class Permits(_Awaited):
    """So many permits of one name: who takes one when there is none waits until one is given back."""

    def __init__(self, count: int, cores: Cores, machine: Machine, go_on: GoOn) -> None:
        super().__init__(cores, machine, go_on)
        self._left = count

    def take(self, thread: Waiter) -> bool:
        """Take one where there is one; else have the thread wait without the GIL, and call ``go_on`` when it has one."""
        if self._left:
            self._left -= 1
            return True
        if thread.gil is not None:
            thread.gil.drop(thread)
        thread.wakes = False
        thread.wait("lock_wait")
        self._waiting.append(thread)
        self._cores.leave(thread)
        return False

    def give(self) -> None:
        """Give one back: the first who waits is woken, and takes it if nobody else is there before."""
        self._left += 1
        first = next((thread for thread in self._waiting if not thread.wakes), None)
        if first is not None:
            self._tell(first)

    def _is_awake(self, thread: Waiter) -> None:
        if self._left:
            self._left -= 1
            self._waiting.remove(thread)
            self._go_on(thread)
        else:
            thread.wakes = False
            self._cores.leave(thread)
