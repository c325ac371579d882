"""How durations are written."""

from __future__ import annotations

import math

UNKNOWN = "–"
"""What stands where a figure is not known."""


def seconds(value: float) -> str:
    """Write a duration in three digits: ``1.23 s``, ``45 ms``, ``3.2 µs``, ``2 min 5 s``."""
    if not math.isfinite(value):
        return UNKNOWN
    if abs(value) >= 99.95:  # noqa: PLR2004  (from here on, whole seconds)
        return _long(value)
    # the bounds are where three digits would round up to the next unit
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)} {unit}"
    return f"{_three(value / 1e-9)} ns" if value else "0 s"


def _three(value: float) -> str:
    # digits as they will be shown: 9.996 has one before the point, but reads 10.0
    size = abs(value)
    whole = 1 if size < 9.995 else 2 if size < 99.95 else 3  # noqa: PLR2004
    text = f"{value:.{max(0, 3 - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _long(value: float) -> str:
    sign, whole = ("-" if value < 0 else ""), round(abs(value))
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004  (minutes of an hour)
        return f"{sign}{minutes} min {rest} s"
    return f"{sign}{minutes // 60} h {minutes % 60} min"
