"""Where threads and processes are started while a run is on: what stands there in our place, and what a fork does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import spawn
from types import ModuleType
from typing import Any

from parmagic.errors import Entangled
from parmagic.record import standins
from parmagic.record.lives import Life, here
from parmagic.record.standins import StandIn
from parmagic.system.interrupts import bears, has_born
from parmagic.system.real import get_ident, is_ours, patched_threads

_NAMES = ("_start_new_thread", "_start_joinable_thread")
"""What ``threading`` starts threads with: up to 3.12, and from 3.13 on."""


class _Starter(StandIn):
    """What ``threading`` starts threads with; of several, where somebody has wrapped one of ours for good, the outermost one notes them."""

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a thread."""
        family, thread = here.family, getattr(function, "__self__", None)
        if family is None or not family.children.watches or type(function) is Life or is_ours(thread) or patched_threads():
            return self.original(function, *args, **kwargs)  # of a patch's threads none has a time of its own
        me = get_ident()
        try:
            bears(me)
            return self.original(Life(function, family, thread), *args, **kwargs)
        except BaseException:
            has_born(me)
            raise


class _Preparer(StandIn):
    """What multiprocessing makes of all that a process has to know which it starts anew."""

    def __call__(self, name: str) -> dict[str, Any]:
        """Add where such a process keeps its account."""
        known: dict[str, Any] = self.original(name)
        family = here.family
        looks = family is not None and family.measuring and family.children.watches and "parmagic" not in known
        if family is not None and looks and self.module.get_executable() == _executable():
            box = family.children.box_for(family)
            if box is not None:
                known["parmagic"] = box.token(family.children.filename, name)
        return known


class Hush(StandIn):
    """What ``threading`` does with an exception that ends a thread."""

    def __call__(self, args: Any) -> Any:
        """Show it, but for what told the thread to end: the worker below which it was says that."""
        return None if issubclass(args.exc_type, Entangled) else self.original(args)


def _executable() -> Any:
    return os.fsencode(sys.executable) if sys.platform != "win32" else sys.executable


PLACES: tuple[tuple[type[StandIn], ModuleType, str], ...] = (
    *((_Starter, threading, name) for name in _NAMES if hasattr(threading, name)),
    (_Preparer, spawn, "get_preparation_data"),
)
"""Where to stand in, and as what."""


def _fork_begins() -> None:
    family = here.family
    if family is None or not family.measuring or not family.children.watches:
        return
    caller = sys._getframe(1)  # noqa: SLF001  (who forks)
    if caller.f_globals.get("__name__") != "subprocess":  # what it forks, where it is given a preexec_fn, is about to be a program
        here.box = family.children.box_for(family)


def _fork_ends() -> None:
    here.box = None


def _fork_in_child() -> None:
    """In a fork: have ``threading`` as it was; where a body has forked it, keep an account."""
    family, box, here.family, here.box = here.family, here.box, None, None
    if family is not None and box is not None:
        family.children.in_fork(box)
    standins.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ends, after_in_child=_fork_in_child)
