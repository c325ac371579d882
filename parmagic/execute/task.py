"""What a run is asked to do, and where it shows what happens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from parmagic.model.plan import Arm, Changes, Plan
from parmagic.model.progress import Displayed, Logged, Printed, Pulse, Standing
from parmagic.record.items import Broke, Call, Worker
from parmagic.system.files import KEEP_BYTES, KEEP_RUNS
from parmagic.workers.dispatch import OWN, Sharing
from parmagic.workers.loop import Wrapped
from parmagic.workers.output import below, mark
from parmagic.workers.settings import logs


class Screen(Protocol):
    """Where a run shows what happens while it happens."""

    def begin(self, arm: str, n_items: int) -> None:
        """Announce an arm."""
        ...

    def done(self, n_items: int) -> None:
        """Tell how many more items are done."""
        ...

    def printed(self, printed: Printed, model: str) -> None:
        """Show what a worker printed."""
        ...

    def displayed(self, displayed: Displayed, model: str) -> None:
        """Show what a worker displayed."""
        ...

    def logged(self, logged: Logged) -> None:
        """Have the notebook's handler deal with what a worker logged."""
        ...

    def standing(self, standing: Standing, model: str) -> None:
        """Tell what a worker is doing while no item ends."""
        ...

    def pulse(self, pulse: Pulse) -> None:
        """Tell what all workers are doing now."""
        ...

    def end(self) -> None:
        """The arm is over."""
        ...


def own_stream(name: str) -> Any:
    """Return ``sys.stdout`` or ``sys.stderr`` by name, below what a run that goes on, this one or another, has put there."""
    return below(getattr(sys, name))


class Quiet:
    """A screen that shows what the body prints, and nothing else."""

    def begin(self, arm: str, n_items: int) -> None:
        """Show nothing."""

    def done(self, n_items: int) -> None:
        """Show nothing."""

    def printed(self, printed: Printed, model: str) -> None:
        """Print the lines, marked with their worker."""
        stream, text = getattr(sys, printed.stream), mark(printed, model)
        try:
            stream.write(text)
        except UnicodeEncodeError as error:  # the body's own stream may know more characters than the notebook's
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()

    def displayed(self, displayed: Displayed, model: str) -> None:  # noqa: ARG002  (as all screens)
        """Print the plain text."""
        print(displayed.data.get("text/plain", ""))  # noqa: T201  (the user asked to display it)

    def logged(self, logged: Logged) -> None:
        """Have the notebook's handler deal with it."""
        logs.handle(logged)

    def standing(self, standing: Standing, model: str) -> None:
        """Show nothing."""

    def pulse(self, pulse: Pulse) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to run: ``call(item, worker)``, over ``items``; without items, once per worker (SPMD).

    ``names`` are those that the body reads. ``blocking`` are names that make
    ranks wait for each other: no serial run then. ``changes`` are what is known of that from the body's text. ``title`` is shown, ``notes``
    are the run's first ones.
    """

    call: Call
    items: Sequence[Any] | None
    plan: Plan
    title: str = ""
    names: frozenset[str] = frozenset()
    blocking: frozenset[str] = frozenset()
    changes: Changes = field(default_factory=Changes)
    notes: tuple[str, ...] = ()
    baseline: bool = True
    folder: str | None = None
    keep_runs: int = KEEP_RUNS
    keep_bytes: int = KEEP_BYTES
    show_items: bool = False

    def items_for(self, arm: Arm) -> Sequence[Any]:
        """Return the items of an arm: its ranks, in SPMD."""
        return self.items if self.items is not None else range(self.ranks(arm))

    def sharing(self, arm: Arm, claims: tuple[range, ...] | None = None) -> Sharing:
        """Return how an arm's items are shared out, where ``claims`` are given only these: in SPMD they are ranks, each a worker's own."""
        if self.items is None and not arm.model.one_at_a_time:
            return OWN
        return Sharing("common" if claims is None else "fixed", claims or (), in_turn=self.items is None)

    def ranks(self, arm: Arm) -> int:
        """Return how many ranks an SPMD arm has; the serial one runs those of the first parallel arm."""
        if not arm.model.one_at_a_time:
            return arm.count
        return next((other.count for other in self.plan.arms if not other.model.one_at_a_time), 1)


class Breaking(Wrapped):
    """Runs a body that may break its loop: what it returns then is raised, so that no other body is looked at."""

    __slots__ = ()

    def __call__(self, item: Any, worker: Worker) -> Any:
        """Run the body; raises :class:`~parmagic.record.items.Broke` where it broke the loop."""
        value = self.function(item, worker)
        if value is Broke:
            raise Broke
        return value


class CallItem(Wrapped):
    """A function of one item, called as a body is."""

    __slots__ = ()

    def __call__(self, item: Any, _: Worker) -> Any:
        """Call it with the item."""
        return self.function(item)
