"""Whether a serial result equals a parallel one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from parmagic.model.asking import ask
from parmagic.model.words import is_plain

SECONDS = 2.0
"""What the comparison of two results may take: the user's own ``__eq__`` may never end."""


def differing(serial: dict[int, Any], parallel: Sequence[Any]) -> list[int]:
    """Return the item numbers whose results differ; what cannot be compared, or not in :data:`SECONDS`, is left out."""
    plain = {item: is_plain(value) and is_plain(parallel[item]) for item, value in serial.items()}
    others = [item for item in serial if not plain[item]]
    answers = dict(zip(others, ask([partial(same, serial[item], parallel[item]) for item in others], SECONDS), strict=True))
    return [item for item, value in serial.items() if (same(value, parallel[item]) if plain[item] else answers[item]) is False]


def same(one: Any, other: Any) -> bool | None:
    """Tell whether two results are equal; None where their types cannot tell.

    Not-a-number equals itself, arrays are compared by shape and values, frames
    and series by ``equals``. Objects that only know identity cannot tell.
    """
    if one is other:
        return True
    try:
        return _same(one, other)
    except Exception:  # noqa: BLE001  (the user's own __eq__ may raise anything)
        return None


def _same(one: Any, other: Any) -> bool | None:
    if issubclass(type(one), (list, tuple)) and type(one) is type(other):
        return _all([len(one) == len(other), *(same(a, b) for a, b in zip(one, other, strict=False))])
    if issubclass(type(one), dict) and type(one) is type(other):
        return _all([one.keys() == other.keys(), *(same(value, other.get(key)) for key, value in one.items())])
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(one), numpy.ndarray) and issubclass(type(other), numpy.ndarray):
        floats = one.dtype.kind in "fc" and other.dtype.kind in "fc"
        return bool(numpy.array_equal(one, other, equal_nan=floats))
    if hasattr(one, "equals") and type(one) is type(other):
        return bool(one.equals(other))
    if getattr(type(one), "__eq__", None) is getattr(object, "__eq__"):  # noqa: B009  (types know another __eq__)
        return None
    return bool(one == other or (one != one and other != other))


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True
