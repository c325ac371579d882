"""What the system grants this process, and what to say where that does not suffice."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parmagic.errors import LimitReached, ParmagicError
from parmagic.system import cgroups
from parmagic.system.descriptors import Lost
from parmagic.system.interrupts import held_back
from parmagic.system.real import close_descriptor

BORN_WITHIN = 30.0
"""Seconds in which a thread comes to its first line, also among many that want the GIL."""

_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def explained() -> Iterator[None]:
    """Raise what the system refuses within this block as :class:`LimitReached`: which limit it was, how high it is, what to try."""
    try:
        yield
    except Lost as error:
        raise ParmagicError(
            "A file or a socket of parmagic's own was closed: did the body close descriptors that it had not opened? Run the cell again."
        ) from error
    except (OSError, RuntimeError, ImportError, MemoryError) as error:
        text = why(error)
        if text is None:
            raise
        raise LimitReached(text) from error


def why(error: BaseException) -> str | None:
    """Say which limit of the system an exception comes from, and what to try; None where it comes from none."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_DESCRIPTOR or (isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error)):
        return _descriptors(system=number == errno.ENFILE)
    no_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    if no_thread or (number == errno.EAGAIN and not _is_of_a_stream(error)):
        return f"No further thread or process can be started. End some, use fewer workers, or raise the limit.{_known(_tasks())}"
    if number == errno.ENOMEM or isinstance(error, MemoryError):
        return f"There is no memory left for this run. Use fewer workers or smaller items, or raise the limit.{_known(_memory())}"
    if number in _NO_ROOM:
        place = getattr(error, "filename", None) or "the memory or disk that its files lie in (df -h /dev/shm /tmp)"
        return f"There is no space left for this run's files: {place}. Free some."
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        if not _a_descriptor_is_left():
            return _descriptors(system=False)  # which is why none was found
        return f"{error.strerror or error}: let TMPDIR name a folder that can be written to."
    return None


def why_not(number: int, text: str) -> str:
    """Say why another process could not start one: its error's number and text, and what to try."""
    cause = {
        errno.EAGAIN: "the limit on processes is reached (ulimit -u, or a container's). Take fewer workers, or end other programs.",
        errno.ENOMEM: "there is no memory for it. Take fewer workers, or delete what is large.",
        errno.EMFILE: "it may have no more open files (ulimit -n). Take fewer workers, or close files.",
        errno.ENFILE: "the system has no room for more open files. Take fewer workers.",
    }
    return f"{text}: {cause[number]}" if number in cause else f"{text}."


def _is_of_a_stream(error: BaseException) -> bool:
    """Tell whether a stream could not take what was written to it at once: the system refused nothing."""
    return hasattr(error, "characters_written")


def start(thread: threading.Thread) -> None:
    """Start a thread; RuntimeError where it cannot be started.

    Also where it had no memory to begin: CPython waits forever for one that ends before its first line.
    A Ctrl-C comes after it: CPython would count a thread that it kept from starting among the living forever.
    """
    with held_back(), _awaited(getattr(thread, "_started", None), thread):
        thread.start()


@contextmanager
def _awaited(begun: Any, thread: threading.Thread) -> Iterator[None]:
    """Have who starts a thread wait for its first line for a while only; it is ``begun`` that tells of it."""
    if not isinstance(begun, threading.Event):
        yield
        return

    def wait(timeout: float | None = None) -> bool:
        if not threading.Event.wait(begun, BORN_WITHIN if timeout is None else timeout):
            getattr(threading, "_limbo", {}).pop(thread, None)
            raise RuntimeError("can't start new thread")
        return True

    begun.wait = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        del begun.wait  # it has the event, and the thread: a circle of references


def _descriptors(*, system: bool) -> str:
    if system:
        return "The whole system has no open file left to give (cat /proc/sys/fs/file-nr). Close some, or use fewer workers."
    allowed, most = _of("RLIMIT_NOFILE")
    higher = f" (up to {most:.0f}: resource.setrlimit in the notebook)" if allowed < most < math.inf else ""
    return (
        f"{allowed:.0f} open files are allowed to a process here (ulimit -n), and that is not enough for this run. "
        f"Close files and sockets that are not used any more, use fewer workers, or raise the limit{higher}."
    )


def _a_descriptor_is_left() -> bool:
    try:
        close_descriptor(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _tasks() -> list[str]:
    """Return what limits how many threads and processes there are."""
    of_user, group = _of("RLIMIT_NPROC")[0], _of_group()
    found = [f"{of_user:.0f} threads and processes of this user (ulimit -u)"] if of_user < math.inf else []
    found += [f"{group:.0f} in this container (pids.max)"] if group < math.inf else []
    return found + _memory()


def _of_group() -> float:
    """Return how many threads and processes the control groups of this process may have."""
    return min((cgroups.number(folder / "pids.max") for folder in cgroups.folders("pids")), default=math.inf)


def _memory() -> list[str]:
    space = _of("RLIMIT_AS")[0]
    return [f"{space / 1e6:.0f} MB of address space in a process (ulimit -v)"] if space < math.inf else []


def _known(limits: list[str]) -> str:
    return f" The limits here: {', '.join(limits)}." if limits else ""


def _of(name: str) -> tuple[float, float]:
    """Return a limit of this process, and how far it may be raised; infinity where there is none."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)

        pair = resource.getrlimit(getattr(resource, name))
    except (ImportError, AttributeError, OSError):
        return math.inf, math.inf
    soft, hard = (math.inf if each == resource.RLIM_INFINITY else float(each) for each in pair)
    return soft, hard
