"""The hooks: our C extension, where it was built and fits, put on what waits in this process and taken off again."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from parmagic.model.kinds import EVENTS, KIND, MEASURED, VERSION, WAIT_KINDS
from parmagic.model.waits import WAIT_LAYOUT, Wait
from parmagic.system.interrupts import held_back, undo
from parmagic.system.real import Lock

OFF = "PARMAGIC_WAITS is off"

_loading = Lock()
_loaded: tuple[ModuleType | None, str] | None = None


def _not_built() -> str:
    if not sys.platform.startswith("linux"):
        return "they are measured on Linux only"
    if (Path(__file__).parents[2] / "pyproject.toml").exists():  # which hides an installed package from who works in it
        return "the C extension was not built in this source folder; `pip install -e .` in it builds it where there is a C compiler"
    return "the C extension was not built when parmagic was installed; where there is a C compiler, installing it again builds it"


def _load() -> tuple[ModuleType | None, str]:
    try:
        import parmagic.record._waits as _waits  # noqa: PLC0415, PLR0402  (it may not have been built)
    except ImportError:
        return None, _not_built()
    differ = mismatch(getattr(_waits, "tables", dict)())
    if differ:
        return None, f"the C extension was built for another parmagic, which differs in {', '.join(differ)}: install parmagic again"
    why = _waits.why_not()
    atexit.register(_waits.stop)  # where the interpreter ends within a run
    if why:
        return None, why
    _introduce(_waits)
    return _waits, ""


STOPPED = (1 << 64) - 1
"""In place of a lock's address: the interpreter had stopped all threads, for its collector or to change itself."""

_PASS = -2
_LIBRARY = {
    "threading.py": "lock",
    "queue.py": "queue",
    "multiprocessing/synchronize.py": "lock",
    "multiprocessing/sharedctypes.py": "lock",
    "multiprocessing/context.py": _PASS,
    "multiprocessing/queues.py": "queue",
    "multiprocessing/connection.py": _PASS,
    "concurrent/futures/_base.py": "lock",
    "subprocess.py": _PASS,
    "selectors.py": _PASS,
}
"""What a wait within these files of the standard library is for; ``_PASS``: what their caller's file says."""

_LOOPS = (
    ("concurrent/futures/thread.py", "_worker"),
    ("concurrent/futures/process.py", "_process_worker"),
    ("concurrent/futures/process.py", "_ExecutorManagerThread.wait_result_broken_or_wakeup"),
    ("multiprocessing/pool.py", "worker"),
    ("multiprocessing/pool.py", "Pool._handle_workers"),
    ("multiprocessing/pool.py", "Pool._wait_for_updates"),
    ("multiprocessing/pool.py", "ThreadPool._wait_for_updates"),
    ("multiprocessing/pool.py", "Pool._handle_tasks"),
    ("multiprocessing/pool.py", "Pool._handle_results"),
    ("multiprocessing/queues.py", "Queue._feed"),
)
"""Where the standard library's own pools wait for work: who waits there is idle."""


class Told(NamedTuple):
    """What the hooks tell of a :class:`~parmagic.model.waits.Total`: its ``kind`` is a place in ``WAIT_KINDS``.

    Where it was is the name of a ``file``, the line ``at`` which, and the bytes of that from ``begin`` to ``end`` (0: of the lines behind
    it, too); ``of`` is the class of the standard library's whose method was called, ``inside`` the path of the native library that has
    the lock. Empty where that is not known.
    """

    kind: int
    object: int
    line: int
    n: int
    total_s: float
    max_s: float
    with_gil_s: float
    file: str
    at: int
    begin: int
    end: int
    of: str
    inside: str


def mismatch(told: dict[str, Any]) -> list[str]:
    """Return what the extension's tables have otherwise than ours: what crosses as a number has to mean the same on both sides."""
    ours = {
        "version": VERSION,
        "states": MEASURED,
        "kinds": tuple((kind, KIND[kind].state) for kind in WAIT_KINDS),
        "events": EVENTS,
        "layout": tuple(zip(Wait._fields, WAIT_LAYOUT.format[1:], strict=True)),
        "totals": Told._fields,
        "stopped": STOPPED,
        "callers": _PASS,
    }
    return [name for name, mine in ours.items() if told.get(name) != mine]


def _introduce(waits: ModuleType) -> None:
    """Tell the extension where the standard library's own locks and queues are at work."""
    folder = Path(threading.__file__).parent
    waits.own(f"{Path(__file__).parents[1]}{os.sep}")
    for name, kind in _LIBRARY.items():
        waits.library(str(folder / name), kind if isinstance(kind, int) else WAIT_KINDS.index(kind))
    for name, function in _LOOPS:
        waits.loop(str(folder / name), function)


def extension() -> tuple[ModuleType | None, str]:
    """Return the extension, or None and why waits have to be inferred."""
    global _loaded  # noqa: PLW0603  (asked once per process, by one thread: it looks at the GIL while it drops it)
    if os.environ.get("PARMAGIC_WAITS", "").lower() in {"off", "0", "no"}:
        return None, OFF
    with _loading:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def why_inferred() -> str:
    """Return why waits cannot be measured in this process; empty where they can."""
    return extension()[1]


class hooked:  # noqa: N801  (a block, as in contextlib)
    """While entered, what waits is hooked in this process, if it can be; tells whether this run's meters can measure.

    The hooks belong to one run: another one beside it, or inside of it, infers.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._extension = extension()[0] if wanted else None
        self._on = False

    def __enter__(self) -> bool:
        """Hook what waits."""
        if self._extension is not None:
            try:
                with held_back():
                    self._on = self._extension.start()
            except BaseException:
                self.__exit__()
                raise
        return self._on

    def __exit__(self, *_: object) -> None:
        """Take the hooks off."""
        try:
            undo(self.end)
        finally:
            undo(self.end)

    def end(self) -> None:
        """Take the hooks off; where a Ctrl-C has come at the very begin of ``__exit__``, nobody has."""
        if self._on and self._extension is not None:
            self._on = False
            self._extension.stop()
