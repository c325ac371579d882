"""A run becomes text, HTML, a page, or a trace file.

In: a ``View``, which a run's ``Study`` is. Out: what is shown or written. Imported by: result, notebook.

Nothing here measures or computes a figure: figures come from the run's tables,
pictures from :meth:`View.shares`, so they can't disagree.

::

    View ─▶ text.report   the IPython shell
         ─▶ html.report   the notebook, no JavaScript (svg: its lanes)
         ─▶ page.page     one .html file, zoomable (scene: what it draws) ─▶ frame, serve.link
         ─▶ plot.figure   matplotlib
         ─▶ chrome.written .json for Perfetto and vizviewer ─▶ serve.open_trace
    a page or a trace ─▶ save.save   a file
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from parmagic.model.arrows import Arrow
    from parmagic.model.timeline import Calls, Lane, Slice, Timeline


class View(Protocol):
    """What renderers need of a run."""

    notes: list[str]
    timelines: tuple[Timeline, ...]
    error: BaseException | None

    @property
    def summary(self) -> pd.DataFrame:
        """One row per arm, by its label."""
        ...

    @property
    def ideals(self) -> dict[str, float]:
        """The speedup that each arm could have had at most, by its label."""
        ...

    @property
    def workers(self) -> pd.DataFrame:
        """One row per (arm, rank)."""
        ...

    @property
    def items(self) -> pd.DataFrame:
        """One row per (arm, item)."""
        ...

    @property
    def waits(self) -> pd.DataFrame:
        """One row per (arm, rank, kind, object, line, place)."""
        ...

    @property
    def children(self) -> pd.DataFrame:
        """One row per thread that a body started."""
        ...

    @property
    def sync(self) -> pd.DataFrame:
        """One row per (arm, thing): locks, and what is made of them."""
        ...

    @property
    def handoffs(self) -> pd.DataFrame:
        """One row per (arm, thing, waiter, blocker, places): who made whom wait."""
        ...

    @property
    def transfers(self) -> pd.DataFrame:
        """One row per (arm, rank) of processes: what was pickled."""
        ...

    @property
    def verdict(self) -> str:
        """What to do next, in a sentence."""
        ...

    @property
    def tells(self) -> bool:
        """Whether that sentence says something about the models; else only that nothing can be told."""
        ...

    @property
    def rough(self) -> frozenset[str]:
        """The arms, by label, whose speedups are rough."""
        ...

    @property
    def title(self) -> str:
        """The magic line."""
        ...

    @property
    def name(self) -> str:
        """What the notebook has it under; empty where that is not known."""
        ...

    @property
    def saved(self) -> View:
        """What a file may hold of it: all that leaves this process is drawn from that."""
        ...

    def shares(self, timeline: Timeline, lane: Lane, edges: Any) -> dict[str, Any]:
        """Return the seconds of each state in each of the n bins between the n + 1 ``edges``."""
        ...

    def slices(self, lane: Lane) -> list[Slice]:
        """Return what a worker did instead of its work: its waits, and the spans that it recorded."""
        ...

    def arrows(self, timeline: Timeline) -> list[Arrow]:
        """Return the waits of an arm that somebody caused or ended, the longest first."""
        ...

    def functions(self) -> list[tuple[int, list[Calls]]]:
        """Return the recorded function calls of each worker, by the arm's number."""
        ...
