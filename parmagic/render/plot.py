"""The run as a figure for papers and slides: lanes, speedups against the ideal, states."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from parmagic.model.durations import seconds
from parmagic.render.figures import LOOKS, arm_rows, bins, clean, drawn, legend_words, present, seconds_of

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
except ImportError:
    raise ImportError("run.plot() needs matplotlib: pip install 'parmagic[plot]'") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from parmagic.model.timeline import Timeline
    from parmagic.render import View

MAX_LANES = 64
BINS = 400
LANE, ROW = 0.28, 0.34
"""Inches from one lane, and from one arm, to the next."""


class RunFigure(Figure):
    """A figure that a notebook shows as it is, whichever backend is set."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=self.dpi, bbox_inches="tight")
        return data.getvalue()


def figure(view: View) -> RunFigure:
    """Return the figure: above, every arm's lanes over time; below, its speedup beside the ideal, and its states' shares.

    Figures are those of the tables. Save it with ``savefig``.
    """
    view = view.saved
    rows = [drawn(timeline, max(1, MAX_LANES // max(1, len(view.timelines)))) for timeline in view.timelines]
    heights = [max(LANE * 2, LANE * len(mine)) for mine in rows]
    below = max(1.0, ROW * len(rows))
    made = RunFigure(figsize=(9, sum(heights) + below + 0.75 * len(rows) + 1.2), dpi=120, layout="constrained")
    made.suptitle(clean(view.verdict, 160), fontsize=10, wrap=True, parse_math=False)  # a name may have dollars
    if not rows:
        return made
    grid = made.add_gridspec(len(rows) + 1, 2, height_ratios=[*heights, below])
    for place, (timeline, mine) in enumerate(zip(view.timelines, rows, strict=True)):
        _lanes(made.add_subplot(grid[place, :]), view, timeline, mine)
    _speedups(made.add_subplot(grid[-1, 0]), view)
    _states(made.add_subplot(grid[-1, 1]), view)
    states = present(view)
    words = [legend_words(view, state) for state in states]
    made.legend([_patch(state) for state in states], words, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return made


def _patch(state: str) -> Any:
    return Patch(facecolor=LOOKS[state].color)


def _lanes(axes: Axes, view: View, timeline: Timeline, rows: list[Any]) -> None:
    """Stack each lane's states in every bin, from the bottom of its row up."""
    wall = timeline.wall_s
    edges = np.linspace(0.0, wall, BINS + 1)
    for place, row in enumerate(rows):
        shares, floor = bins(view, timeline, row, BINS), np.full(BINS, place + 0.4)
        for state, look in LOOKS.items():
            top = floor - 0.8 * shares[state]
            if shares[state].any():
                axes.stairs(top, edges, baseline=floor, fill=True, color=look.color, linewidth=0)
            floor = top
    axes.set(xlim=(0, wall or 1), ylim=(-0.5, len(rows) - 0.5), xlabel="seconds")
    axes.invert_yaxis()  # worker 0 is on top; a lane still grows up from its floor
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_title(f"{clean(timeline.arm.label)}, {seconds(wall)}", loc="left", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _speedups(axes: Axes, view: View) -> None:
    """Draw each arm's speedup as a bar in the frame of its ideal."""
    table = view.summary
    places, labels = range(len(table)), [clean(label) for label in table.index]
    axes.barh(places, [view.ideals[label] for label in table.index], color="none", edgecolor="#888888", linewidth=0.8, height=0.6)
    axes.barh(places, np.nan_to_num(table["speedup"]), color=LOOKS["running"].color, height=0.6)
    for place, (row, value) in enumerate(zip(arm_rows(view), table["speedup"], strict=True)):
        axes.annotate(f" {row.speedup}", (np.nan_to_num(value), place), va="center", fontsize=8)
    axes.axvline(1.0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_title("speedup, and the ideal", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _states(axes: Axes, view: View) -> None:
    """Draw the states' shares of each arm's workers' time."""
    labels = []
    for place, timeline in enumerate(view.timelines):
        labels.append(clean(timeline.arm.label))
        left = 0.0
        for row in drawn(timeline, 1):
            sums, wall, _ = seconds_of(view, timeline, row)
            for state, look in LOOKS.items():
                width = float(np.nan_to_num(sums[state])) / wall if wall > 0 else 0.0
                axes.barh(place, width, left=left, color=look.color, height=0.6)
                left += width
    axes.set(xlim=(0, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_title("where the workers' time went", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
