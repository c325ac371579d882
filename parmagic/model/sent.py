"""Dataclasses that travel between processes, some dozens in the shortest of runs."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def sent(kind: type[T]) -> type[T]:
    """Have a dataclass pickled as a call of itself with its fields' values.

    The fields are looked up here, once: dataclasses with slots do so at every object that is written or read, which takes twice the time.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    values = attrgetter(*names)

    def reduce(self: T) -> tuple[type[T], tuple[Any, ...]]:
        return kind, values(self) if len(names) > 1 else (values(self),)

    kind.__reduce__ = reduce  # type: ignore[method-assign, assignment]
    return kind
