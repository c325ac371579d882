"""What a body finds of the notebook's in a worker process: ``display``; ``get_ipython`` and ``breakpoint`` say why they are not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from parmagic.errors import NoShell
from parmagic.model import words

_show: Callable[[dict[str, Any], dict[str, Any]], None] | None = None


def shows(show: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """From now on, let ``show`` have what the body displays: data by its type, and metadata."""
    global _show  # noqa: PLW0603  (display() has no other way to find it)
    _show = show


def display(*objects: Any, metadata: dict[str, Any] | None = None, **_: Any) -> None:
    """Show objects under the notebook's cell, as IPython's own ``display`` does there."""
    from IPython.core.formatters import DisplayFormatter  # noqa: PLC0415  (slow to import, and rarely needed)

    formatter = DisplayFormatter()
    for each in objects:
        data, own = formatter.format(each)
        if _show is not None:
            _show(data, {**own, **(metadata or {})})


def no_ipython() -> Any:
    """Stand in for ``get_ipython``: always raises NoShell."""
    raise NoShell(
        "Shell escapes and line magics do not work in processes: there is no IPython there. "
        "Use subprocess.run(…) in the body, or threads."
    )


def no_breakpoint(*arguments: Any, **named: Any) -> Any:
    """Stand in for ``sys.breakpointhook``: raises NoShell, unless PYTHONBREAKPOINT names a debugger."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*arguments, **named)  # noqa: T100
    raise NoShell(_NO_DEBUGGER)


_NO_DEBUGGER = (
    "A debugger cannot ask in a process, which has no terminal: run the cell by `%%parallel serial`, or with threads. "
    "%debug after an error has the values there, too."
)


def understood(error: BaseException) -> BaseException:
    """Return an error that says what to write, in place of that of a debugger which found nobody to ask."""
    quits = getattr(sys.modules.get("bdb"), "BdbQuit", None)
    if quits is None or not issubclass(type(error), quits):
        return error
    return words.with_traceback(NoShell(_NO_DEBUGGER), words.traceback_of(error))
