"""All that is known of a run, and what follows from it: what a ``Run`` shows of it to users, and what renderers draw.

Tables, verdict and shares are made when they are first looked at, so that a run which nobody
looks at costs nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from parmagic.errors import Deadlock
from parmagic.model.classes import type_name
from parmagic.model.finding import LEFT_OUT, NOTHING_TOLD, Finding, notes_of, rough
from parmagic.model.private import public, public_error, public_finding, public_hosts, public_timeline
from parmagic.model.timeline import Timeline
from parmagic.model.words import describe, message

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from parmagic.model.arrows import Arrow
    from parmagic.model.timeline import Baseline, Calls, Lane, Slice


class Study:
    """What a run's timelines, ``baselines`` (by arm label) and findings tell.

    ``title`` is the magic line, ``name`` what the notebook has the run under (``-o``); ``show_items`` tells whether saved pages may
    show item values. ``cells`` are the numbers that the notebook's cells had, by their files.
    """

    def __init__(
        self,
        timelines: Sequence[Timeline],
        baselines: Mapping[str, Baseline],
        findings: Iterable[Finding],
        error: BaseException | None = None,
        *,
        title: str = "",
        name: str = "",
        show_items: bool = False,
        cells: Mapping[str, int] | None = None,
    ) -> None:
        self.timelines: tuple[Timeline, ...] = tuple(timelines)
        self.baselines = baselines
        self.findings = [*findings]
        self.notes = notes_of(self.findings)
        self.error = error
        self.title = title
        self.name = name
        self.show_items = show_items
        self.cells = dict(cells or {})

    def add(self, findings: Iterable[Finding]) -> None:
        """Add what was found out when the run was over: to its notes, in words."""
        found = [*findings]
        self.findings += found
        self.notes += notes_of(found)

    def why_left_out(self, label: str) -> str:
        """Say why an arm that the line asked for did not run; empty where it asked for no such arm."""
        return next((finding.text for finding in self.findings if (finding.rule, finding.arm) == (LEFT_OUT, label)), "")

    @cached_property
    def results(self) -> list[Any]:
        """The last arm's results in item order (rank order in SPMD)."""
        return self.timelines[-1].results if self.timelines else []

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per arm."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        baselines = [self.baselines[t.arm.label] for t in self.timelines]
        return tables.summary_table(self.timelines, self.workers, baselines)

    @cached_property
    def ideals(self) -> dict[str, float]:
        """The speedup that each arm could have had at most, by its label: as many times as there are workers, or CPUs for what computes."""
        from parmagic.analyze import ideal  # noqa: PLC0415  (it looks at tables)

        return ideal.ideals(self.timelines, self.workers, self.summary)

    @cached_property
    def workers(self) -> pd.DataFrame:
        """One row per (arm, rank): the states tile the wall time."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.workers_table(self.timelines)

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per (arm, item)."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.items_table(self.timelines)

    @cached_property
    def waits(self) -> pd.DataFrame:
        """One row per (arm, rank, kind, object, line, place)."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.waits_table(self.timelines)

    @cached_property
    def children(self) -> pd.DataFrame:
        """One row per thread that a body started: the states tile its life."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.children_table(self.timelines)

    @cached_property
    def sync(self) -> pd.DataFrame:
        """One row per (arm, thing): locks, and what is made of them."""
        from parmagic.analyze import sync  # noqa: PLC0415  (pandas loads when tables are looked at)

        return sync.sync_table(self.timelines)

    @cached_property
    def handoffs(self) -> pd.DataFrame:
        """One row per (arm, thing, waiter, blocker, places): who made whom wait."""
        from parmagic.analyze import sync  # noqa: PLC0415  (pandas loads when tables are looked at)

        return sync.handoffs_table(self.timelines)

    @cached_property
    def factors(self) -> pd.DataFrame:
        """One row per arm: its efficiency as a product."""
        from parmagic.analyze import factors  # noqa: PLC0415  (pandas loads when tables are looked at)

        return factors.factors_table(self.timelines, self.workers, self.summary, self.baselines)

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """One row per (arm, rank) of processes: bytes and seconds of pickling, both ways."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.transfers_table(self.timelines)

    @cached_property
    def verdict(self) -> str:
        """What to do next, in a sentence with its evidence."""
        return self._judgement.text

    @property
    def tells(self) -> bool:
        """Whether the verdict says something about the models; else only that nothing can be told."""
        return self._judgement.rule not in NOTHING_TOLD

    @cached_property
    def _judgement(self) -> Finding:
        from parmagic.analyze import verdict  # noqa: PLC0415  (it looks at tables)

        error = _first_of(self.error) if self.error is not None else None
        if not self.timelines:
            return Finding("ended_early", f"The run ended before its first arm: {error}", severity="error")
        arms = {timeline.arm.label: timeline for timeline in self.timelines}
        return verdict.verdict(verdict.Tables(self.summary, self.workers, self.waits, arms, self.findings, self.rough), error)

    @property
    def rough(self) -> frozenset[str]:
        """The arms, by label, whose speedups are rough."""
        return rough({label: baseline.how for label, baseline in self.baselines.items()}, self.findings)

    @property
    def saved(self) -> Study:
        """The study as files have it: with ``show_items`` as it is, else without any text from items, results, errors or the environment.

        Tables, verdict and pictures come from what is left: they cannot tell more.
        """
        if self.show_items:
            return self
        hosts = public_hosts(self.timelines)
        timelines = [public_timeline(timeline, hosts) for timeline in self.timelines]
        findings = map(public_finding, self.findings)
        saved = Study(timelines, self.baselines, findings, public_error(self.error), title=self.title, name=self.name, cells=self.cells)
        saved.notes = [*map(public, self.notes)]
        for name in {"summary", "workers", "factors", "transfers"} & vars(self).keys():  # made before, and figures, all of them
            vars(saved)[name] = vars(self)[name]
        return saved

    def shares(self, timeline: Timeline, lane: Lane, edges: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return the seconds of each state of a lane in each bin between ``edges``."""
        from parmagic.analyze.ledger import ledger  # noqa: PLC0415  (NumPy loads when it is looked at)

        return ledger(timeline, lane).shares(edges)

    def slices(self, lane: Lane) -> list[Slice]:
        """Return what a worker did instead of its work: its waits, and the spans that it recorded."""
        from parmagic.analyze import waits  # noqa: PLC0415  (only when drawn)

        return waits.slices(lane)

    def arrows(self, timeline: Timeline) -> list[Arrow]:
        """Return the waits of an arm that somebody caused or ended, the longest first."""
        from parmagic.analyze import arrows  # noqa: PLC0415  (only when drawn)

        return arrows.arrows(timeline)

    def functions(self) -> list[tuple[int, list[Calls]]]:
        """Return VizTracer's calls within items, by the arm's number; read from the traces."""
        from parmagic.analyze import functions  # noqa: PLC0415  (NumPy loads when they are looked at)

        found = []
        for number, timeline in enumerate(self.timelines):
            lanes = {lane.worker.rank: lane for lane in timeline.lanes}
            calls = [each for trace in timeline.traces for each in functions.read(trace, self.cells)]
            found.append((number, [functions.within_items(each, lanes[each.rank]) for each in calls if each.rank in lanes]))
        return found


def _first_of(error: BaseException) -> str:
    """Return an error's type and message, cut; of a deadlock, its first line."""
    return f"{type_name(error)}: {message(error).splitlines()[0].rstrip('.')}" if issubclass(type(error), Deadlock) else describe(error)
