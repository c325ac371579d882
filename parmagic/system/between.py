"""What is done between two cells of the notebook, by rooms that are loaded: they leave a call here.

It stands below those who leave calls (workers) and who has them called (notebook), for these do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Looking = TypeVar("Looking", bound=Callable[[Mapping[str, Any]], object])

_calls: list[Callable[[Mapping[str, Any]], object]] = []


def between_cells(call: Looking) -> Looking:
    """Have a function called after each cell, with the notebook's names: a decorator."""
    _calls.append(call)
    return call


def cell_has_ended(names: Mapping[str, Any]) -> None:
    """Call what wants to be called."""
    for call in _calls:
        call(names)
