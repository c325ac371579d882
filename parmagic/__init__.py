"""Run a notebook cell under threads or processes and see where every second went.

``%load_ext parmagic`` in IPython or Jupyter, then ``%%parallel threads=4
procs=4 for path in paths`` on top of a cell; ``parmagic.run`` is the same for
plain Python.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from parmagic.errors import CellError, Deadlock, ItemTimeout, LineError, NotShippable, ParmagicError, RunTimeout, Stuck, WorkerDied

if TYPE_CHECKING:
    from parmagic.execute.story import run
    from parmagic.record.items import current_worker
    from parmagic.result import Run, last

__version__ = "0.1.0"

__all__ = [
    "CellError",
    "Deadlock",
    "ItemTimeout",
    "LineError",
    "NotShippable",
    "ParmagicError",
    "Run",
    "RunTimeout",
    "Stuck",
    "WorkerDied",
    "current_worker",
    "last",
    "load_ipython_extension",
    "run",
    "unload_ipython_extension",
]

_LATE = {"Run": "result", "current_worker": "record.items", "last": "result", "run": "execute.story"}
"""Names whose modules load when they are first used: ``%load_ext`` should cost nothing that one feels."""


def __getattr__(name: str) -> Any:
    """Import one of the late names."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"parmagic.{_LATE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Name what there is, late or not."""
    return sorted({*globals(), *_LATE})


def load_ipython_extension(shell: Any) -> None:
    """Register the magics and the displays: ``%load_ext parmagic``."""
    from parmagic.notebook import magics  # noqa: PLC0415  (imports IPython, which a plain script need not have loaded)

    magics.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away again: ``%unload_ext parmagic``."""
    from parmagic.notebook import magics  # noqa: PLC0415  (as above)

    magics.unload(shell)
