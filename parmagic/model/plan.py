"""What a magic line asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["serial", "threads", "procs"]

Trace = Literal["auto", "full", "off"]

StartMethod = Literal["fork", "forkserver", "spawn"]

KINDS: tuple[Kind, ...] = ("serial", "threads", "procs")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run the body: a model and its number of workers."""

    kind: Kind
    count: int = 1

    @property
    def label(self) -> str:
        """``serial`` or, say, ``threads=4``."""
        return "serial" if self.kind == "serial" else f"{self.kind}={self.count}"


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
    trace: Trace = "auto"
    timeout: float | None = None
    keep_going: bool = False
    chunk: int | None = None
    start_method: StartMethod | None = None
