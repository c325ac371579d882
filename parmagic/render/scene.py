"""What the page draws: states, items, waits and calls of every worker, as arrays that a browser reads at once.

Times are whole nanoseconds from the first arm's begin, in doubles; durations and
seconds are floats. An array is a base64 text of its little-endian bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from parmagic.model.kinds import INFERRED
from parmagic.model.timeline import Calls, Lane, Slice, Timeline
from parmagic.render.arrows import causes
from parmagic.render.figures import LOOKS, below_each_other, clean, error_words, lane_name, legend_words, present, slice_words

if TYPE_CHECKING:
    from parmagic.render import View

STEPS = 2000
"""Steps in which a lane's states are told, over the arm's wall time."""

MAX_ITEMS = 50_000
"""Items drawn of one arm; of more, an even choice."""

MAX_WAITS = 200_000
MAX_CALLS = 500_000
"""Waits, and function calls, that are drawn in all; of more, the longest."""

MAX_BELOW = 500
"""Threads and processes of the body's that are drawn of one arm; of more, the longest. Each takes some 20 kB."""

MAX_ARROWS = 5000
"""Waits of an arm that are told with who caused them; of more, the longest."""

MAX_DEPTH = 60
"""Calls within calls that are drawn."""

SIZES = {"states": 18, "items": 14, "waits": 10, "call": 15, "gap": 2}
"""Pixels of a lane's rows, and of the gap below one that is not of calls."""

BELOW = 5
"""Pixels from a lane to the next."""

HEADING = 40
"""Pixels of an arm's heading."""


def scene(run: View) -> tuple[dict[str, Any], list[str]]:
    """Return what the page draws, ready for JSON, and sentences on what is left out."""
    made = _Scene(run)
    arms = [made.arm(number, timeline) for number, timeline in enumerate(run.timelines)]
    states = [[state, legend_words(run, state), LOOKS[state].color, state in INFERRED] for state in present(run)]
    return {"states": states, "arms": arms, "names": list(made.names), "waits": made.kinds, "sizes": SIZES}, made.said


def height(drawn: dict[str, Any]) -> int:
    """Return the pixels that all lanes of a scene take, one below the other."""
    return sum(HEADING + sum(map(_lane_height, arm["lanes"])) for arm in drawn["arms"])


def _lane_height(lane: dict[str, Any]) -> int:
    rows = [SIZES[kind] + SIZES["gap"] for kind in ("items", "waits") if lane[kind]["begin"]]
    return SIZES["states"] + SIZES["gap"] + sum(rows) + SIZES["call"] * max(len(lane["calls"]), bool(lane["gaps"])) + BELOW


class _Scene:
    """What all arms share: the zero of time, the names of functions, the kinds of waits, what was left out."""

    def __init__(self, run: View) -> None:
        self.run = run
        self.zero = run.timelines[0].begin if run.timelines else 0.0
        self.said: list[str] = []
        self.names: dict[str, int] = {}
        self.kinds: list[dict[str, Any]] = []
        self._kinds: dict[str, int] = {}
        self._places: dict[tuple[Any, ...], int] = {}
        self._calls = dict(run.functions())
        self._shortest_call = self._shortest(
            [each.ends - each.begins for calls in self._calls.values() for each in calls], MAX_CALLS, "recorded function calls"
        )
        self._lanes = [below_each_other(timeline, MAX_BELOW) for timeline in run.timelines]
        self._waits = {(n, k): run.slices(lane) for n, lanes in enumerate(self._lanes) for k, lane in enumerate(lanes)}
        self._shortest_wait = self._shortest(
            [np.array([piece.end - piece.begin for piece in pieces]) for pieces in self._waits.values()], MAX_WAITS, "waits"
        )

    def _shortest(self, took: list[Any], most: int, what: str) -> float:
        """Return the duration from which on slices are drawn, and say so where some are not."""
        every = np.concatenate(took) if took else np.empty(0)
        if len(every) <= most:
            return -1.0
        shortest = float(np.partition(every, len(every) - most)[len(every) - most])
        self.said.append(f"The page draws the {(every >= shortest).sum():,} longest of {len(every):,} {what}.")
        return shortest

    def arm(self, number: int, timeline: Timeline) -> dict[str, Any]:
        """Return one arm."""
        n_items = timeline.n_done
        every = max(1, -(-n_items // MAX_ITEMS))
        if every > 1:
            drawn = sum(number % every == 0 for lane in timeline.lanes for number in lane.items()[0])
            self.said.append(f"The page draws {drawn:,} of the {n_items:,} items of {clean(timeline.arm.label)}, evenly chosen.")
        if (n_below := len(timeline.children)) > MAX_BELOW:
            what = f"the {n_below:,} threads and processes that the body of {clean(timeline.arm.label)} started"
            self.said.append(f"The page draws the {MAX_BELOW:,} of {what} which lived longest.")
        lanes = [self._lane(number, place, timeline, lane, every) for place, lane in enumerate(self._lanes[number])]
        deepest = max((len(lane["calls"]) for lane in lanes), default=0)
        if deepest > MAX_DEPTH:
            self.said.append(f"The page draws calls of {clean(timeline.arm.label)} {MAX_DEPTH} deep; they go {deepest} deep.")
        for lane in lanes:
            del lane["calls"][MAX_DEPTH:]
        return {
            "number": number, "label": clean(timeline.arm.label), "begin": self._ns(timeline.begin), "end": self._ns(timeline.end),
            "lanes": lanes, "arrows": self._arrows(number, timeline),
        }  # fmt: skip

    def _arrows(self, number: int, timeline: Timeline) -> list[list[Any]]:
        """Return waits for others, the longest first: the lanes of who waited, had it, and let go (-1: not known), times, and words."""
        places = {id(lane): place for place, lane in enumerate(self._lanes[number])}
        found = [arrow for arrow in self.run.arrows(timeline) if id(arrow.waiter) in places]
        if len(found) > MAX_ARROWS:
            waits = f"waits of {clean(timeline.arm.label)} for others"
            self.said.append(f"The page tells of the {MAX_ARROWS:,} longest of {len(found):,} {waits} who caused them.")
        return [
            [places[id(arrow.waiter)], *(places.get(id(lane), -1) for lane in (arrow.blocker, arrow.waker, arrow.source)),
             *map(self._ns, (arrow.begin, arrow.end, arrow.woken)), clean(arrow.thing, 80), arrow.waited, causes(arrow)]
            for arrow in found[:MAX_ARROWS]
        ]  # fmt: skip

    def _ns(self, at: float) -> int:
        return round((at - self.zero) * 1e9)

    def _lane(self, number: int, place: int, timeline: Timeline, lane: Lane, every: int) -> dict[str, Any]:
        mine = [each for each in self._calls.get(number, []) if each.rank == lane.worker.rank and lane.child is None]
        return {
            "name": lane_name(lane),
            "who": f"process {lane.worker.pid}, thread {lane.worker.tid}",
            "measured": lane.tally is not None,
            "states": self._states(timeline, lane),
            "items": self._items(lane, every),
            "waits": self._pieces(self._waits[number, place], timeline),
            "calls": self._rows(mine),
            "gaps": [] if lane.child else [[self._ns(begin), self._ns(end)] for begin, end in timeline.gaps(lane)],
        }

    def _states(self, timeline: Timeline, lane: Lane) -> dict[str, str]:
        """Return the seconds in each state from the arm's begin to each step; states that never were are left out."""
        edges = np.linspace(timeline.begin, timeline.end, STEPS + 1)
        found = self.run.shares(timeline, lane, edges)
        sums = {state: np.concatenate([[0.0], np.cumsum(np.nan_to_num(found[state]))]) for state in LOOKS if state in found}
        return {state: packed(rising, "<f4") for state, rising in sums.items() if rising[-1] > 0}

    def _items(self, lane: Lane, every: int) -> dict[str, Any]:
        numbers, begins, ends = map(np.asarray, lane.items())
        errors = {item: error_words(error) for item, error in lane.errors.items()}
        kept = numbers % every == 0
        return {**self._slices(begins[kept], ends[kept], numbers[kept]), "errors": errors}

    def _pieces(self, pieces: Sequence[Slice], timeline: Timeline) -> dict[str, str]:
        """Return waits, with the place of what is known of each in ``kinds``."""
        inside = [
            (max(each.begin, timeline.begin), min(each.end, timeline.end), self._kind(each))
            for each in sorted(pieces, key=lambda piece: piece.begin)
            if each.begin <= timeline.end and each.end >= timeline.begin and each.end - each.begin >= self._shortest_wait
        ]
        begins, ends, kinds = zip(*inside, strict=True) if inside else ((), (), ())
        return self._slices(np.array(begins), np.array(ends), np.array(kinds, dtype=int))

    def _kind(self, piece: Slice) -> int:
        """Return the place of a wait's description; there are few of them, and many waits."""
        what = piece[2:]
        place = self._places.get(what)
        if place is None:
            place = self._places[what] = self._described(piece)
        return place

    def _described(self, piece: Slice) -> int:
        name, known = slice_words(piece)
        key = f"{name} {known}"
        place = self._kinds.setdefault(key, len(self.kinds))
        if place == len(self.kinds):
            words = {name: clean(value) for name, value in known.items() if value is not True}
            flags = [name for name, value in known.items() if value is True]
            color = LOOKS.get(piece.state, LOOKS["unknown"]).color
            self.kinds.append({"name": clean(name), "color": color, "known": words, "flags": flags})
        return place

    def _rows(self, calls: Iterable[Calls]) -> list[dict[str, str]]:
        """Return rows of calls by depth."""
        rows: list[tuple[list[int], list[int], list[int]]] = []
        for each in calls:
            kept = each.ends - each.begins >= self._shortest_call
            places = np.zeros(len(each.names) or 1, dtype=np.int64)
            for place in np.unique(each.places[kept]).tolist():
                places[place] = self.names.setdefault(clean(each.names[place], 300), len(self.names))
            begins, ends = np.rint((np.stack([each.begins, each.ends])[:, kept] - self.zero) * 1e9).astype(np.int64)
            nest(begins.tolist(), ends.tolist(), places[each.places[kept]].tolist(), rows)
        return [
            {"begin": packed(begin, "<f8"), "took": packed(took, "<f4"), "name": packed(name, "<u4")} for begin, took, name in rows
        ]

    def _slices(self, begins: Any, ends: Any, keys: Any) -> dict[str, str]:
        at = np.rint((begins - self.zero) * 1e9) if len(begins) else np.empty(0)
        took = np.maximum(np.rint((ends - self.zero) * 1e9) - at, 0) if len(begins) else np.empty(0)
        return {"begin": packed(at, "<f8"), "took": packed(took, "<f4"), "key": packed(keys, "<u4")}


def packed(values: Any, kind: str) -> str:
    """Return numbers as the base64 text of their bytes."""
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode("ascii")


def nest(begins: list[int], ends: list[int], names: list[int], rows: list[tuple[list[int], list[int], list[int]]]) -> None:
    """Put calls into rows by depth, each (begins, durations, names); they come in the order of their begins, the longest first.

    A call is as deep as the calls that were open when it began; its end is cut to theirs.
    """
    open_ends: list[int] = []
    for begin, end, name in zip(begins, ends, names, strict=True):
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        depth = len(open_ends)
        cut = min(end, open_ends[-1]) if depth else end
        open_ends.append(cut)
        if depth == len(rows):
            rows.append(([], [], []))
        row = rows[depth]
        row[0].append(begin)
        row[1].append(max(0, cut - begin))
        row[2].append(name)
