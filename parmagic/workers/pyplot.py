"""Threads that draw by pyplot, whose current figure is one for all of them: their run is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock, get_ident

NOTE = (
    "pyplot was used in threads, which share its current figure: what one of them draws may land in the figure of another. "
    "Give each item one of its own: fig = matplotlib.figure.Figure(); ax = fig.subplots(); … fig.savefig(path), or return fig. "
    "Or use procs=N, where each process has a current figure of its own."
)

_ASKED = ("get_active", "get_fig_manager")
"""What pyplot's functions ask for the current figure, or for one by its number."""


class Pyplot:
    """One arm's: from ``begin`` to ``end``, whether threads that were attached have used pyplot; ``names`` are those in the body's code."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.used = False
        self._imports_it = any("pyplot" in name for name in names)
        self._was_there = True

    def begin(self) -> None:
        """Listen, where pyplot is loaded; in an arm that loads it, its first use is not heard."""
        self._was_there = _figures() is not None
        with held_back(), _changing:
            if self._was_there:
                _listening.add(self)
                _listen()

    def attach(self) -> None:
        """Take the calling thread for one of this arm's."""
        _arms[get_ident()] = self

    def end(self) -> None:
        """Listen no more; once."""
        with held_back(), _changing:
            for thread in [thread for thread, arm in _arms.items() if arm is self]:
                del _arms[thread]
            _listening.discard(self)
            if not _listening:
                _be_quiet()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it."""
        if not self._was_there and (figures := _figures()) is not None:
            self.used = self.used or self._imports_it or bool(figures.figs)
        return (NOTE,) if self.used else ()


_changing = Lock()
_listening: set[Pyplot] = set()
_arms: dict[int, Pyplot] = {}  # by thread
_changed: dict[str, tuple[Any, Any]] = {}  # what was there, and what is there instead


def _figures() -> Any:
    """Return pyplot's list of figures; None where it is not loaded."""
    return getattr(sys.modules.get("matplotlib._pylab_helpers"), "Gcf", None) if "matplotlib.pyplot" in sys.modules else None


def _listen() -> None:
    figures = _figures()
    for name in _ASKED:
        if name not in _changed:
            before = vars(figures)[name]
            _changed[name] = before, classmethod(_telling(before.__func__))
            setattr(figures, name, _changed[name][1])


def _telling(ask: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*arguments: Any, **named: Any) -> Any:
        arm = _arms.get(get_ident())
        if arm is not None:
            arm.used = True
        return ask(*arguments, **named)

    return asked


def _be_quiet() -> None:
    """Put back what was there, unless somebody else has put something there since."""
    figures = _figures()
    while _changed:
        name, (before, ours) = _changed.popitem()
        if vars(figures).get(name) is ours:
            setattr(figures, name, before)
