"""The report for a terminal: verdict, arms, lanes, notes."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

from parmagic.model.durations import seconds
from parmagic.render.figures import HEADINGS, LOOKS, ArmRow, Drawn, arm_rows, bins, clean, drawn, legend_words, present

if TYPE_CHECKING:
    from parmagic.model.timeline import Timeline
    from parmagic.render import View

MAX_LANES = 16
"""Lanes that are drawn per arm, of more neighbours share one: a report should leave the cell above it in sight."""

NARROWEST = 40
SPARE = ("baseline", "cores", "efficiency", "gil", "most")
"""Columns that a narrow terminal does without, first one first."""

# what they would be in a plain terminal; the look-alikes are meant
_PLAIN = str.maketrans({"×": "x", "µ": "u", "–": "-", "·": "-", "…": "...", "→": "->", "›": ">", "█": "#"})
_ANSI = re.compile("\x1b\\[[0-9;]*m")
_LIGHT_INK = {25, 89, 240}  # backgrounds that need white letters


def report(view: View, width: int = 80, color: bool = False, unicode: bool = True) -> str:
    """Return the report in lines of at most ``width`` cells (40 at least).

    With ``unicode=False`` it is ASCII; only with ``color`` it has ANSI codes.
    """
    width = max(width, NARROWEST)
    paper = _Paper(width, color, unicode)
    paper.wrap(view.verdict, bold=view.tells)
    if view.timelines:
        _arms(view, paper)
        for timeline in view.timelines:
            _lanes(view, timeline, paper)
        _legend(view, paper)
        paper.wrap(_ways_on(view))
    for note in view.notes:
        paper.wrap(note, first="· ", rest="  ")
    return "\n".join(paper.lines)


def on_screen(view: View, color: bool = False) -> str:
    """Return the report as wide as the terminal (80 cells where there is none), in characters that ``sys.stdout`` can show.

    With ``color``, in colours where it shows them.
    """
    width = shutil.get_terminal_size((80, 24)).columns
    return report(view, width, color=color and wants_color(sys.stdout), unicode=can_unicode(sys.stdout))


def _ways_on(view: View) -> str:
    """Say where there is more to see."""
    show = "timeline.save('timeline.html')"
    return f"More: {view.name}.{show}" if view.name else f"More: run.{show} (a run is _)"


def wants_color(stream: Any) -> bool:
    """Tell whether a stream is a terminal that shows colours (https://no-color.org is heeded)."""
    is_terminal = bool(getattr(stream, "isatty", lambda: False)())
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def can_unicode(stream: Any) -> bool:
    """Tell whether a stream can show block characters."""
    try:
        "█·–×µ…".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class _Paper:
    """Lines that never get wider than the terminal."""

    def __init__(self, width: int, color: bool, unicode: bool) -> None:
        self.width = width
        self.color = color
        self.unicode = unicode
        self.lines: list[str] = []

    def plain(self, text: str) -> str:
        """Return safe text in the characters that this paper knows."""
        shown = clean(text)
        if self.unicode:
            return shown
        return shown.translate(_PLAIN).encode("ascii", "backslashreplace").decode("ascii")

    def wrap(self, text: str, first: str = "", rest: str = "", bold: bool = False) -> None:
        """Add a paragraph."""
        lines = _wrapped(self.plain(text), self.width - cells(rest))
        for number, line in enumerate(lines):
            lead = self.plain(rest if number else first)
            self.lines.append(lead + (f"\x1b[1m{line}\x1b[0m" if bold and self.color else line))

    def paint(self, glyphs: str, code: int) -> str:
        """Return ``glyphs`` on their state's colour."""
        if not self.color or not code:
            return glyphs
        return f"\x1b[{97 if code in _LIGHT_INK else 30};48;5;{code}m{glyphs}\x1b[0m"


def cells(text: str) -> int:
    """Return how many terminal cells a text takes: wide characters take two, combining ones none."""
    return sum(_cells(char) for char in _ANSI.sub("", text))


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _wrapped(text: str, width: int) -> list[str]:
    """Break at spaces; a word that is wider than a line is broken anywhere."""
    lines, line = [], ""
    for word in text.split():
        rest = word
        if cells(line) + (1 if line else 0) + cells(rest) <= width:
            line = f"{line} {rest}" if line else rest
            continue
        if line:
            lines.append(line)
        while cells(rest) > width:
            piece = _fitting(rest, width)
            lines.append(piece)
            rest = rest[len(piece) :]
        line = rest
    return [*lines, line] if line or not lines else lines


def _fitting(word: str, width: int) -> str:
    used = 0
    for place, char in enumerate(word):
        used += _cells(char)
        if used > width:
            return word[: max(place, 1)]
    return word


def _arms(view: View, paper: _Paper) -> None:
    """Add the arms table; what does not fit is dropped, the baseline's kind moves below."""
    rows = arm_rows(view)
    table = {name: [HEADINGS[name], *(str(getattr(row, name)) for row in rows)] for name in HEADINGS}
    table = {name: [paper.plain(cell) for cell in column] for name, column in table.items()}
    dropped = []
    for name in SPARE:
        if _table_width(table) <= paper.width:
            break
        dropped.append(name)
        del table[name]
    paper.lines.append("")
    for line in zip(*(_aligned(name, column) for name, column in table.items()), strict=True):
        joined = "  ".join(line).rstrip()
        paper.lines.append(joined if cells(joined) <= paper.width else _fitting(joined, paper.width))
    if "baseline" in dropped:
        paper.wrap(_baselines(rows))


def _table_width(table: dict[str, list[str]]) -> int:
    return sum(max(map(cells, column)) for column in table.values()) + 2 * (len(table) - 1)


def _aligned(name: str, column: list[str]) -> list[str]:
    wide = max(map(cells, column))
    left = name in {"label", "baseline", "most"}
    gaps = [" " * (wide - cells(cell)) for cell in column]
    return [cell + gap if left else gap + cell for cell, gap in zip(column, gaps, strict=True)]


def _baselines(rows: list[ArmRow]) -> str:
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row.baseline, []).append(row.label)
    if len(kinds) == 1:
        return f"The serial baseline is {next(iter(kinds))}."
    listed = ", ".join(f"{kind} ({', '.join(labels)})" for kind, labels in kinds.items())
    return f"The serial baseline is {listed}."


def _lanes(view: View, timeline: Timeline, paper: _Paper) -> None:
    """Add one line per worker, or few: each cell shows what took most of its time."""
    rows = drawn(timeline, MAX_LANES)
    wall = seconds(timeline.wall_s)
    paper.lines.append("")
    paper.wrap(f"{timeline.arm.label}, from 0 to {wall}")
    names = [_cut(paper.plain(row.name if row.child else row.name.split(" ")[1]), paper.width // 3) for row in rows]
    margin = max(map(cells, names), default=1)
    for name, row in zip(names, rows, strict=True):
        picture = _picture(view, timeline, row, paper.width - margin - 3, paper)
        gap = " " * (margin - cells(name))
        paper.lines.append(f"{name}{gap} |{picture}|" if row.child else f"{gap}{name} |{picture}|")


def _cut(text: str, width: int) -> str:
    return text if cells(text) <= width else f"{_fitting(text, width - 1)}…"


def _picture(view: View, timeline: Timeline, row: Drawn, columns: int, paper: _Paper) -> str:
    shares = bins(view, timeline, row, columns)
    states = [_most_of(shares, place) for place in range(columns)]
    picture, start = "", 0
    for place in range(1, columns + 1):
        if place == columns or states[place] != states[start]:
            picture += _stretch(states[start], place - start, paper)
            start = place
    return picture


def _most_of(shares: dict[str, Any], place: int) -> str:
    """Return the state that took most of a cell; empty where there was none: before a thread's begin, behind its end."""
    state = max(LOOKS, key=lambda name: float(shares[name][place]))
    return state if shares[state][place] > 0 else ""


def _stretch(state: str, count: int, paper: _Paper) -> str:
    if not state:
        return " " * count
    look = LOOKS[state]
    glyph = look.glyph if paper.unicode else look.ascii
    # a block would hide the background that all other states are drawn with
    glyph = " " if paper.color and state == "running" else glyph
    return paper.paint(glyph * count, look.code)


def _legend(view: View, paper: _Paper) -> None:
    """Add what the glyphs mean, for the states that there were."""
    entries = []
    for state in present(view):
        look = LOOKS[state]
        glyph = look.glyph if paper.unicode else look.ascii
        glyph = " " if paper.color and state == "running" else glyph
        entries.append((glyph, look.code, paper.plain(legend_words(view, state))))
    line = ""
    for glyph, code, words in entries:
        entry = f"{paper.paint(glyph, code)} {words}"
        if line and cells(line) + 2 + cells(entry) > paper.width:
            paper.lines.append(line)
            line = ""
        line = f"{line}  {entry}" if line else entry
    if line:
        paper.lines += [line, ""]
