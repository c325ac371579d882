"""What a run was: results, tables, notes, timeline.

In: a ``Study``. Out: ``Run``, with what users need of it, and nothing else. Imported by: execute, notebook.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from parmagic.analyze.study import Study
from parmagic.model import kept
from parmagic.model.timeline import Timeline
from parmagic.system.interrupts import held_back

if TYPE_CHECKING:
    import pandas as pd

    from parmagic.render.plot import RunFigure


class Trace:
    """All arms in sequence: ``show`` it, ``save`` it, ``open`` it in Perfetto, or let the notebook show its lanes."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the timeline; ``.html`` is a page, ``.json`` and ``.json.gz`` open in Perfetto and vizviewer."""
        from parmagic.render import save  # noqa: PLC0415  (only when asked to save)

        save.save(self._study, path)
        return str(path)

    def show(self, height: int | None = None) -> Shown:
        """Show the page, to zoom and search in, under the cell: in a frame, which needs no file and no server.

        It is ``height`` pixels high; without that, as high as its lanes, up to 2,000 pixels.
        """
        from parmagic.render import frame  # noqa: PLC0415  (only when asked to show)

        words = "<the timeline is shown in notebooks; .save('x.html') writes it to a file>"
        return Shown(frame.page_in_a_frame(self._study, height), words)

    def open(self) -> str | Shown:
        """Show the trace in Perfetto, served on 127.0.0.1 only; say so, and return its address at once.

        It is written when the browser asks for it, which takes some seconds for a million calls.
        The browser is told by a private file, for its command line can be read by all. Where
        one may not read temporary files (some are packed so), follow the address yourself.
        Where the notebook runs on another machine than its browser, which could not
        reach that, return a link that downloads the trace.
        """
        from parmagic.render import chrome, frame, serve  # noqa: PLC0415  (only when asked to open)

        if serve.is_remote():
            print("Packing the trace into a link that downloads it: this notebook's browser seems to be on another machine.")  # noqa: T201
            words = "<this notebook's browser is elsewhere: .save('x.json.gz'), then https://ui.perfetto.dev>"
            return Shown(frame.download(self._study), words)
        print("Opening the timeline in this machine's browser: in Perfetto, served on 127.0.0.1 while this process runs.")  # noqa: T201
        saved = self._study.saved
        url = serve.open_trace(lambda: chrome.dumps(saved), saved.title or "parmagic")
        if not serve.shown(url):
            print("No browser could be started here: open the address below yourself.")  # noqa: T201
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
    """What a run was: results, tables, notes, timeline. See the README for every column."""

    def __init__(self, study: Study) -> None:
        self._study = study

    @property
    def results(self) -> list[Any]:
        """The last arm's results in item order (rank order without ``for``)."""
        return self._study.results

    def arm(self, label: str) -> ArmView:
        """Return one arm by its label, say ``threads=4``; KeyError names the arms that there are, and says why one was left out."""
        timelines = self._study.timelines
        for timeline in timelines:
            if timeline.arm.label == label:
                return ArmView(timeline)
        there, why = ", ".join(timeline.arm.label for timeline in timelines), self._study.why_left_out(label)
        raise KeyError(f"no arm {label!r}: this run has {there}{why and f'. {why}'}")

    @property
    def summary(self) -> pd.DataFrame:
        """One row per arm: wall time, speedup, and what the workers did with their time."""
        return self._study.summary

    @property
    def workers(self) -> pd.DataFrame:
        """One row per (arm, rank): the states tile the wall time."""
        return self._study.workers

    @property
    def items(self) -> pd.DataFrame:
        """One row per (arm, item)."""
        return self._study.items

    @property
    def waits(self) -> pd.DataFrame:
        """One row per (arm, rank, kind, object, line, place)."""
        return self._study.waits

    @property
    def children(self) -> pd.DataFrame:
        """One row per thread that a body started, under its own name: the states tile its ``life_s``."""
        return self._study.children

    @property
    def sync(self) -> pd.DataFrame:
        """One row per (arm, lock, condition, queue …), under the name that you gave it: how often, how long waited for, how long held.

        What processes share is in one row for all of them. ``bytes`` are those of pickled messages (of what ``send_bytes`` sends, as it
        is): each once for a queue, and at each end of a pipe. Calls to a Manager have a row for each method, ``shared.update``, and all of
        their time is a wait. Each look at a Value or an Array takes its lock once, ``value += 1`` twice.
        """
        return self._study.sync

    @property
    def handoffs(self) -> pd.DataFrame:
        """One row per (arm, primitive, waiter, blocker, places): who made whom wait, and where both were."""
        return self._study.handoffs

    @property
    def factors(self) -> pd.DataFrame:
        """One row per arm: its efficiency as a product, of a factor for each thing that takes of it; the biggest is named."""
        return self._study.factors

    @property
    def transfers(self) -> pd.DataFrame:
        """One row per (arm, rank) of processes: megabytes and seconds of pickling, both ways."""
        return self._study.transfers

    @property
    def verdict(self) -> str:
        """What to do next, in a sentence with its evidence."""
        return self._study.verdict

    @property
    def notes(self) -> list[str]:
        """What you must know about the figures."""
        return self._study.notes

    @property
    def error(self) -> BaseException | None:
        """What ended the run early, or None."""
        return self._study.error

    @property
    def timeline(self) -> Trace:
        """All arms on one clock, with VizTracer's functions."""
        return Trace(self._study)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write everything, the timeline and all tables, into one static ``.html`` file; return its path.

        Item values, and error messages that may hold them, only with ``%config ParallelMagics.show_items = True``.
        """
        from parmagic.render import page, save  # noqa: PLC0415  (only when asked to save)

        save.save_page(path, page.page(self._study, tables=True))
        return str(path)

    def plot(self) -> RunFigure:
        """Draw lanes, speedups and states with matplotlib (``pip install 'parmagic[plot]'``), for papers and slides."""
        from parmagic.render import plot  # noqa: PLC0415  (matplotlib is an extra)

        return plot.figure(self._study)

    def __repr__(self) -> str:
        """Show the report as text, as wide as the terminal."""
        from parmagic.render import text  # noqa: PLC0415  (only when shown)

        return text.on_screen(self._study)


class ArmView:
    """One arm of a run."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.label = timeline.arm.label

    @cached_property
    def results(self) -> list[Any]:
        """This arm's results in item order."""
        return self._timeline.results


def study(shown: Run | Trace) -> Study:
    """Return all that is known of a run: for those who show it, not for users."""
    return shown._study  # noqa: SLF001  (its own room)


def to_plain(run: Run) -> dict[str, Any]:
    """Return what files may hold of a run as plain data, which JSON can hold; results are left out."""
    from parmagic.model import plain  # noqa: PLC0415  (only when asked for)

    saved, show_items = study(run).saved, study(run).show_items
    told = tuple(saved.findings), tuple(saved.notes)
    return plain.written(plain.Story(saved.title, saved.timelines, dict(saved.baselines), *told, saved.error, show_items, saved.cells))


def from_plain(data: Any) -> Run:
    """Return the run that was written down so: its tables, report, page and trace, without results.

    Raises ValueError where another version has written it, or nobody has.
    """
    from parmagic.model import plain  # noqa: PLC0415  (only when asked for)

    told = plain.read(data)
    known = Study(told.timelines, told.baselines, told.findings, told.error, title=told.title, show_items=told.show_items, cells=told.cells)
    known.notes = [*told.notes]
    return Run(known)


def let_go(run: Run) -> Run:
    """Have the run's errors keep nothing of what it was made with: to be called when that has returned."""
    kept.let_go([*(error for timeline in study(run).timelines for error in timeline.errors.values()), *([run.error] if run.error else [])])
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
