# The C extension that hooks what waits; built from waits/, where its sources say how.

from collections.abc import Callable
from typing import Any, TypeAlias

_Total: TypeAlias = tuple[int, int, int, int, float, float, float, str, int, int, int, str, str]
_Left: TypeAlias = tuple[float, bytes, bytes, int, list[_Total]]

# What crosses as a number, by name: ``version``, ``states``, ``kinds`` with their states, ``events``, an event's ``layout`` (its
# fields and their formats, as in ``struct``), the fields of ``totals``, and the numbers of what ``stopped`` all threads and of a
# ``library``'s ``callers``.
def tables() -> dict[str, Any]: ...

# Return why nothing can be measured in this process; None where it can.
def why_not() -> str | None: ...

# Hook what waits in this process; False where that is done already. Raises RuntimeError where it cannot be done.
def start() -> bool: ...

# In a process that was forked while the hooks were on, where they are in place: have them on again. False where they were not on.
def resume() -> bool: ...
def look_at_locks() -> None: ...

# Return what the calling thread did with locks, and with what they are part of, in its account (``parmagic.record.holding``).
def synced() -> list[
    tuple[
        int, str, str, int, int, float, float, float, float, float, int, float, bytes,
        tuple[float, int, int, float, float, float, float, float] | None, str | None, int,
    ]
]: ...  # fmt: skip

# Return for whom the calling thread waited, and where both were (``parmagic.record.holding``).
def handoffs() -> list[tuple[int, str, int, int, str | None, int, str | None, int, int, float, float]]: ...

# Return all threads of the run, with what each wants and has, and which of its calls nobody heard (``parmagic.record.waiting``);
# nothing where nobody waits for a lock.
def holds() -> list[tuple[Any, ...]]: ...

# Return what the calling thread has: the lock, the thing that it is part of, that one's class, and where it was taken, and when (s).
def held() -> list[tuple[int, int, str, str | None, int, float]]: ...

# Have threads of the run that wait for a lock for long call this, now and then, between two slices of their waits; None: nothing. What
# it raises that is an Exception goes to ``sys.unraisablehook``.
def look_with(function: Callable[[], object] | None, /) -> None: ...

# Raise an exception in the wait of a thread for a lock, by its handle; False where it waits for none.
def end_wait(handle: int, error: BaseException, /) -> bool: ...

# Return in which order the calling thread took locks (``parmagic.record.holding``).
def orders() -> list[
    tuple[int, int, int, int, str, str, str | None, int, str | None, int, tuple[int, ...], bool, int, float, float]
]: ...
# Return what stands in the place of a class's attribute and counts; ``role`` is what that does: a method of connections (0), dumps
# (1) and loads (2) of multiprocessing's pickler, a proxy's calls (3).
def exchange(original: object, role: int, /) -> object: ...

# Take the hooks off.
def stop() -> None: ...

# Begin the calling thread's account, as that of worker ``rank``, and return its handle for ``peek``.
# ``box`` is a file of ``box_size()`` bytes that it is kept in. ``born``: the account begins when the thread was created (s, on
# the monotonic clock), and tells what it waited for until now.
def attach(rank: int, box: int = -1, born: float = 0.0, /) -> int: ...

# Tell the calling thread's waits by the lines of this file.
def lines_of(filename: str, /) -> None: ...

# Say that waits within this file of the standard library are for the first argument of the function that was called
# there, and of this kind (a place in ``parmagic.model.kinds.WAIT_KINDS``; -1: the kind that was hooked; -2: the caller's). For good.
def library(filename: str, kind: int, /) -> None: ...

# Say that locks which files in this folder take are ours, and nobody's business. For good.
def own(folder: str, /) -> None: ...

# Say that whoever waits in this function (by its qualified name) of this file of the standard library is a pool's, and waits for
# work. For good.
def loop(filename: str, name: str, /) -> None: ...

# Return the file of the library that begins at this address: a wait for its own threads has that as its object. None where none begins.
def library_at(address: int, /) -> str | None: ...

# Note the calling thread's account at this moment.
def mark() -> None: ...

# Hand over the marks (``parmagic.model.recording.Tally``) and the waits (``Waits``) since the last call, and how many waits were lost.
def take() -> tuple[bytes, bytes, int]: ...

# End the calling thread's account: the fields of ``tables()["totals"]`` of all that it waited for.
def detach() -> list[_Total]: ...

# Return how many call slots are patched, whether the hooks are on, and how many accounts have been made.
def state() -> dict[str, int]: ...

# How large a file has to be that an account is kept in: it survives the process.
def box_size() -> int: ...

# What a worker that was killed at ``now`` (s), with its CPU clock at ``cpu`` (s), left in its box: when its item
# began, marks, waits, how many were lost, and totals as of ``detach``; None where it had not begun.
def autopsy(box: int, now: float, cpu: float, /) -> _Left | None: ...

# The same of a thread of this process that is blocked and will not report any more, by its handle.
def peek(handle: int, now: float, cpu: float, /) -> _Left | None: ...
