"""coverage.py in workers: where its settings ask for other processes, what bodies do there counts.

coverage starts in every new interpreter where these variables are set, and saves what it saw when
the interpreter ends. A worker is a fork that ends without any of that, and the server and its spares have
nothing to save: so they start without coverage, and a worker begins and saves by itself.
"""

from __future__ import annotations

import os
import sys
from typing import Any

ASKED_BY = frozenset({"COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"})
"""The variables by which coverage's ``patch = subprocess``, or the user, asks for other processes."""

NOT_COVERED = (
    "coverage does not see what the body does in processes: set `patch = subprocess` in its `[run]` settings, "
    "and run `coverage combine` at the end."
)


def left_out() -> list[str]:
    """Return a note where coverage measures this process, and was not asked for others."""
    return [NOT_COVERED] if _current() is not None and not _asked() else []


def begin() -> None:
    """In a worker: measure it, where that is asked for. What fails is said on its stderr, as by any new interpreter."""
    if not _asked():
        return
    try:
        inherited = _current()
        if inherited is not None:  # from the notebook that this is a fork of, whose business it is to save what it saw
            inherited._auto_save = False  # noqa: SLF001  (as coverage itself does in forks)
            inherited.stop()
        import coverage  # noqa: PLC0415  (where the user has it, and wants it)

        vars(coverage.process_startup).pop("coverage", None)  # it starts once in a process, and this is another one
        coverage.process_startup()
    except Exception as error:  # noqa: BLE001  (its settings may be wrong, and the run is right)
        _say("start", error)


def save() -> None:
    """In a worker: write down what was seen, for :func:`begin` has seen to it that somebody wants it."""
    measured = _current() if _asked() else None
    if measured is None:
        return
    try:
        measured.stop()
        measured.save()
    except Exception as error:  # noqa: BLE001  (a full disk, say)
        _say("save what it saw", error)


def _asked() -> bool:
    return any(name in os.environ for name in ASKED_BY)


def _current() -> Any:
    """Return what measures this process now; None where nobody does, or where coverage is too old to tell."""
    coverage = sys.modules.get("coverage")
    ask = getattr(getattr(coverage, "Coverage", None), "current", None)
    return ask() if ask is not None else None


def _say(what: str, error: Exception) -> None:
    print(f"coverage could not {what} in a worker: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  (shown under the cell)
