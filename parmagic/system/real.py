"""What the system really offers, also where gevent or eventlet has put its own in its place: locks, threads, sleeps, polls, sockets, forks.

Their patches change the modules of the standard library in place. A name that is imported from here is what was there
before: a patch that comes later does not reach it, and of one that came first the library hands out the originals.
What lies below ``os``, ``signal`` and ``queue`` is never patched, and is taken from there.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import importlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _thread import LockType, get_ident, start_new_thread
    from _thread import allocate_lock as Lock  # noqa: N812
    from importlib.abc import Loader
    from os import close as close_descriptor
    from os import fork as fork_process
    from os import open as open_descriptor
    from os import posix_spawn, waitpid
    from os import read as read_descriptor
    from os import write as write_descriptor
    from queue import Empty
    from select import poll as Poll  # noqa: N812
    from socket import socket as Socket  # noqa: N812
    from threading import RLock, local
    from time import sleep

__all__ = [
    "Empty", "Lock", "LockType", "Poll", "RLock", "Socket", "close_descriptor", "fork_process", "get_ident", "in_main_thread", "is_ours",
    "lead_the_loop", "local", "new_thread", "open_descriptor", "patched_threads", "posix_spawn", "read_descriptor", "renew",
    "set_handler", "set_wakeup_fd", "sleep", "start_new_thread", "subprocesses", "waitpid", "write_descriptor",
]  # fmt: skip

BORN_WITHIN = 30.0
"""Seconds in which a thread comes to its first line, also among many that want the GIL."""

_LATER = {
    "Empty": ("_queue", "Empty"),
    "Poll": ("select", "poll"),
    "Socket": ("socket", "socket"),
}
"""What is looked up when somebody asks for it: nothing is imported here that nobody needs."""


def _original(module: str, name: str) -> Any:
    """Return what a module of the standard library had under this name before any patch; None where this system has no such thing."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_object_patched(module, name):
        return gevent.get_original(module, name)
    home = eventlet.original(module) if eventlet is not None and eventlet.already_patched else importlib.import_module(module)
    return getattr(home, name, None)


_below_os = sys.modules[os.name]  # posix, or nt
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = _original(*_LATER[name])
        return found

    Lock, RLock, get_ident, local, start_new_thread = (
        _original("_thread", name) for name in ("allocate_lock", "RLock", "get_ident", "_local", "start_new_thread")
    )
    sleep = _original("time", "sleep")
    close_descriptor, open_descriptor, read_descriptor, write_descriptor = _below_os.close, _below_os.open, _below_os.read, _below_os.write
    fork_process, posix_spawn, waitpid = (getattr(_below_os, name, None) for name in ("fork", "posix_spawn", "waitpid"))
set_wakeup_fd = _signal.set_wakeup_fd


def set_handler(number: int, handler: Any) -> None:
    """Set what a signal calls, or ``signal.SIG_IGN`` or ``SIG_DFL``."""
    _signal.signal(number, handler if callable(handler) else int(handler))


def subprocesses() -> ModuleType:
    """Return ``subprocess``; where somebody may have patched it, a copy of our own, for they take from it what its classes need."""
    import subprocess  # noqa: PLC0415  (only who starts one needs it)

    if not {"gevent.monkey", "eventlet.patcher"} & sys.modules.keys():
        return subprocess
    spec = subprocess.__spec__
    copy, its_os = module_from_spec(spec), ModuleType("os")
    cast("Loader", spec.loader).exec_module(copy)
    vars(its_os).update(vars(os), **{name: found for name, found in vars(_below_os).items() if callable(found)})
    vars(copy).update(os=its_os)
    return copy


def patched_threads() -> str:
    """Return which library has made greenlets of ``threading``'s threads; empty where none has."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if _says(gevent, "is_module_patched", "_thread"):
        return "gevent"
    return "eventlet" if _says(eventlet, "is_monkey_patched", "thread") else ""


def _says(library: ModuleType | None, name: str, module: str) -> bool:
    """Tell whether a library says so; one that is being imported has not patched anything yet."""
    asked = getattr(library, name, None)
    return asked is not None and bool(asked(module))


def in_main_thread() -> bool:
    """Tell whether this is the thread that signals come to; all greenlets in it are."""
    if get_ident() == threading.main_thread().ident:  # current_thread() would make up a thread for one that threading does not know
        return True
    return bool(patched_threads()) and sys.platform.startswith("linux") and threading.get_native_id() == os.getpid()


def new_thread(target: Callable[..., object], args: tuple[Any, ...] = (), *, name: str) -> threading.Thread:
    """Return a thread, not started yet, which does not keep the interpreter from ending."""
    if patched_threads():
        return _Bare(target, args, name)  # type: ignore[return-value]
    return _Thread(target=target, args=args, name=name, daemon=True)


class _Thread(threading.Thread):
    """A thread that ends in silence also where ``threading`` was patched meanwhile, and does not know it by its number any more."""

    def _delete(self) -> None:
        with suppress(KeyError):
            super()._delete()  # type: ignore[misc]


def is_ours(thread: object) -> bool:
    """Tell whether this is a thread that :func:`new_thread` made."""
    return type(thread) is _Thread or type(thread) is _Bare


class _Bare:
    """A thread that ``threading`` knows nothing of, which knows only greenlets now; what is used of a thread, by the same names."""

    def __init__(self, target: Callable[..., object], args: tuple[Any, ...], name: str) -> None:
        self._target = target
        self._args = args
        self.name = name
        self.ident: int | None = None
        self._over = False
        self._begun, self._ended = _closed(), _closed()

    def start(self) -> None:
        """Start it; RuntimeError where it cannot be started, or had no memory to begin."""
        start_new_thread(self._run, ())
        if not self._begun.acquire(timeout=BORN_WITHIN):
            raise RuntimeError("can't start new thread")

    def _run(self) -> None:
        try:
            self.ident = get_ident()
            self._begun.release()
            self._target(*self._args)
        finally:
            self._over = True
            self._ended.release()

    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self.ident is not None and not self._over

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, or that many seconds."""
        if not self._over and self._ended.acquire(timeout=-1 if timeout is None else timeout):
            self._ended.release()


def _closed() -> LockType:
    lock = Lock()
    lock.acquire()
    return lock


def lead_the_loop() -> None:
    """Where gevent has patched something, have its default loop in the main thread, if this is that, before threads of ours run bodies.

    It belongs to the thread that asks for one first, and no other one hears of the ends of subprocesses: they would wait forever.
    """
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.saved and in_main_thread():
        sys.modules["gevent.hub"].get_hub()


def renew() -> None:
    """In a fork: have no greenlets, and no event loop with its polls, of the process that was forked."""
    gevent, eventlet = sys.modules.get("gevent._hub_local"), sys.modules.get("eventlet.hubs")
    with suppress(Exception):  # where it is another version's: what the body does then is as in a fork of its own
        if gevent is not None and (hub := gevent.get_hub_if_exists()) is not None:
            hub.destroy(destroy_loop=True)
        if eventlet is not None:
            eventlet.use_hub()
