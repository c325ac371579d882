"""What all renderers share: how figures are written, what states look like, safe text."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parmagic.model.durations import UNKNOWN, seconds
from parmagic.model.kinds import INFERRED, KIND, STATES
from parmagic.model.private import described
from parmagic.model.recording import Child
from parmagic.model.timeline import Lane, Slice, Timeline

if TYPE_CHECKING:
    from parmagic.render import View

LOOKS = {state.name: state for state in sorted(STATES, key=lambda state: state.layer)}
"""How states are shown, in the order of the stack."""

FAILED = "#b0003a"
"""The colour of items that failed: no state's."""

# They would change how the text around them reads, or end a line where none ends.
_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
_BIDI = {"RLE", "LRE", "PDF", "RLO", "LRO", "LRI", "RLI", "FSI", "PDI"}
_MARKS = {"\u200e", "\u200f", "\u061c"}


def clean(text: object, limit: int = 2000) -> str:
    """Return ``text`` on one line with control and direction characters made visible, cut at ``limit``."""
    shown = "".join(_visible(char) for char in " ".join(str(text)[: 2 * limit].split(" ")))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(char: str) -> str:
    if char in "\n\t\r":
        return " "
    if unicodedata.category(char) in _CONTROLS or unicodedata.bidirectional(char) in _BIDI or char in _MARKS:
        return char.encode("unicode_escape").decode("ascii")
    return char


def share(value: float) -> str:
    """Write a share of 1 as ``34 %``."""
    return UNKNOWN if not math.isfinite(value) else f"{value:.0%}".replace("%", " %")


def number(value: float, digits: int = 2) -> str:
    """Write a plain figure with ``digits`` decimals."""
    return UNKNOWN if not math.isfinite(value) else f"{value:,.{digits}f}"


def inferred(text: str, is_inferred: bool) -> str:
    """Put ``~`` before a figure that was not measured; what is not known at all stays a dash."""
    return f"~{text}" if is_inferred and text != UNKNOWN else text


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm as it is shown: texts, and what a bar needs: the share of the ideal, and what that is."""

    label: str
    wall: str
    speedup: str
    baseline: str
    efficiency: str
    cores: str
    gil: str
    most: str
    ratio: float
    ideal: str
    n_workers: int
    cpus: int


HEADINGS = {
    "label": "arm",
    "wall": "wall",
    "speedup": "speedup",
    "most": "most of the time",
    "gil": LOOKS["gil_wait"].words,
    "efficiency": "efficiency",
    "cores": "cores",
    "baseline": "baseline",
}


def arm_rows(view: View) -> list[ArmRow]:
    """Return the rows of the arms table."""
    return [_arm_row(view, timeline) for timeline in view.timelines]


def _arm_row(view: View, timeline: Timeline) -> ArmRow:
    label = timeline.arm.label
    row: Any = view.summary.loc[label]
    rough = label in view.rough
    speedup, ideal = float(row["speedup"]), view.ideals[label]
    return ArmRow(
        label=clean(label),
        wall=seconds(float(row["wall_s"])),
        speedup=inferred(f"{number(speedup)}×" if math.isfinite(speedup) else UNKNOWN, rough),
        baseline=clean(row["baseline"]),
        efficiency=inferred(share(float(row["efficiency"])), rough),
        cores=number(float(row["cores_used"])),
        gil=inferred(share(float(row["gil_wait_share"])), not measured(view, label) and bool(row["gil"])),
        most=_most(view, label),
        ratio=speedup / ideal,
        ideal=f"{number(ideal, 1).removesuffix('.0')}×",
        n_workers=int(row["n_workers"]),
        cpus=timeline.cpus,
    )


def workers_of(view: View, label: str) -> Any:
    """Return an arm's rows of the workers table; empty where no worker reported."""
    workers = view.workers
    return workers[workers.index.get_level_values("arm") == label] if len(workers) else workers


def worker_row(view: View, label: str, rank: int) -> Any:
    """Return a worker's row of the workers table; None where there is none."""
    workers: Any = view.workers
    return workers.loc[(label, rank)] if (label, rank) in workers.index else None


def measured(view: View, label: str) -> bool:
    """Tell whether every worker of an arm had its waits measured."""
    mine = workers_of(view, label)
    return len(mine) > 0 and bool(mine["measured"].all())


def _most(view: View, label: str) -> str:
    mine = workers_of(view, label)
    wall = float(mine["wall_s"].sum()) if len(mine) else 0.0
    if not wall > 0:
        return UNKNOWN
    sums = {state: float(mine[f"{state}_s"].sum()) for state in LOOKS}
    state = max(sums, key=lambda name: sums[name])
    guessed = state in INFERRED and not measured(view, label)
    return f"{LOOKS[state].words} {inferred(share(sums[state] / wall), guessed)}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one drawn row shows: a worker, or the average of several where there are more of them than fit."""

    lanes: tuple[Lane, ...]

    @property
    def child(self) -> Child | None:
        """What its worker's body started that it shows; None of workers."""
        return self.lanes[0].child

    @property
    def name(self) -> str:
        """Name the workers: ``worker 3``, ``workers 4-7`` (with a dash); what a body started by its own name."""
        if self.child:
            return f"› {clean(self.child.name, 80)}"
        first, last = self.lanes[0].worker.rank, self.lanes[-1].worker.rank
        return f"worker {first}" if first == last else f"workers {first}–{last}"


def drawn(timeline: Timeline, most: int) -> list[Drawn]:
    """Return at most ``most`` rows for an arm: neighbours share one where there are more workers.

    Below each worker is what its body started, where there is room for all of that.
    """
    lanes, children = timeline.lanes, timeline.children if len(timeline.lanes) + len(timeline.children) <= most else ()
    together = max(1, math.ceil(len(lanes) / most))
    rows = [Drawn(tuple(lanes[first : first + together])) for first in range(0, len(lanes), together)]
    return sorted((*rows, *(Drawn((lane,)) for lane in children)), key=lambda row: row.lanes[0].worker.rank)  # stable: workers first


def below_each_other(timeline: Timeline, most: int) -> list[Lane]:
    """Return the lanes of an arm: below each worker is what its body started, in all the ``most`` that lived longest."""
    lives = [child.end - child.begin for lane in timeline.children if (child := lane.child)]
    longest = sorted(range(len(lives)), key=lambda place: -lives[place])[:most]
    below = [timeline.children[place] for place in sorted(longest)]
    return sorted((*timeline.lanes, *below), key=lambda lane: lane.worker.rank)


def lane_name(lane: Lane) -> str:
    """Name one lane: ``worker 3``; of what its body started, that as well."""
    worker = f"worker {lane.worker.rank}"
    return worker if lane.child is None else f"{worker} › {clean(lane.child.name, 80)}"


def seconds_of(view: View, timeline: Timeline, row: Drawn) -> tuple[dict[str, float], float, bool]:
    """Return the seconds that a row's workers were in each state (NaN where not known), their wall time, and whether all were measured."""
    if row.child:
        found = view.shares(timeline, row.lanes[0], [row.child.begin, row.child.end])
        return {state: float(found[state][0]) for state in LOOKS}, row.child.end - row.child.begin, row.lanes[0].tally is not None
    mine = [found for lane in row.lanes if (found := worker_row(view, timeline.arm.label, lane.worker.rank)) is not None]
    sums = {state: sum(float(each[f"{state}_s"]) for each in mine) if mine else math.nan for state in LOOKS}
    return sums, sum(float(each["wall_s"]) for each in mine), bool(mine) and all(bool(each["measured"]) for each in mine)


def state_words(view: View, timeline: Timeline, row: Drawn, most: int = 3) -> str:
    """Say what the largest states of a row's workers were: ``running 61 %, ~GIL wait 30 %``."""
    sums, wall, measured_all = seconds_of(view, timeline, row)
    guesses = frozenset() if measured_all else INFERRED
    found = sorted(((value, state) for state, value in sums.items()), reverse=True, key=_known)
    parts = [
        f"{LOOKS[state].words} {inferred(share(value / wall), state in guesses)}"
        for value, state in found[:most]
        if wall > 0 and value / wall >= 0.005  # noqa: PLR2004  (what rounds to 0 % says nothing)
    ]
    return ", ".join(parts) or UNKNOWN


def _known(pair: tuple[float, str]) -> float:
    return pair[0] if math.isfinite(pair[0]) else -1.0


def bins(view: View, timeline: Timeline, row: Drawn, count: int) -> dict[str, Any]:
    """Return each state's share (0 to 1) of each of ``count`` equal bins of the arm's wall time; of several workers, the mean."""
    import numpy as np  # noqa: PLC0415  (heavy, and only pictures need it)

    edges = np.linspace(timeline.begin, timeline.end, count + 1)
    width = timeline.wall_s / count * len(row.lanes)
    sums: dict[str, Any] = dict.fromkeys(LOOKS, np.zeros(count))
    if not width > 0:
        return sums
    for lane in row.lanes:
        found = view.shares(timeline, lane, edges)
        sums = {state: total + np.nan_to_num(found[state]) if state in found else total for state, total in sums.items()}
    return {state: np.clip(total / width, 0.0, 1.0) for state, total in sums.items()}


def present(view: View) -> list[str]:
    """Return the states that any worker, or what one started, was in, in the order of the stack."""
    tables = [view.workers, *([view.children] if any(timeline.children for timeline in view.timelines) else [])]
    return [state for state in LOOKS if any(len(table) and float(table[f"{state}_s"].sum()) > 0 for table in tables)]


def legend_words(view: View, state: str) -> str:
    """Name a state in a legend; where waits are inferred, ``running`` includes native code."""
    if state == "running" and len(view.workers) and not bool(view.workers["measured"].all()):
        return "running (on a core)"
    return LOOKS[state].words


def slice_words(piece: Slice) -> tuple[str, dict[str, Any]]:
    """Name a slice of a worker's time, a wait for the GIL with its holder where that was a worker; return what is known of it as well."""
    look = LOOKS.get(piece.state)
    name = look.words if look else clean(piece.state)
    if piece.samples:
        return name, {"inferred": True, "samples": piece.samples}
    if not piece.kind:
        return name, {}
    known: dict[str, Any] = {"kind": piece.kind}
    if piece.line:
        known["line"] = piece.line
    if piece.object:
        known["object"] = clean(piece.name) or (hex(piece.object) if KIND[piece.kind].object == "address" else piece.object)
    if piece.with_gil:
        known["held the GIL"] = True
    return f"GIL, held by worker {piece.holder}" if piece.kind == "gil" and piece.holder >= 0 else name, known


def error_words(error: BaseException) -> str:
    """Return an error's type and message, cut."""
    return clean(described(error), 80)
