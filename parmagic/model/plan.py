"""What a magic line asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from parmagic.model import traits

TraceMode = Literal["auto", "full", "off"]

StartMethod = Literal["fork", "forkserver", "spawn"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run the body: a model, by its name, and its number of workers.

    ``model`` is found when an arm is made, which raises KeyError for a name that is no model's. The arm carries
    it: what was run can be told when its model is known no more.
    """

    kind: str
    count: int = 1
    model: traits.Model = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the model."""
        object.__setattr__(self, "model", traits.of(self.kind))

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
    keep_going: bool = False
    chunk: int | None = None
    start_method: StartMethod | None = None
