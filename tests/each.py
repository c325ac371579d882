"""Runs in which each worker has one item: what workers do to each other."""

from __future__ import annotations

from typing import Any

import parmagic


def run_each(body: Any, count: int, model: str = "threads", *, items: int = 0, **options: Any) -> Any:
    """Run one item on each of so many workers, or so many items, without a baseline."""
    options = {"once": True, "trace": "off", "chunk": 1, "timeout": 60, **options}
    return parmagic.run(body, range(items or count), f"{model}={count}", **options)
