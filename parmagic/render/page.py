"""The run as one .html file: tables for reading, a timeline for zooming, nothing from the network.

::

    page.html   the frame and its styles ┐
    page.js     draws the lanes          ├─▶ one file
    scene.py    states, items, calls     ┘

Whatever came from outside is either escaped text or JSON in which no character
can end the script element; the page's own policy lets only its own script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from parmagic.model.durations import UNKNOWN
from parmagic.model.kinds import INFERRED, WORKER_STATES
from parmagic.render import html
from parmagic.render.figures import HEADINGS, LOOKS, arm_rows, clean, inferred, number
from parmagic.render.scene import height, scene

if TYPE_CHECKING:
    from parmagic.render import View

_WORDS = {"label", "baseline", "most"}
_PER_LINE = 60
"""Characters of the title, or of the verdict, that stand on a line of a page that is half as wide as a screen."""
_AROUND = 340
"""Pixels of such a page that are there whatever the run was: margins, headings, the bar above the lanes."""
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(run: View, tables: bool = False) -> str:
    """Return the run as a whole HTML page that needs nothing else; with ``tables``, all of its tables are in it."""
    return _written(run.saved, tables)[0]


def page_and_height(run: View) -> tuple[str, int]:
    """Return the page, and the pixels from its top to the end of its last lane, where it is half as wide as a screen."""
    run = run.saved
    text, lanes = _written(run, False)
    said = 24 * (1 + len(run.verdict) // _PER_LINE) + 24 * (1 + len(run.title) // _PER_LINE)
    return text, _AROUND + said + 29 * len(run.timelines) + lanes


def _written(run: View, tables: bool) -> tuple[str, int]:
    """Return a page, and the pixels that its lanes take."""
    frame, script = _read("page.html"), _read("page.js")
    style = re.search(r"<style>(.*?)</style>", frame, re.DOTALL)
    assert style is not None
    data, said = scene(run)
    text = Template(frame).substitute(
        policy=(
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style[1])}; "
            "base-uri 'none'; form-action 'none'"
        ),
        title=escape(clean(run.title or "parmagic")),
        verdict=escape(clean(run.verdict)),
        arms=_arms(run),
        workers=_workers(run),
        still="".join(html.pictures(run)),
        tables=_tables(run) if tables else "",
        notes="".join(f"<li><bdi>{escape(clean(note))}</bdi></li>" for note in [*run.notes, *said]),
        script=script,
        data=embed(data),
    )
    return text, height(data)


def embed(data: Any) -> str:
    """Return JSON that is safe inside of a script element, whatever its strings hold."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def _read(name: str) -> str:
    return (files("parmagic.render") / name).read_text("utf-8")


MAX_ROWS = 5000
"""Rows of a table in a page."""

_TABLES = ("summary", "workers", "items", "waits", "sync", "handoffs", "children", "transfers")


def _tables(run: View) -> str:
    """Return the run's tables as they are, each folded."""
    return "".join(
        f"<details><summary>run.{name}, {len(table):,} row{'s' * (len(table) > 1)}</summary><div class=wide>{_table(table)}</div></details>"
        for name in _TABLES
        if len(table := getattr(run, name))
    )


def _table(table: Any) -> str:
    shown = table.head(MAX_ROWS).reset_index()
    head = "".join(f"<th>{escape(clean(column))}</th>" for column in shown.columns)
    rows = "".join(f"<tr>{''.join(_cell(_figure(value), False) for value in row)}</tr>" for row in shown.itertuples(index=False))
    more = f"<p>… and {len(table) - MAX_ROWS:,} more</p>" if len(table) > MAX_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


def _figure(value: Any) -> str:
    """Write a table's value: floats to the microsecond, what is not known as a dash."""
    if isinstance(value, float):
        return UNKNOWN if math.isnan(value) else f"{value:.6f}".rstrip("0").rstrip(".")
    return UNKNOWN if value is None else clean(value, 200)


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
