"""The report for a notebook: HTML without JavaScript, network or style sheets.

Styles are inline, so nothing leaks into the notebook; colours are inherited,
so it reads in dark and light themes. All that a sanitizer may strip (styles,
the pictures) only repeats what the text says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from parmagic.model.durations import UNKNOWN, seconds
from parmagic.model.kinds import INFERRED, WORKER_STATES
from parmagic.render import arrows, svg
from parmagic.render.figures import (
    FAILED,
    HEADINGS,
    LOOKS,
    ArmRow,
    Drawn,
    arm_rows,
    clean,
    drawn,
    inferred,
    legend_words,
    number,
    present,
    state_words,
)

if TYPE_CHECKING:
    import pandas as pd

    from parmagic.model.timeline import Timeline
    from parmagic.render import View

MAX_LANES = 64
"""Lanes in all, more share one: with what a bin of a picture takes, this keeps a report below 200 KB."""

MAX_ROWS = 64
MAX_WAITS = 15
MAX_NOTES = 20
MAX_ARMS = 64
_ONE_LINE = "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
_WORDS = "padding:0 8px 0 0;border:0;width:25em;text-align:left;vertical-align:top;font-size:90%"
_PATCH = "display:inline-block;width:10px;height:10px;border:1px solid #80808080;background:"
_BAR = 8
"""Em that a bar takes."""
_FRAME = "display:inline-block;width:7.6em;height:10px;border:1px solid currentColor;opacity:.8"
_TABLE = "border-collapse:collapse;border:0"
_IDEAL = "ideal"
_ARM_CELLS = ("label", "wall", "speedup", _IDEAL, "most", "gil", "efficiency", "cores", "baseline")
"""What a row of the arms has, what matters most first: a narrow place has the last ones on a second line."""
_ARM_ROW = "display:flex;flex-wrap:wrap;align-items:baseline;padding:3px 0"
_RIGHT = "padding:1px 10px 1px 0;border:0;text-align:right;white-space:nowrap;background:none;color:inherit"


def report(view: View, link: str = "") -> str:
    """Return the report as an HTML fragment of less than 200 KB; ``link`` is the address of the run's page."""
    parts = [
        '<div style="color:inherit;line-height:1.4;max-width:64em">',
        f'<p style="margin:4px 0 8px">{_told(view)}</p>',
    ]
    if view.timelines:
        parts += [arms_table(view), *pictures(view), legend(view)]
        parts.append(_ways_on(view, link))
    parts += [notes(view), *((workers_table(view), waits_table(view)) if view.timelines else ()), "</div>"]
    return "\n".join(part for part in parts if part)


def _told(view: View) -> str:
    """Return the verdict; in bold, where it is one."""
    return f"<strong>{safe(view.verdict)}</strong>" if view.tells else safe(view.verdict)


def _ways_on(view: View, link: str) -> str:
    """Say where there is more to see."""
    page = f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">the timeline, to zoom into</a> (while this kernel runs)'
    show = f"<code>{safe(view.name)}.timeline.show()</code>" if view.name else "<code>run.timeline.show()</code> (a run is <code>_</code>)"
    return f'<div style="margin:4px 0;font-size:90%">More: {page if link else show}</div>'


def timeline(view: View) -> str:
    """Return the lanes alone as an HTML fragment, with what their colours mean."""
    parts = ['<div style="color:inherit;line-height:1.4;max-width:64em">', *pictures(view), legend(view), "</div>"]
    return "\n".join(part for part in parts if part)


def safe(text: object, limit: int = 500) -> str:
    """Return text that can't be markup, nor change the direction of what stands beside it."""
    return f"<bdi>{escape(clean(text, limit))}</bdi>"


def arms_table(view: View) -> str:
    """Return the table of the arms, each with a bar of its speedup against the ideal.

    Where there is no room for a whole row, its last cells stand on a second line, in every row the same ones: no cell is cut.
    """
    rows = arm_rows(view)[:MAX_ARMS]
    words = {**HEADINGS, _IDEAL: "of the ideal"}
    texts = {name: [words[name], *(getattr(row, name) for row in rows)] for name in _ARM_CELLS}
    widths = {name: max(map(_width, column)) for name, column in texts.items()}
    widths[_IDEAL] = _BAR + max(_width(f" of {row.ideal}") for row in rows)
    styles = {name: _arm_style(name, width) for name, width in widths.items()}
    head = "".join(f'<th style="{styles[name]};opacity:.7;font-weight:normal">{words[name]}</th>' for name in _ARM_CELLS)
    body = "".join(_arm(row, styles) for row in rows)
    rows_of_it = f'<thead><tr style="{_ARM_ROW}">{head}</tr></thead><tbody>{body}</tbody>'
    return f'<table style="{_TABLE};margin:0 0 8px">{rows_of_it}</table>'


def _arm_style(name: str, width: float) -> str:
    """Return the style of a column that is ``width`` em wide: each row is laid out by itself, and they break at the same place only so."""
    align = "left" if name in {"label", "baseline", "most", _IDEAL} else "right"
    return f"flex:0 0 {math.ceil(10 * width) / 10:g}em;padding:1px 10px 1px 0;border:0;white-space:nowrap;text-align:{align}"


def _width(text: str) -> float:
    """Return about how many em a text is wide, in a font that is wide."""
    return sum(0.35 if char in " .,:;'|!ijlft" else 0.95 if char in "mwMW@%…" or not char.isascii() else 0.63 for char in text)


def _arm(row: ArmRow, styles: Mapping[str, str]) -> str:
    cells = {name: _bar(row) if name == _IDEAL else escape(getattr(row, name)) for name in _ARM_CELLS}
    inner = "".join(f'<td style="{styles[name]}">{cell}</td>' for name, cell in cells.items())
    return f'<tr style="{_ARM_ROW}">{inner}</tr>'


def _bar(row: ArmRow) -> str:
    """Draw the speedup in a frame whose whole width is the ideal, and say what that is."""
    if not math.isfinite(row.ratio):
        return UNKNOWN
    width = round(100 * min(max(row.ratio, 0.0), 1.0))
    cpus = f" on {row.cpus} CPU{'s' if row.cpus > 1 else ''}" if row.cpus else ""
    at_most = f"{row.speedup}, where {row.n_workers} worker{'s' if row.n_workers > 1 else ''}{cpus} could reach {row.ideal} at most"
    return (
        f'<div title="{escape(at_most)}" style="{_FRAME}">'
        f'<div style="width:{width}%;height:10px;background:{LOOKS["running"].color}"></div></div> of {row.ideal}'
    )


def pictures(view: View) -> list[str]:
    """Return every arm's lanes, with words beside them, and what the arrows are where there are some."""
    timelines = view.timelines[:MAX_ARMS]
    count = sum(len(timeline.lanes) + len(timeline.children) for timeline in timelines)
    per_arm = max(1, MAX_LANES // max(len(timelines), 1)) if count > MAX_LANES else MAX_LANES
    rows = [drawn(timeline, per_arm) for timeline in timelines]
    n_bins = svg.bins_for(sum(map(len, rows)))
    strips = [[svg.pieces(t, row) for row in mine] for t, mine in zip(timelines, rows, strict=True)]
    if sum(len(items) for mine in strips for items in mine) > svg.ALL_ITEMS:
        strips = [[[] for _ in mine] for mine in strips]
    most = min(arrows.MOST, arrows.ALL_ARROWS // max(len(timelines), 1))
    chosen = [arrows.chosen(view, timeline, mine, most) for timeline, mine in zip(timelines, rows, strict=True)]
    parts = [_arm_picture(view, *each, n_bins) for each in zip(timelines, rows, strips, chosen, strict=True)]
    said = arrows.legend(chosen)
    return parts + ([f'<div style="margin:4px 0;font-size:90%">↕ {said}</div>'] if said else [])


def _arm_picture(
    view: View, timeline: Timeline, rows: Sequence[Drawn], strips: Sequence[Sequence[svg.Piece]], chosen: arrows.Chosen, n_bins: int
) -> str:
    """Draw an arm: words on the left, which stay when a sanitizer takes the picture away."""
    label = timeline.arm.label
    style = f"height:{svg.ROW}px;line-height:{svg.ROW - 4}px;{_ONE_LINE}"
    words = "".join(f'<div style="{style}">{escape(row.name)}: {escape(state_words(view, timeline, row, 2))}</div>' for row in rows)
    picture = svg.picture(view, timeline, rows, n_bins, strips, chosen)
    wall = seconds(timeline.wall_s)
    return (
        f'<div style="margin:4px 0"><div>{safe(label)}, from 0 to {wall}</div>'
        f'<table style="{_TABLE};width:100%;table-layout:fixed"><tbody><tr style="background:none">'
        f'<td style="{_WORDS}">{words}</td>'
        f'<td style="padding:0;border:0;vertical-align:top">{picture}</td></tr></tbody></table></div>'
    )


def legend(view: View) -> str:
    """Return what the colours mean, for the states that there were."""
    entries = [
        f'<span style="white-space:nowrap;margin-right:12px"><span style="{_PATCH}{LOOKS[state].color}"></span>'
        f" {legend_words(view, state)}</span> "
        for state in present(view)
    ]
    if any(timeline.errors for timeline in view.timelines):
        entries.append(f'<span style="white-space:nowrap"><span style="{_PATCH}{FAILED}"></span> failed items, below their lanes</span>')
    return f'<div style="margin:4px 0 8px;font-size:90%">{"".join(entries)}</div>' if entries else ""


def notes(view: View) -> str:
    """Return the notes as a list; there is none when there is nothing to note."""
    if not view.notes:
        return ""
    shown = "".join(f"<li>{safe(note)}</li>" for note in view.notes[:MAX_NOTES])
    left = len(view.notes) - MAX_NOTES
    more = f"<li>… and {left} more in run.notes</li>" if left > 0 else ""
    return f'<ul style="margin:4px 0;padding-left:1.4em">{shown}{more}</ul>'


def workers_table(view: View) -> str:
    """Return the workers table, folded."""
    table = view.workers
    states = [f"{state}_s" for state in WORKER_STATES]
    columns = [
        "pid",
        "tid",
        "n_items",
        "wall_s",
        *states,
        "cpu_s",
        "ctx_voluntary",
        "ctx_involuntary",
        "rss_mb",
    ]
    head = "".join(f'<th style="{_RIGHT}">{name.replace("_", " ")}</th>' for name in ["arm", "rank", *columns])
    rows = "".join(_worker(index, table.iloc[place], columns) for place, index in enumerate(table.index[:MAX_ROWS]))
    left = len(table) - MAX_ROWS
    more = f"<div>… and {left} more in run.workers</div>" if left > 0 else ""
    return (
        '<details style="margin:4px 0"><summary style="cursor:pointer">All workers, in seconds</summary>'
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;border:0;font-size:85%">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
    )


def waits_table(view: View) -> str:
    """Return what the workers waited for longest, folded; nothing where they did not wait."""
    table = view.waits
    if not len(table):
        return ""
    longest = table.sort_values("total_s", ascending=False, kind="stable").head(MAX_WAITS)
    words = ["arm", "worker", "waits for", "line", "place", "times", "seconds", "longest"]
    head = "".join(f'<th style="{_RIGHT}">{name}</th>' for name in words)
    rows = "".join(_wait(index, row) for index, row in zip(longest.index, longest.to_dict("records"), strict=True))
    left = len(table) - len(longest)
    more = f"<div>… and {left} more in run.waits</div>" if left > 0 else ""
    return (
        '<details style="margin:4px 0"><summary style="cursor:pointer">What they waited for longest</summary>'
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;border:0;font-size:85%">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
    )


def _wait(index: tuple[str, int], row: Mapping[Any, Any]) -> str:
    kind, thing = row["kind"], row["object"]
    what = kind if not isinstance(thing, str) else thing if thing.startswith(("a ", "an ")) else f"{kind} {thing}"
    place = clean(row["place"], 60) if isinstance(row["place"], str) else UNKNOWN
    figures = [number(float(row["n"]), 0), number(float(row["total_s"]), 4), number(float(row["max_s"]), 4)]
    figures[1] = inferred(figures[1], math.isnan(float(row["n"])))
    words = [f"<bdi>{escape(clean(what, 60))}</bdi>", number(float(row["line"]), 0), f"<bdi>{escape(place)}</bdi>"]
    cells = [escape(clean(index[0])), str(index[1]), *words, *figures]
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr style="text-align:right;white-space:nowrap;background:none">{inner}</tr>'


def _worker(index: tuple[str, int], row: pd.Series[float], columns: list[str]) -> str:
    cells = [escape(clean(index[0])), str(index[1])]
    guessed = not bool(row["measured"])
    for name in columns:
        digits = 3 if name.endswith("_s") else 0
        figure = number(float(row[name]), digits)
        figure = figure.replace(",", "") if name in {"pid", "tid"} else figure
        cells.append(inferred(figure, guessed and name.removesuffix("_s") in INFERRED))
    # the style stands on the row: repeated in each cell it would be most of the report
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr style="text-align:right;white-space:nowrap;background:none">{inner}</tr>'
