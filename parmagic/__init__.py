"""Run a notebook cell under threads or processes and see where every second went.

``%load_ext parmagic`` in IPython or Jupyter, then ``%%parallel threads=4
procs=4 for path in paths`` on top of a cell; ``parmagic.run`` is the same for
plain Python.
"""

from __future__ import annotations

from typing import Any

from parmagic.errors import CellError, LineError, NotShippable, ParmagicError, RunTimeout, WorkerDied
from parmagic.recorder import current_worker
from parmagic.run import Run, last, run

__version__ = "0.1.0"

__all__ = [
    "CellError",
    "LineError",
    "NotShippable",
    "ParmagicError",
    "Run",
    "RunTimeout",
    "WorkerDied",
    "current_worker",
    "last",
    "load_ipython_extension",
    "run",
    "unload_ipython_extension",
]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics and the displays: ``%load_ext parmagic``."""
    from parmagic import magic  # noqa: PLC0415  (the only importer of IPython)

    magic.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away again: ``%unload_ext parmagic``."""
    from parmagic import magic  # noqa: PLC0415

    magic.unload(shell)
