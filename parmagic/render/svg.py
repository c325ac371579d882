"""Lanes as one inline SVG: in each bin, the states are stacked by their share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from parmagic.render.figures import INFERRED, LOOKS, bins, inferred, seconds, worker_row

if TYPE_CHECKING:
    from parmagic.model import Lane, Timeline
    from parmagic.render import View

ROW = 20
"""Pixels from one lane to the next."""

BAR = 16
SCALE = 100
"""Steps in a bin's height: a share is drawn to one percent."""

ALL_BINS = 1400
"""Bins of all lanes together: a bin takes up to 90 bytes."""


def bins_for(n_lanes: int) -> int:
    """Return how many bins each of ``n_lanes`` gets."""
    return min(160, max(24, ALL_BINS // max(n_lanes, 1)))


def lanes(view: View, timeline: Timeline, shown: Sequence[Lane], n_bins: int) -> str:
    """Return the picture of the lanes; it is as wide as its place and ``ROW`` pixels high per lane.

    Its text is in ``<title>``, which browsers show on hover.
    """
    height = ROW * len(shown)
    rows = "".join(_lane(view, timeline, lane, place, n_bins) for place, lane in enumerate(shown))
    return (
        f'<svg role="img" aria-label="What the workers of {escape(timeline.arm.label)} did" '
        f'width="100%" height="{height}" viewBox="0 0 {n_bins} {height}" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="display:block;height:{height}px">{rows}</svg>'  # notebooks set svg's height to auto
    )


def _lane(view: View, timeline: Timeline, lane: Lane, place: int, n_bins: int) -> str:
    """Draw a lane as painters do: the whole stack first, then what stands lower over it.

    So every state is one path without gaps between bins.
    """
    heights = stack(bins(view, timeline, lane, n_bins))
    top = ROW * place + (ROW - BAR) // 2
    paths = [
        f'<path fill="{LOOKS[state].color}" d="{outline(heights[state])}"><title>{_title(view, timeline, lane, state)}</title></path>'
        for state in reversed(LOOKS)
        if _shows(heights, state)
    ]
    # heights are percent from the lane's floor; the matrix turns them up and down
    flip = f"matrix(1 0 0 {-BAR / SCALE:g} 0 {top + BAR})"
    return f'<g transform="{flip}">{"".join(paths)}</g>'


def stack(shares: dict[str, Any]) -> dict[str, list[int]]:
    """Return how high the stack is up to and with each state, in each bin, in steps of ``SCALE``."""
    heights: dict[str, list[int]] = {}
    total: Any = 0.0
    for state in LOOKS:
        total = total + shares[state]
        heights[state] = [min(SCALE, round(float(value) * SCALE)) for value in total]
    return heights


def _shows(heights: dict[str, list[int]], state: str) -> bool:
    """Tell whether a state is to be seen at all: higher than what stands below it."""
    order = list(LOOKS)
    place = order.index(state)
    below = heights[order[place - 1]] if place else [0] * len(heights[state])
    return any(mine > under for mine, under in zip(heights[state], below, strict=True))


def outline(heights: Sequence[int]) -> str:
    """Return the path of a stair: ``M0 0V40H3V0z`` is 40 high over the first three bins."""
    path, level = "M0 0", 0
    for place, height in enumerate(heights):
        if height != level:
            path += f"H{place}V{height}" if place else f"V{height}"
            level = height
    return f"{path}H{len(heights)}V0z"


def _title(view: View, timeline: Timeline, lane: Lane, state: str) -> str:
    row = worker_row(view, timeline.arm.label, lane.worker.rank)
    if row is None:
        return f"worker {lane.worker.rank}: {LOOKS[state].words}"
    figure = inferred(seconds(float(row[f"{state}_s"])), state in INFERRED and not bool(row["measured"]))
    return f"worker {lane.worker.rank}: {LOOKS[state].words} {figure}; "
