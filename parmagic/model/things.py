"""What can be waited for until somebody else lets go of it, or does something: what it is to users, and what helps against the wait."""

from __future__ import annotations

from typing import NamedTuple


class Thing(NamedTuple):
    """A sort of lock: what one and several are called, the classes (and functions) of the standard library that it goes by, and advice.

    ``use`` is what is done with it, where that is measured: one at a time has it (``held``), or so many (``lent``), things are put there
    and got (``fed``), or it is asked and answers (``asked``).
    """

    name: str
    many: str
    classes: tuple[str, ...]
    advice: str
    use: str = ""


THINGS = (
    Thing("lock", "locks", ("lock", "Lock", "RLock", "_RLock", "_PyRLock"), "Hold the lock for less of the body.", "held"),
    Thing(
        "semaphore", "semaphores", ("Semaphore", "BoundedSemaphore"),
        "Let more through the semaphore at once, or hold it for less of the body.", "lent",
    ),
    Thing("event", "events", ("Event",), "Who waits for an event waits for the worker that sets it: set it sooner, or wait later."),
    Thing(
        "condition", "conditions", ("Condition",),
        "Who waits for a condition waits for the worker that notifies it: notify sooner.", "held",
    ),
    Thing(
        "barrier", "barriers", ("Barrier",),
        "All wait at a barrier for the slowest of them: give each as much work between two waits, or wait there less often.",
    ),
    Thing(
        "queue", "queues", ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue", "JoinableQueue"),
        "Who fills the queue, or empties it where it is full, is slower than who waits for it: let more do that, or have more in it.",
        "fed",
    ),
    Thing(
        "future", "results of others", ("Future", "_result_or_cancel", "wait", "as_completed"),
        "It is what others compute that is waited for: give these more workers, or ask for it later.",
    ),
    Thing(
        "value", "shared values", ("Synchronized", "SynchronizedBase"),
        "Each look at a shared value takes its lock: count in the body, and add once under get_lock().", "held",
    ),
    Thing(
        "array", "shared arrays", ("SynchronizedArray", "SynchronizedString"),
        "Each look at a shared array takes its lock: work on a part of it under one get_lock(), or on Array(…, lock=False).", "held",
    ),
    Thing(
        "pipe", "pipes", ("Connection", "_ConnectionBase"),
        "Who writes to the pipe, or reads it, is slower than who waits for it.", "fed",
    ),
    Thing(
        "proxy", "calls to managers", ("BaseProxy",),
        "Each call goes to the manager's process and back: ask for more in one call.", "asked",
    ),
    Thing("thread", "threads to end", ("Thread", "Timer"), "Give the threads that are waited for less to do, or join them later."),
    Thing("import", "locks of imports", (), "Who imports waits for who imports the same: import it in a cell above, before the run."),
    Thing("pool", "pools", (), "Make the pool larger, or keep what it lends for less of the body."),
    Thing(
        "library", "locks of libraries", (),
        "The lock is a library's own: call that less often, or let each worker have an object of its own (worker.once).",
    ),
    Thing("helpers", "threads of libraries", (), "They compute on several cores already: stay serial."),
    Thing(
        "native", "locks of native libraries", (),
        "The lock is the library's own: let it use one thread in each worker (threadpoolctl.threadpool_limits(1)), or call it less often.",
    ),
)  # fmt: skip

THING = {thing.name: thing for thing in THINGS}
"""By their names."""

THING_OF = {each: thing.name for thing in THINGS for each in thing.classes}
"""What a class of the standard library's is."""
