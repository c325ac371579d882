"""What a body finds of IPython's in a worker process: ``display``, and a ``get_ipython`` that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parmagic.errors import NoShell

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
