"""The run as one .html file: tables for reading, a timeline for zooming, nothing from the network.

::

    page.html   the frame and its styles ┐
    page.js     draws the lanes          ├─▶ one file
    _data       bins, items, calls       ┘

Whatever came from outside is either escaped text or JSON in which no character
can end the script element; the page's own policy lets only its own script run.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from parmagic.model import WORKER_STATES, Lane, Slice, Timeline
from parmagic.render.figures import (
    HEADINGS,
    INFERRED,
    LOOKS,
    arm_rows,
    bins,
    clean,
    inferred,
    legend_words,
    number,
    present,
    saved_verdict,
)

if TYPE_CHECKING:
    from parmagic.render import View

BINS = 400
"""Bins of a lane's states, over the arm's wall time."""

MAX_ITEMS = 20_000
"""Items drawn of one arm; of more, an even choice."""

MAX_CALLS = 200_000
"""Function calls drawn in all; of more, the longest."""

MAX_DEPTH = 60
"""Calls within calls that are drawn."""

_WORDS = {"label", "baseline", "most"}
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(run: View) -> str:
    """Return the run as a whole HTML page that needs nothing else."""
    frame, script = _read("page.html"), _read("page.js")
    style = re.search(r"<style>(.*?)</style>", frame, re.DOTALL)
    assert style is not None
    data, said = _data(run)
    return Template(frame).substitute(
        policy=(
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style[1])}; "
            "base-uri 'none'; form-action 'none'"
        ),
        title=escape(clean(run.title or "parmagic")),
        verdict=escape(clean(saved_verdict(run))),
        arms=_arms(run),
        workers=_workers(run),
        notes="".join(f"<li><bdi>{escape(clean(note))}</bdi></li>" for note in [*run.notes, *said]),
        script=script,
        data=embed(data),
    )


def embed(data: Any) -> str:
    """Return JSON that is safe inside of a script element, whatever its strings hold."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def _read(name: str) -> str:
    return (files("parmagic.render") / name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _cell(text: str, words: bool) -> str:
    return f"<td{' class=words' if words else ''}><bdi>{escape(text)}</bdi></td>"


def _arms(run: View) -> str:
    head = "".join(f"<th{' class=words' if name in _WORDS else ''}>{words}</th>" for name, words in HEADINGS.items())
    rows = "".join(
        f"<tr>{''.join(_cell(str(getattr(row, name)), name in _WORDS) for name in HEADINGS)}</tr>" for row in arm_rows(run)
    )
    return f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


def _workers(run: View) -> str:
    """Return the rows of the workers table: what the lanes show, in figures."""
    if not len(run.workers):
        return ""
    columns = ["n_items", "wall_s", *(f"{state}_s" for state in WORKER_STATES)]
    names = ["arm", "worker", "items", "wall", *(LOOKS[state].words for state in WORKER_STATES)]
    head = "".join(f"<th{' class=words' if name == 'arm' else ''}>{name}</th>" for name in names)
    rows = []
    for (label, rank), row in zip(run.workers.index, run.workers.to_dict("records"), strict=True):
        cells = [_cell(clean(label), True), _cell(str(rank), False)]
        for name in columns:
            guessed = not bool(row["measured"]) and name.removesuffix("_s") in INFERRED
            cells.append(_cell(inferred(number(float(row[name]), 4 if name.endswith("_s") else 0), guessed), False))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _data(run: View) -> tuple[dict[str, Any], list[str]]:
    """Return what the lanes draw, in whole nanoseconds from the first arm's begin, and what is left out."""
    zero = run.timelines[0].begin if run.timelines else 0.0
    said: list[str] = []
    calls = _longest(run, said)
    names: dict[str, int] = {}
    arms = [_arm(run, number, timeline, calls.get(number, []), names, zero, said) for number, timeline in enumerate(run.timelines)]
    data = {
        "states": [[state, legend_words(run, state), LOOKS[state].color, state in INFERRED] for state in present(run)],
        "arms": arms,
        "names": list(names),
    }
    return data, said


def _longest(run: View, said: list[str]) -> dict[int, list[Slice]]:
    """Return the calls that are drawn by the arm's number; with a call, all that it is within is drawn too."""
    found = [(place, call) for place, calls in run.functions() for call in calls]
    if len(found) > MAX_CALLS:
        said.append(f"The page draws the {MAX_CALLS:,} longest of {len(found):,} recorded function calls.")
        found = heapq.nlargest(MAX_CALLS, found, key=lambda pair: pair[1].end - pair[1].begin)
    by_arm: dict[int, list[Slice]] = {}
    for place, call in found:
        by_arm.setdefault(place, []).append(call)
    return by_arm


def _arm(
    run: View, number: int, timeline: Timeline, calls: Sequence[Slice], names: dict[str, int], zero: float, said: list[str]
) -> dict[str, Any]:
    label = clean(timeline.arm.label)
    by_rank: dict[int, list[Slice]] = {}
    for call in calls:
        by_rank.setdefault(call.rank, []).append(call)
    n_items = sum(len(batch.begins) for lane in timeline.lanes for batch in lane.batches)
    if n_items > MAX_ITEMS:
        said.append(f"The page draws {MAX_ITEMS:,} of the {n_items:,} items of {label}, evenly chosen.")
    lanes = []
    before = deepest = 0
    for lane in timeline.lanes:
        drawn, before = _items(lane, n_items, before, zero)
        rows = nest(by_rank.get(lane.worker.rank, []), names, zero)
        deepest = max(deepest, len(rows))
        lanes.append({
            "rank": lane.worker.rank,
            "measured": _measured(run, timeline, lane),
            "bins": _bins(run, timeline, lane),
            "items": drawn,
            "calls": rows[:MAX_DEPTH],
        })  # fmt: skip
    if deepest > MAX_DEPTH:
        said.append(f"The page draws calls of {label} {MAX_DEPTH} deep; they go {deepest} deep.")
    return {"number": number, "label": label, "begin": _ns(timeline.begin, zero), "end": _ns(timeline.end, zero), "lanes": lanes}


def _ns(at: float, zero: float) -> int:
    return round((at - zero) * 1e9)


def _measured(run: View, timeline: Timeline, lane: Lane) -> bool:
    key = (timeline.arm.label, lane.worker.rank)
    return key in run.workers.index and bool(run.workers.loc[key, "measured"])


def _bins(run: View, timeline: Timeline, lane: Lane) -> dict[str, list[int]]:
    """Return each state's share of each bin, in thousandths; states that never were are left out."""
    found = bins(run, timeline, lane, BINS)
    return {state: [round(float(share) * 1000) for share in shares] for state, shares in found.items() if shares.any()}


def _items(lane: Lane, n_items: int, before: int, zero: float) -> tuple[dict[str, list[int]], int]:
    """Return a lane's items (begin, duration, number; and the failed ones), and how many items came before the next lane's.

    Of ``n_items`` in the arm, every one is drawn whose place in the even choice is its own.
    """
    drawn: dict[str, list[int]] = {"begin": [], "took": [], "item": [], "failed": []}
    for batch in lane.batches:
        for place, (begin, end) in enumerate(zip(batch.begins, batch.ends, strict=True)):
            before += 1
            if n_items > MAX_ITEMS and before * MAX_ITEMS // n_items == (before - 1) * MAX_ITEMS // n_items:
                continue
            item, at = batch.first + place, _ns(begin, zero)
            drawn["begin"].append(at)
            drawn["took"].append(max(0, _ns(end, zero) - at))
            drawn["item"].append(item)
            if item in batch.errors:
                drawn["failed"].append(item)
    return drawn, before


def nest(calls: Sequence[Slice], names: dict[str, int], zero: float) -> list[list[list[int]]]:
    """Return rows of calls by depth, each [begins, durations, names]; ``names`` gives each name its number.

    A call is as deep as the calls that were open when it began; its end is cut to theirs.
    """
    rows: list[list[list[int]]] = []
    open_ends: list[int] = []
    spans = sorted(((_ns(c.begin, zero), _ns(c.end, zero), c.name) for c in calls), key=lambda span: (span[0], -span[1]))
    for begin, end, name in spans:
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        cut = max(begin, min(end, open_ends[-1]) if open_ends else end)
        depth = len(open_ends)
        open_ends.append(cut)
        if depth == len(rows):
            rows.append([[], [], []])
        row = rows[depth]
        row[0].append(begin)
        row[1].append(cut - begin)
        row[2].append(names.setdefault(clean(name, 300), len(names)))
    return rows
