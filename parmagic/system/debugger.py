"""A debugger that is attached to this process: pydevd, by which VS Code, JupyterLab and ``debugpy`` debug.

It puts functions of its own in place of those that start processes, by which whatever is started connects back to it, and
waits until somebody has answered. Our own processes go around it: those who debug would wait for them, and the run as well.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_PUT_ASIDE = "original_"
"""What the names of the functions begin with that it has put its own in place of."""

_PATCHED = ("os", "subprocess", "_posixsubprocess")


def is_attached() -> bool:
    """Tell whether somebody debugs this process."""
    debugger = _debugger()
    return debugger is not None and bool(debugger.is_attached())


def _debugger() -> Any:
    """Return pydevd's own object where it is at work, be it that nobody is connected to it."""
    constants = sys.modules.get("_pydevd_bundle.pydevd_constants")
    return None if constants is None else constants.get_global_debugger()


class undebugged:  # noqa: N801  (a block, as in contextlib)
    """While entered, no debugger rewrites what the calling thread starts. To be entered where Ctrl-C is held back."""

    def __init__(self) -> None:
        monkey: ModuleType | None = sys.modules.get("_pydev_bundle.pydev_monkey")
        self._mine = getattr(monkey, "_arg_patch", None)  # its own switch, for each thread

    def __enter__(self) -> None:
        """Switch it off."""
        if self._mine is not None:
            self._before = getattr(self._mine, "apply_arg_patching", True)
            self._mine.apply_arg_patching = False

    def __exit__(self, *_: object) -> None:
        """Switch it on again, if it was on."""
        if self._mine is not None:
            self._mine.apply_arg_patching = self._before


def leave() -> None:
    """In a forked child: let go of the debugger, whose threads and whose connection are the parent's."""
    constants = sys.modules.get("_pydevd_bundle.pydevd_constants")
    if constants is None:
        return
    constants.set_global_debugger(None)
    for module in filter(None, map(sys.modules.get, _PATCHED)):
        for name in [name for name in vars(module) if name.startswith(_PUT_ASIDE)]:
            setattr(module, name.removeprefix(_PUT_ASIDE), getattr(module, name))
            delattr(module, name)
    if sys.version_info >= (3, 12):
        _stop_monitoring()
    tracing = sys.modules.get("pydevd_tracing")
    if tracing is not None:
        tracing.restore_sys_set_trace_func()
    sys.settrace(None)


def _stop_monitoring() -> None:
    """Take its callbacks away (3.12+): its events stay on the code that it has set breakpoints in."""
    if sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        if monitoring.get_tool(monitoring.DEBUGGER_ID) != "pydevd":
            return
        monitoring.set_events(monitoring.DEBUGGER_ID, 0)
        for event in vars(monitoring.events).values():
            with suppress(ValueError):  # some are no single event
                monitoring.register_callback(monitoring.DEBUGGER_ID, event, None)
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)


def hide(thread: threading.Thread) -> threading.Thread:
    """Have no debugger stop a thread of ours that runs no code of the user's: others wait for it."""
    for name in ("is_pydev_daemon_thread", "pydev_do_not_trace"):
        setattr(thread, name, True)
    return thread


def holds(thread: threading.Thread) -> bool:
    """Tell whether a thread stands at a breakpoint, or where it was when another one came to a breakpoint."""
    return bool(getattr(getattr(thread, "additional_info", None), "is_in_wait_loop", False))


def let_go() -> None:
    """Have all threads go on that the debugger holds, as its "continue" does."""
    lifecycle = sys.modules.get("_pydevd_bundle.pydevd_thread_lifecycle")
    if lifecycle is not None and is_attached():
        lifecycle.resume_threads("*")


def _hide_ours(debugger: Any) -> None:
    """Have it neither stop within parmagic nor show its frames, as it does with its own; who debugs parmagic has breakpoints there."""
    api, now = sys.modules.get("_pydevd_bundle.pydevd_api"), debugger.dont_trace_external_files
    before, ends = (tuple(getattr(now, f"{side}_patterns", ())) for side in ("start", "end"))
    ours = os.path.normcase(str(Path(__file__).parents[1]) + os.sep)
    if api is not None and ours not in before and not any(file.startswith(ours) for file in debugger.breakpoints):
        api.PyDevdAPI().set_dont_trace_start_end_patterns(debugger, (*before, ours), ends)


class Unwatched:
    """Keeps the debugger out of the calling thread until :meth:`end`: it neither stops it nor slows it."""

    def __init__(self) -> None:
        self._put_back: Callable[[], object] | None = None

    def begin(self) -> None:
        """Switch it off here; on 3.11 that is the thread's trace function, above it a switch of its own."""
        debugger = _debugger()
        if debugger is None:
            return
        _hide_ours(debugger)
        if sys.version_info >= (3, 12):
            monitor = sys.modules.get("_pydevd_sys_monitoring.pydevd_sys_monitoring")
            suspend, resume = (getattr(monitor, f"{word}_current_thread_tracing", None) for word in ("suspend", "resume"))
            if suspend is not None and resume is not None:
                self._put_back = resume
                if suspend() is False:  # it was off before
                    self._put_back = None
            return
        tracing, before = sys.modules.get("pydevd_tracing"), sys.gettrace()
        if tracing is not None and before is not None:
            self._put_back = functools.partial(tracing.SetTrace, before)
            tracing.SetTrace(None)

    def end(self) -> None:
        """Have it back, if it was there."""
        if self._put_back is not None:
            self._put_back()
