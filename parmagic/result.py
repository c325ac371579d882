"""What a run was: results, tables, notes, timeline.

In: timelines, baselines, findings. Out: ``Run``. Imported by: execute, notebook.

Tables are made when they are first looked at, so that a run which nobody
looks at costs nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from parmagic.model import kept
from parmagic.model.finding import NOTHING_TOLD, Finding, notes_of, rough
from parmagic.model.private import public, public_error, public_finding, public_hosts, public_timeline
from parmagic.model.timeline import Timeline
from parmagic.model.words import describe
from parmagic.system.interrupts import held_back

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from parmagic.model.timeline import Baseline, Calls, Lane, Slice
    from parmagic.render import View
    from parmagic.render.plot import RunFigure


class Trace:
    """All arms in sequence: ``show`` it, ``save`` it, ``open`` it in Perfetto, or let the notebook show its lanes."""

    def __init__(self, view: View) -> None:
        self.view = view

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the timeline; ``.html`` is a page, ``.json`` and ``.json.gz`` open in Perfetto and vizviewer."""
        from parmagic.render import save  # noqa: PLC0415  (only when asked to save)

        save.save(self.view, path)
        return str(path)

    def show(self, height: int = 640) -> Shown:
        """Show the page, to zoom and search in, under the cell: in a frame of ``height`` pixels, which needs no file and no server."""
        from parmagic.render import frame  # noqa: PLC0415  (only when asked to show)

        return Shown(frame.page_in_a_frame(self.view, height), "<the timeline is shown in notebooks; .save('x.html') writes it to a file>")

    def open(self) -> str | Shown:
        """Show the trace in Perfetto, served on 127.0.0.1 only; return its address.

        The browser is told by a private file, for its command line can be read by all. Where
        one may not read temporary files (some are packed so), follow the address yourself.
        Where the notebook runs on another machine than its browser, which could not
        reach that, return a link that downloads the trace.
        """
        from parmagic.render import chrome, frame, serve  # noqa: PLC0415  (only when asked to open)

        if serve.is_remote():
            return Shown(frame.download(self.view), "<this notebook's browser is elsewhere: .save('x.json.gz'), then https://ui.perfetto.dev>")
        url = serve.open_trace(chrome.dumps(self.view), self.view.title or "parmagic")
        serve.show(url)
        return url

    def __repr__(self) -> str:
        """Say what can be done with it."""
        return "<timeline: .show(), .save('x.html' | 'x.json' | 'x.json.gz'), .open()>"


class Shown:
    """What a notebook shows as HTML, and all others as a sentence."""

    def __init__(self, html: str, words: str) -> None:
        self._html = html
        self._words = words

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        """Say what a notebook would show."""
        return self._words


class Run:
    """What a run was: results, tables, notes, timeline. See the README for every column.

    ``title`` is the magic line, ``name`` what the notebook has the run under (``-o``); ``show_items`` tells whether saved pages may
    show item values. ``baselines`` are by arm label.
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
    ) -> None:
        self.timelines: tuple[Timeline, ...] = tuple(timelines)
        self._findings = [*findings]
        self.notes = notes_of(self._findings)
        self.error = error
        self.title = title
        self.name = name
        self.show_items = show_items
        self._baselines = baselines

    @cached_property
    def results(self) -> list[Any]:
        """The last arm's results in item order (rank order in SPMD)."""
        return self.timelines[-1].results if self.timelines else []

    def arm(self, label: str) -> ArmView:
        """Return one arm by its label, say ``threads=4``; KeyError names the arms that there are."""
        for timeline in self.timelines:
            if timeline.arm.label == label:
                return ArmView(timeline)
        raise KeyError(f"no arm {label!r}: this run has {', '.join(t.arm.label for t in self.timelines)}")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per arm."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        baselines = [self._baselines[t.arm.label] for t in self.timelines]
        return tables.summary_table(self.timelines, self.workers, baselines)

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
        """One row per (arm, rank, kind, object, line)."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.waits_table(self.timelines)

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """One row per (arm, rank) of processes: bytes and seconds of pickling, both ways."""
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when tables are looked at)

        return tables.transfers_table(self.timelines)

    @property
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

        error = describe(self.error) if self.error is not None else None
        if not self.timelines:
            return Finding("ended_early", f"The run ended before its first arm: {error}", severity="error")
        arms = {timeline.arm.label: timeline for timeline in self.timelines}
        return verdict.verdict(verdict.Tables(self.summary, self.workers, self.waits, arms, self._findings, self.rough), error)

    @property
    def rough(self) -> frozenset[str]:
        """The arms, by label, whose speedups are rough."""
        return rough({label: baseline.how for label, baseline in self._baselines.items()}, self._findings)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write everything, the timeline and all tables, into one static ``.html`` file; return its path.

        Item values, and error messages that may hold them, only where ``show_items`` is set.
        """
        from parmagic.render import page, save  # noqa: PLC0415  (only when asked to save)

        save.save_page(path, page.page(self, tables=True))
        return str(path)

    def plot(self) -> RunFigure:
        """Draw lanes, speedups and states with matplotlib (``pip install 'parmagic[plot]'``), for papers and slides."""
        from parmagic.render import plot  # noqa: PLC0415  (matplotlib is an extra)

        return plot.figure(self)

    @property
    def saved(self) -> Run:
        """The run as files have it: with ``show_items`` as it is, else without any text from items, results, errors or the environment.

        Tables, verdict and pictures come from what is left: they cannot tell more.
        """
        if self.show_items:
            return self
        hosts = public_hosts(self.timelines)
        timelines = [public_timeline(timeline, hosts) for timeline in self.timelines]
        findings = map(public_finding, self._findings)
        saved = Run(timelines, self._baselines, findings, public_error(self.error), title=self.title, name=self.name)
        saved.notes = [*map(public, self.notes)]
        for name in {"summary", "workers", "transfers"} & vars(self).keys():  # made before, and figures, all of them
            vars(saved)[name] = vars(self)[name]
        return saved

    @property
    def timeline(self) -> Trace:
        """All arms on one clock, with VizTracer's functions."""
        return Trace(self)

    def shares(self, timeline: Timeline, lane: Lane, edges: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return the seconds of each state of a lane in each bin between ``edges``."""
        from parmagic.analyze.ledger import ledger  # noqa: PLC0415  (NumPy loads when it is looked at)

        return ledger(timeline, lane).shares(edges)

    def slices(self, lane: Lane) -> list[Slice]:
        """Return what a worker did instead of its work: its waits, and the spans that it recorded."""
        from parmagic.analyze import waits  # noqa: PLC0415  (only when drawn)

        return waits.slices(lane)

    def functions(self) -> list[tuple[int, list[Calls]]]:
        """Return VizTracer's calls within items, by the arm's number; read from the traces."""
        from parmagic.analyze import functions  # noqa: PLC0415  (NumPy loads when they are looked at)

        found = []
        for number, timeline in enumerate(self.timelines):
            lanes = {lane.worker.rank: lane for lane in timeline.lanes}
            calls = [each for trace in timeline.traces for each in functions.read(trace)]
            found.append((number, [functions.within_items(each, lanes[each.rank]) for each in calls if each.rank in lanes]))
        return found

    def __repr__(self) -> str:
        """Show the report as text."""
        from parmagic.render import text  # noqa: PLC0415  (only when shown)

        return text.report(self)


class ArmView:
    """One arm of a run."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.label = timeline.arm.label

    @cached_property
    def results(self) -> list[Any]:
        """This arm's results in item order."""
        return self.timeline.results


def to_plain(run: Run) -> dict[str, Any]:
    """Return what files may hold of a run as plain data, which JSON can hold; results are left out."""
    from parmagic.model import plain  # noqa: PLC0415  (only when asked for)

    saved = run.saved
    baselines, findings = dict(saved._baselines), tuple(saved._findings)  # noqa: SLF001  (its own room)
    story = plain.Story(run.title, saved.timelines, baselines, findings, tuple(saved.notes), saved.error, run.show_items)
    return plain.written(story)


def from_plain(data: Any) -> Run:
    """Return the run that was written down so: its tables, report, page and trace, without results.

    Raises ValueError where another version has written it, or nobody has.
    """
    from parmagic.model import plain  # noqa: PLC0415  (only when asked for)

    told = plain.read(data)
    run = Run(told.timelines, told.baselines, told.findings, told.error, title=told.title, show_items=told.show_items)
    run.notes = [*told.notes]
    return run


def tell(run: Run, findings: Iterable[Finding]) -> None:
    """Add what was found out when the run was over: to its notes, in words."""
    found = [*findings]
    run._findings += found  # noqa: SLF001
    run.notes += notes_of(found)


def let_go(run: Run) -> Run:
    """Have the run's errors keep nothing of what it was made with: to be called when that has returned."""
    kept.let_go([*(error for timeline in run.timelines for error in timeline.errors.values()), *([run.error] if run.error else [])])
    return run


def load_tables() -> None:
    """Import what makes tables, with Ctrl-C held back: NumPy and pandas cannot be imported again once they were interrupted."""
    with held_back():
        from parmagic.analyze import tables, verdict  # noqa: F401, PLC0415  (this is when)


_last: Run | None = None


def last() -> Run | None:
    """Return the newest run of this process, also one that failed; None where there was none."""
    return _last


def remember(run: Run) -> Run:
    """Make ``run`` the one that :func:`last` returns."""
    global _last  # noqa: PLW0603  (that is what it is)
    _last = run
    return run
