"""Lanes as one inline SVG: in each bin, the states are stacked by their share; below them, the items that are wide enough to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from parmagic.model.durations import seconds
from parmagic.model.kinds import INFERRED
from parmagic.render.arrows import Chosen, words
from parmagic.render.figures import FAILED, LOOKS, Drawn, bins, inferred, seconds_of

if TYPE_CHECKING:
    from parmagic.model.arrows import Arrow
    from parmagic.model.timeline import Timeline
    from parmagic.render import View

ROW = 22
"""Pixels from one lane to the next."""

BAR, ITEMS = 15, 3
"""Pixels of a lane's states, and of its items below them."""

SCALE = 100
"""Steps in a bin's height: a share is drawn to one percent."""

ALL_BINS = 1400
"""Bins of all lanes together: a bin takes up to 90 bytes."""

ALL_ITEMS = 400
"""Items, and runs of short ones, that are drawn in a report: each takes about 130 bytes."""

NARROWEST = 0.004
"""The share of a lane's width from which an item can be seen."""


def bins_for(n_lanes: int) -> int:
    """Return how many bins each of ``n_lanes`` gets."""
    return min(160, max(24, ALL_BINS // max(n_lanes, 1)))


def picture(view: View, timeline: Timeline, rows: Sequence[Drawn], n_bins: int, strips: Sequence[Sequence[Piece]], chosen: Chosen) -> str:
    """Return the lanes with the arrows between them: these lie above a picture that is stretched, and are not."""
    below = lanes(view, timeline, rows, n_bins, strips)
    if not chosen.arrows:
        return below
    height, above = ROW * len(rows), "".join(_arrow(timeline, *each) for each in chosen.arrows)
    style = f"display:block;height:{height}px"
    return f'<svg width="100%" height="{height}" style="{style}">{below}<g stroke="currentColor" fill="currentColor">{above}</g></svg>'


def _arrow(timeline: Timeline, source: int, target: int, arrow: Arrow) -> str:
    """Draw an arrow where a wait ended: from the middle of a lane to the nearer edge of another one."""
    down = 1 if target > source else -1
    begin, end = (ROW * row + 1 + BAR / 2 for row in (source, target))
    end -= down * BAR / 2 - down * 4  # its tip lies within the lane
    at = 100 * (arrow.end - timeline.begin) / timeline.wall_s
    line = f"M0 {begin:g}V{end - 4 * down:g}"
    head = f"M-3 {end - 6 * down:g}H3L0 {end:g}z"
    return f'<svg x="{at:.2f}%" overflow="visible"><title>{escape(words(arrow))}</title><path d="{line}{head}"/></svg>'


def lanes(view: View, timeline: Timeline, rows: Sequence[Drawn], n_bins: int, strips: Sequence[Sequence[Piece]]) -> str:
    """Return the picture of the lanes, and of what lies below each; it is as wide as its place and ``ROW`` pixels high per row.

    Its text is in ``<title>``, which browsers show on hover.
    """
    height = ROW * len(rows)
    each = enumerate(zip(rows, strips, strict=True))
    inside = "".join(_lane(view, timeline, row, place, n_bins, items) for place, (row, items) in each)
    return (
        f'<svg role="img" aria-label="What the workers of {escape(timeline.arm.label)} did" '
        f'width="100%" height="{height}" viewBox="0 0 {n_bins} {height}" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="display:block;height:{height}px">{inside}</svg>'  # notebooks set svg's height to auto
    )


def _lane(view: View, timeline: Timeline, row: Drawn, place: int, n_bins: int, items: Sequence[Piece]) -> str:
    """Draw a lane as painters do: the whole stack first, then what stands lower over it.

    So every state is one path without gaps between bins.
    """
    heights = stack(bins(view, timeline, row, n_bins))
    top = ROW * place + 1
    known = seconds_of(view, timeline, row)
    paths = [
        f'<path fill="{LOOKS[state].color}" d="{outline(heights[state])}"><title>{_title(row, state, *known)}</title></path>'
        for state in reversed(LOOKS)
        if _shows(heights, state)
    ]
    # heights are percent from the lane's floor; the matrix turns them up and down
    flip = f"matrix(1 0 0 {-BAR / SCALE:g} 0 {top + BAR})"
    strip = "".join(_strip(timeline, row, items, top + BAR + 1, n_bins))
    return f'<g transform="{flip}">{"".join(paths)}</g>{strip}'


@dataclass(frozen=True, slots=True)
class Piece:
    """Something below a lane: an item that is wide enough to be seen, or several narrower ones in a row."""

    begin: float
    end: float
    words: str
    color: str


NARROW = "#c9ced6"


def pieces(timeline: Timeline, row: Drawn) -> list[Piece]:
    """Return what lies below a worker's own lane, in order; nothing where no item is wide enough to be seen, or for several workers."""
    if len(row.lanes) > 1:
        return []
    import numpy as np  # noqa: PLC0415  (heavy, and only pictures need it)

    lane = row.lanes[0]
    numbers, begins, ends = map(np.asarray, lane.items())
    failed = lane.errors
    wide = np.flatnonzero(ends - begins >= NARROWEST * timeline.wall_s).tolist()
    found: list[Piece] = []
    for place, after in zip(wide, [-1, *wide], strict=False):
        found += _together(begins, ends, after + 1, place)
        number, begin, end = int(numbers[place]), float(begins[place]), float(ends[place])
        color = FAILED if number in failed else "#8b95a2" if number % 2 else "#b3bbc5"
        found.append(Piece(begin, end, f"item {number}: {seconds(end - begin)}{', failed' if number in failed else ''}", color))
    return found + _together(begins, ends, wide[-1] + 1, len(begins)) if wide else []


def _together(begins: Any, ends: Any, first: int, stop: int) -> list[Piece]:
    """Return the items from one place to another, all of them narrow, as one piece."""
    if first >= stop:
        return []
    words = f"{stop - first} shorter items" if stop - first > 1 else "a shorter item"
    return [Piece(float(begins[first]), float(ends[stop - 1]), words, NARROW)]


def _strip(timeline: Timeline, row: Drawn, items: Sequence[Piece], top: int, n_bins: int) -> Iterator[str]:
    """Draw items side by side in two greys, those that failed in the colour of alarm."""
    scale = n_bins / timeline.wall_s if timeline.wall_s > 0 else 0.0
    for piece in items:
        x, width = (piece.begin - timeline.begin) * scale, (piece.end - piece.begin) * scale
        yield (
            f'<rect x="{x:.2f}" y="{top}" width="{width:.2f}" height="{ITEMS}" fill="{piece.color}">'
            f"<title>{row.name}: {piece.words}</title></rect>"
        )


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


def _title(row: Drawn, state: str, sums: dict[str, float], wall: float, measured: bool) -> str:
    if not wall > 0:
        return f"{escape(row.name)}: {LOOKS[state].words}"
    return f"{escape(row.name)}: {LOOKS[state].words} {inferred(seconds(sums[state]), state in INFERRED and not measured)}"
