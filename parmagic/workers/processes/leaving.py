"""What a worker process does about what the body has left behind in it: it waits for that a little, and cleans up.

As the interpreter does at its end, and in that order: threads and pools, child processes,
``atexit``, finalizers, queues' threads. What has not ended after its time is named in a note.
"""

from __future__ import annotations

import _io
import atexit
import gc
import io
import logging
import os
import signal
import stat
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import util
from typing import Any

from parmagic.errors import Ended
from parmagic.model.cells import place
from parmagic.model.private import Private, joined, say
from parmagic.system.descriptors import base_of_ours
from parmagic.system.real import set_handler
from parmagic.workers.endings import GRACE
from parmagic.workers.processes import asked, below, feeders
from parmagic.workers.stack import frames_of

SHORT = 0.05
"""Seconds that each further step of the cleaning gets, where one was late."""

MOST = 5
"""How much of what was left behind is named."""

_LEFT = "What the body had left behind was ended with its process, {seconds:g} s after its last item: {what}{more}. Wait for it there."
_LATE = "What atexit was to call had not ended after {seconds:g} s: {what}."

_DESCRIPTORS = "/proc/self/fd"
_STREAMS = 2  # the last descriptor of those that every process has

_handlers: list[Any] = []  # of logging, which were there before the body


def begin() -> None:
    """Before the body is there: what has been registered until now is for another process to clean up."""
    atexit._clear()  # noqa: SLF001
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001  (the next one registers them anew)
    for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001
        each.atexit = False
    _handlers[:] = logging._handlerList  # type: ignore[attr-defined]  # noqa: SLF001


class _Late(BaseException):
    """Raised in a step that has had its time."""


def end(tell: Callable[[str], None]) -> list[str]:
    """Wait and clean up; return notes on what had not ended. ``tell`` is what says at once that a queue's thread is waited for."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGINT})
    until = time.monotonic() + GRACE
    _threads_end(until)
    _pools_are_done(until)
    named = [*_threads(), *_pools(), *_processes(until)]
    late = _clean()
    feeders.wait(GRACE, tell)
    if asked.is_asked():  # a callback may have swallowed it
        raise Ended
    _run_finalizers(None)
    _let_go_of_files()
    return [*_noted(named), *late]


def end_at_once() -> None:
    """Clean up in a worker that is about to be ended: nothing is waited for."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    feeders.take_back()
    _clean()
    _run_finalizers(None)
    _let_go_of_files()


def _noted(named: list[str]) -> list[str]:
    if not named:
        return []
    what = named[0]
    for each in named[1:MOST]:
        what = say("{before}, {each}", before=what, each=each)
    more = f" and {len(named) - MOST} more" if len(named) > MOST else ""
    return [say(_LEFT, seconds=GRACE, what=what, more=more)]


def _within(seconds: float, step: Callable[[], object]) -> bool:
    """Do a step; tell whether it came to its end within that time. Else it is interrupted, where it is not in C."""

    def strike(*_: object) -> None:
        raise _Late

    try:
        try:
            set_handler(signal.SIGALRM, strike)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
            step()
        except (_Late, Ended):
            raise
        except BaseException:  # noqa: BLE001  (the body's own, as at the interpreter's end)
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Late:
        return False
    return True


# threads


def _threads_end(until: float) -> None:
    """Have executors finish what they were given, and wait for threads; theirs are no daemons."""
    if not _alive():
        return
    for call in reversed(getattr(threading, "_threading_atexits", [])):
        _within(until - time.monotonic(), call)
    for thread in _alive():
        thread.join(max(0.0, until - time.monotonic()))


def _alive() -> list[threading.Thread]:
    here = threading.current_thread()
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not here]


def _threads() -> Iterator[str]:
    for thread in _alive():
        frame = next(frames_of(thread.ident), None)
        where = f" (at {place(frame.file, frame.line)})" if frame else ""
        yield joined(Private(f"the thread {thread.name}", "a thread"), where)


# pools and other child processes


def _unfinished() -> list[Any]:
    """Return what multiprocessing's pools have been given and have not done."""
    pool = sys.modules.get("multiprocessing.pool")
    if pool is None:
        return []
    ends = [each for each in list(util._finalizer_registry.values()) if each is not None]  # type: ignore[attr-defined]  # noqa: SLF001
    caches = [each._args[-1] for each in ends if each._callback == pool.Pool._terminate_pool]  # noqa: SLF001
    return [task for cache in caches for task in list(cache.values()) if hasattr(task, "wait")]


def _pools_are_done(until: float) -> None:
    for task in _unfinished():
        task.wait(max(0.0, until - time.monotonic()))


def _pools() -> Iterator[str]:
    if left := _unfinished():
        yield f"{len(left)} tasks of a multiprocessing.Pool" if len(left) > 1 else "a task of a multiprocessing.Pool"


def _processes(until: float) -> Iterator[str]:
    """Wait for child processes; yield those that go on. Daemons, as multiprocessing calls them, end with their parent."""
    if not _has_children():
        return
    process = sys.modules["multiprocessing"]
    known = {child.pid: child for child in process.active_children()}
    children = (pid for pid in below.all_children() if not (known[pid].daemon if pid in known else below.is_helper(pid)))
    for pid in below.outlasting(children, until):
        name = known[pid].name if pid in known else below.name_of(pid)
        yield say("the process {name}({pid})", name=Private(f"{name} " if name else "", ""), pid=pid)


def _has_children() -> bool:
    """Tell whether there is any child process, ended or not, by one call; True where that cannot be seen."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except (AttributeError, OSError):
        pass
    return True


# what cleans up


def _clean() -> list[str]:
    """Call what ``atexit`` has, and finalizers; return notes on what took too long."""
    late: list[str] = []
    before = sys.unraisablehook

    def note(what: Any) -> None:
        if what.exc_type is _Late:
            late.append(_callback(what))
            signal.setitimer(signal.ITIMER_REAL, SHORT)
        elif what.exc_type is not Ended:
            before(what)

    sys.unraisablehook = note
    try:
        if atexit._ncallbacks():  # noqa: SLF001
            _within(GRACE, atexit._run_exitfuncs)  # noqa: SLF001
    finally:
        sys.unraisablehook = before
    _finalize()
    if _has_children():
        _end_daemons()
    return [say(_LATE, seconds=GRACE, what=Private(", ".join(late[:MOST]), "a function"))] if late else []


def _callback(what: Any) -> str:
    """Name a callback of atexit's, of which Python says that it failed."""
    if what.object is not None:
        return str(getattr(what.object, "__qualname__", what.object))
    return str(what.err_msg or "").rpartition("atexit callback ")[2] or "a function"


def _finalize() -> None:
    """Call the finalizers that are left where one of them took too long; then those of multiprocessing but for its queues' ends."""
    for _ in range(100):
        if not any(each.atexit for each in list(weakref.finalize._registry)):  # type: ignore[attr-defined]  # noqa: SLF001
            break
        weakref.finalize._shutdown = False  # type: ignore[attr-defined]  # noqa: SLF001
        _within(SHORT, weakref.finalize._exitfunc)  # type: ignore[attr-defined]  # noqa: SLF001
    _run_finalizers(0)


def _run_finalizers(least: int | None) -> None:
    """Run those of multiprocessing that have at least this priority."""
    if util._finalizer_registry:  # type: ignore[attr-defined]  # noqa: SLF001
        _within(GRACE, lambda: util._run_finalizers(least))  # type: ignore[attr-defined]  # noqa: SLF001


def _end_daemons() -> None:
    for child in sys.modules["multiprocessing"].active_children():
        if child.daemon:
            with suppress(OSError, AttributeError):
                child.terminate()


def _let_go_of_files() -> None:
    """Close what the body has opened and not closed: what was written there is in the file then, and temporary files go."""
    if new := [each for each in logging._handlerList if each not in _handlers]:  # type: ignore[attr-defined]  # noqa: SLF001
        _within(GRACE, lambda: logging.shutdown(new))
    if _has_files():
        _within(GRACE, _close_files)


def _close_files() -> None:
    for each in _files():
        with suppress(Exception):  # as at the interpreter's end
            each.close()


def _files() -> list[Any]:
    """Return the open files of the body, those first that write to others."""
    wrapper = getattr(sys.modules.get("tempfile"), "_TemporaryFileWrapper", _io._IOBase)  # noqa: SLF001
    found = [each for each in gc.get_objects() if issubclass(type(each), (_io._IOBase, wrapper))]  # noqa: SLF001
    texts = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if type(stream) is io.TextIOWrapper]
    keep = {id(each) for text in texts for each in (text, text.buffer, getattr(text.buffer, "raw", None))}
    order: dict[Any, int] = {io.TextIOWrapper: 1, io.BufferedWriter: 2, io.BufferedRandom: 2, io.FileIO: 3}
    return sorted((each for each in found if id(each) not in keep), key=lambda each: order.get(type(each), 0))


def _has_files() -> bool:
    """Tell whether this process has files open for writing, by name and none of ours; True where that cannot be seen.

    One without a name is nobody's once it is closed. Ours have none: Python's mmap keeps a low descriptor of what it maps.
    """
    try:
        base = base_of_ours()
        return any(_is_written(number) for number in map(int, os.listdir(_DESCRIPTORS)) if _STREAMS < number < base)  # noqa: PTH208  (quicker)
    except (ImportError, OSError, AttributeError, ValueError):
        return True


def _is_written(number: int) -> bool:
    import fcntl  # noqa: PLC0415  (POSIX only)

    with suppress(OSError):
        about = os.fstat(number)
        return stat.S_ISREG(about.st_mode) and about.st_nlink > 0 and bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
    return False
