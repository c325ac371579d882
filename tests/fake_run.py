"""A run with hand-written numbers: what renderers are tested with, without threads or clocks.

A lane is a list of (state, seconds); tables, samples and shares all follow from
it, so that a picture which differs from a table is the renderer's mistake.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from parmagic.analyze import waits
from parmagic.model.kinds import SAMPLED, SEEN, WORKER_STATES
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, Span, Usage, WorkerId
from parmagic.model.timeline import Calls, Lane, Slice, Timeline

NAN = float("nan")
Story = Sequence[tuple[str, float]]
KIND_OF = {"running": "running", **{state: kind for kind, state in SAMPLED.items()}}


def calls_of(rank: int, *calls: tuple[str, float, float]) -> Calls:
    """Return a worker's calls of (name, begin, end)."""
    table = sorted(((begin, end, name) for name, begin, end in calls), key=lambda call: (call[0], -call[1]))
    names = tuple(dict.fromkeys(name for _, _, name in table))
    begins, ends = np.array([b for b, _, _ in table]), np.array([e for _, e, _ in table])
    return Calls(rank, begins, ends, np.array([names.index(n) for _, _, n in table], dtype=np.int32), names)


@dataclass
class FakeRun:
    """A ``View`` that is made of stories, one list of lanes per arm."""

    stories: dict[Arm, list[Story]]
    verdict: str = "Use procs=2: 1.60 times the serial speed."
    notes: list[str] = field(default_factory=lambda: ["The body ran 4 + 4 times."])
    title: str = "%%parallel threads=2 procs=2 for n in range(4)"
    error: BaseException | None = None
    serial_s: float = 1.6
    baseline: str = "measured"
    measured: bool = False
    calls: list[tuple[int, list[Calls]]] = field(default_factory=list)
    item_errors: dict[int, BaseException] = field(default_factory=dict)
    start: float = 1000.0
    waits: pd.DataFrame = field(default_factory=pd.DataFrame)
    transfers: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        """Build everything from the stories."""
        self.timelines: tuple[Timeline, ...] = ()
        begin = self.start
        self._story: dict[tuple[str, int], Story] = {}
        for arm, stories in self.stories.items():
            end = begin + max(sum(s for _, s in story) for story in stories)
            lanes = tuple(self._lane(arm, rank, story, begin) for rank, story in enumerate(stories))
            n_items = sum(lane.n_done for lane in lanes)
            self.timelines += (Timeline(arm, begin, end, n_items, lanes, error=self.error),)
            begin = end + 0.25
        self.workers = self._workers()
        self.summary = self._summary()
        self.items = pd.DataFrame()

    @property
    def saved(self) -> FakeRun:
        """Return itself: nothing in it is anybody's."""
        return self

    def functions(self) -> list[tuple[int, list[Calls]]]:
        """Return the hand-written calls."""
        return self.calls

    def slices(self, lane: Lane) -> list[Slice]:
        """Return the waits that the samples of the story tell, and its spans."""
        return waits.slices(lane)

    def shares(self, timeline: Timeline, lane: Lane, edges: np.ndarray) -> dict[str, np.ndarray]:
        """Return the seconds of each state between the edges, exactly as the story has them."""
        story = self._story[timeline.arm.label, lane.worker.rank]
        cuts = timeline.begin + np.concatenate([[0.0], np.cumsum([s for _, s in story])])
        rest = max(0.0, timeline.end - cuts[-1])
        shares = {}
        for state in WORKER_STATES:
            steps = [s if name == state else 0.0 for name, s in story]
            sums = np.concatenate([[0.0], np.cumsum(steps)])
            if rest and state == "idle":
                shares[state] = np.diff(np.interp(edges, [*cuts, timeline.end], [*sums, sums[-1] + rest]))
            else:
                shares[state] = np.diff(np.interp(edges, cuts, sums))
        return shares

    def _lane(self, arm: Arm, rank: int, story: Story, begin: float) -> Lane:
        self._story[arm.label, rank] = story
        spans, at, states = [], array("d"), array("b")
        now, busy = begin, []
        for state, seconds in story:
            if state in {"startup", "transfer"}:
                spans.append(Span(state, now, now + seconds))
            elif state in KIND_OF:
                busy.append((now, now + seconds))
                count = max(1, round(seconds / 0.01))
                at.extend(now + seconds * (k + 0.5) / count for k in range(count))
                states.extend([SEEN.index(KIND_OF[state])] * count)
            now += seconds
        batches = ()
        if busy:
            low, high = busy[0][0], busy[-1][1]
            edges = np.linspace(low, high, 3)
            first = 2 * rank
            errors = {i: e for i, e in self.item_errors.items() if first <= i < first + 2}
            batches = (Batch(first, array("d", edges[:-1]), array("d", edges[1:]), [None, None], errors),)
        return Lane(
            WorkerId(rank, 4000 + (rank if arm.kind == "procs" else 0), 5000 + rank),
            tuple(spans), batches, Clocks(array("d"), array("d"), array("d")), Samples(at, states), Usage(0.5, NAN, 3, 2, 99.5),
        )  # fmt: skip

    def _workers(self) -> pd.DataFrame:
        rows, index = [], []
        for timeline in self.timelines:
            wall = timeline.end - timeline.begin
            for lane in timeline.lanes:
                whole = self.shares(timeline, lane, np.array([timeline.begin, timeline.end]))
                states = {f"{state}_s": float(whole[state][0]) for state in WORKER_STATES}
                if not self.measured:
                    states["native_s"] = NAN
                index.append((timeline.arm.label, lane.worker.rank))
                rows.append({
                    "pid": lane.worker.pid, "tid": lane.worker.tid, "n_items": 2, "wall_s": wall, **states,
                    "cpu_s": 0.5, "ctx_voluntary": 3.0, "ctx_involuntary": NAN, "rss_mb": 99.5, "measured": self.measured,
                })  # fmt: skip
        return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=["arm", "rank"]) if index else None)

    def _summary(self) -> pd.DataFrame:
        rows = []
        for timeline in self.timelines:
            mine, arm = self.workers.loc[[timeline.arm.label]], timeline.arm
            wall = timeline.end - timeline.begin
            active = mine["wall_s"].sum() - mine["startup_s"].sum() - mine["idle_s"].sum()
            sums = {f"{s}_s": mine[f"{s}_s"].sum() for s in ("gil_wait", "lock_wait", "io_wait", "startup", "transfer")}
            rows.append({
                "model": arm.kind, "n_workers": arm.count, "n_items": timeline.n_items, "wall_s": wall, "serial_s": self.serial_s,
                "speedup": self.serial_s / wall, "efficiency": self.serial_s / wall / arm.count, "baseline": self.baseline,
                "cpu_s": 1.0, "cores_used": 1.0 / wall, **sums, "gil_wait_share": sums["gil_wait_s"] / active,
                "trace_overhead": 0.01, "gil": True,
            })  # fmt: skip
        return pd.DataFrame(rows, index=pd.Index([t.arm.label for t in self.timelines], name="arm"))


def two_arms(**changes: object) -> FakeRun:
    """Return threads that wait for the GIL half of the time, and processes that start, run and finish unevenly."""
    stories = {
        Arm("threads", 2): [[("running", 0.8), ("gil_wait", 0.8)], [("gil_wait", 0.8), ("running", 0.8)]],
        Arm("procs", 2): [
            [("startup", 0.1), ("running", 0.8), ("transfer", 0.1)],
            [("startup", 0.1), ("running", 0.6)],
        ],
    }
    return FakeRun(stories, **changes)  # type: ignore[arg-type]
