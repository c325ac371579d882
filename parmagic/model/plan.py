"""What a magic line asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from parmagic.model import traits
from parmagic.model.sent import sent
from parmagic.model.traits import Model

TraceMode = Literal["auto", "full", "off"]

StartMethod = Literal["fork", "forkserver", "spawn"]


@sent
@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run the body: a model and its number of workers."""

    model: Model
    count: int = 1

    @classmethod
    def named(cls, name: str, count: int = 1) -> Self:
        """Return an arm of the model of that name; KeyError where there is none."""
        return cls(traits.of(name), count)

    @property
    def label(self) -> str:
        """``serial`` or, say, ``threads=4``."""
        return self.model.with_count(self.count)


@dataclass(frozen=True, slots=True)
class Loop:
    """The ``for`` clause as Python source: ``for target in iterable``.

    A clause with conditions or several ``for`` is already folded into one
    target and one iterable (a list comprehension).
    """

    target: str
    iterable: str


@sent
@dataclass(frozen=True, slots=True)
class Changes:
    """What a body visibly changes in the notebook's memory.

    ``names`` are those of the notebook that it changes, ``read`` the names and attributes that it reads before it assigns them, as
    each update does: ``n += 1``. ``tallies`` are the names and attributes whose elements it updates: ``n[key] += 1``. Where these
    may differ from run to run, ``numbers`` is False.
    """

    names: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    tallies: frozenset[str] = frozenset()
    numbers: bool = True


@sent
@dataclass(frozen=True, slots=True)
class Plan:
    """All that a magic line asks for."""

    arms: tuple[Arm, ...]
    loop: Loop | None = None
    expression: str | None = None  # of the line magic
    name: str | None = None  # -o NAME
    quiet: bool = False
    once: bool = False
    trace: TraceMode = "auto"
    timeout: float | None = None
    item_timeout: float | None = None
    retry: int = 0
    keep_going: bool = False
    chunk: int | None = None
    start_method: StartMethod | None = None
    seed: int | None = None
    fresh_seed: int = 0
    """What stands for a ``seed`` that was not asked for; drawn for each run."""
    changes: Changes = Changes()
    """Of these, a serial run apart from the notebook's memory tells what they end as."""

    @property
    def claim(self) -> int | None:
        """How many items a worker claims at a time; None: as it goes. One, where items are ended with their process: it had no others."""
        return self.chunk or (1 if self.item_timeout else None)
