"""Whether there is a GIL: always, but on free-threaded builds, where it may be off."""

from __future__ import annotations

import sys

FREE_THREADED = "t" in getattr(sys, "abiflags", "")
"""This interpreter was built to run without a GIL. It has one all the same once a module was imported that asks for it."""


def gil_enabled() -> bool:
    """Tell whether this interpreter runs with a GIL at this moment."""
    asked = getattr(sys, "_is_gil_enabled", None)
    return True if asked is None else bool(asked())


def gil_notes(*, before: bool, after: bool) -> list[str]:
    """Say where a free-threaded interpreter ran threads under a GIL all the same: it was on ``before`` they began, or ``after``."""
    if not FREE_THREADED or not (before or after) or getattr(sys.flags, "gil", None):
        return []  # or PYTHON_GIL=1 asked for it
    when = "" if before else " while the body ran (waits for it count as lock waits here)"
    note = (
        f"This free-threaded interpreter has a GIL: an extension module that was imported made it come on{when}. "
        "The warning that Python gave then names it; PYTHON_GIL=0 in the environment keeps the GIL off."
    )
    return [note]
