"""Runs of hand-written timelines: what renderers are tested with, without threads or clocks.

A lane is a story, a list of (state, seconds), told by the readings, samples, spans and items that a worker
with this story would have reported. All else is the run's own: tables, shares, the verdict.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from parmagic.analyze.study import Study
from parmagic.model import finding
from parmagic.model.kinds import MEASURED, SAMPLED, SEEN, SPANS
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Child, Clocks, Samples, Span, Tally, Usage, WorkerId
from parmagic.model.taken import NOWHERE, Handover, Synced
from parmagic.model.timeline import Baseline, Calls, Lane, Timeline

NAN = float("nan")
PAUSE = 0.25
"""Seconds between two arms."""

SAMPLING = 0.01
"""Seconds between two samples."""

Story = Sequence[tuple[str, float]]
Step = tuple[str, float, float]
SEEN_AS = {"running": "running", **{state: seen for seen, state in SAMPLED.items()}}


def calls_of(rank: int, *calls: tuple[str, float, float]) -> Calls:
    """Return a worker's calls of (name, begin, end)."""
    table = sorted(((begin, end, name) for name, begin, end in calls), key=lambda call: (call[0], -call[1]))
    names = tuple(dict.fromkeys(name for _, _, name in table))
    begins, ends = np.array([b for b, _, _ in table]), np.array([e for _, e, _ in table])
    return Calls(rank, begins, ends, np.array([names.index(n) for _, _, n in table], dtype=np.int32), names)


def run_of(
    stories: Mapping[Arm, Sequence[Story]],
    *,
    measured: bool = False,
    serial_s: float = 1.6,
    baseline: str = "measured",
    title: str = "%%parallel threads=2 procs=2 for n in range(4)",
    notes: Sequence[str] = ("The body ran 4 + 4 times.",),
    error: BaseException | None = None,
    item_errors: Mapping[int, BaseException] | None = None,
    **given: object,
) -> Study:
    """Return the study of a run of these arms, one behind another from 1000 s on; ``given`` are attributes that stand in for its own."""
    timelines, begin = [], 1000.0
    for arm, lanes in stories.items():
        told = [_lane(arm, rank, list(_steps(story, begin)), item_errors or {}, measured=measured) for rank, story in enumerate(lanes)]
        end = begin + max(sum(seconds for _, seconds in story) for story in lanes)
        timelines.append(Timeline(arm, begin, end, sum(len(batch.begins) for lane in told for batch in lane.batches), tuple(told), cpu_s=1.0, error=error))
        begin = end + PAUSE
    baselines = {arm.label: Baseline(serial_s, baseline) for arm in stories}
    study = Study(timelines, baselines, finding.told(notes, "told"), error, title=title, show_items=True)
    vars(study).update(given)
    return study


def child(
    rank: int, begin: float, end: float, name: str = "Thread-1 (load)", state: str = "sleep", kind: str = "thread", *, goes_on: bool = False
) -> Lane:  # fmt: skip
    """Return the lane of what worker ``rank`` started, which was in one state from begin to end: seconds behind the first arm's begin."""
    spent = [end - begin if each == state else 0.0 for each in MEASURED]
    rows = Tally(array("d", [1000 + begin, *[0.0] * len(MEASURED), 1000 + end, *spent]))
    who, nothing = WorkerId(rank, 4000, 6000 + round(10 * begin), takes_items=False), array("d")
    told = Child(who, name, kind, 1000 + begin, 1000 + end, goes_on)
    return Lane(who, (), (), Clocks(nothing, nothing, nothing), Samples(nothing, array("b")), None, rows, child=told)


def handover(
    begin: float, end: float, *, blocker: int = -1, waker: int = -1, woken: float = NAN, got: bool = True, name: str = "lock",
    serial: int = 0, blocked: tuple[str, int] = ("util.py", 7),
) -> Handover:  # fmt: skip
    """Return a wait from begin to end, which ``blocker`` caused and ``waker`` ended: seconds behind the first arm's begin."""
    cause = blocker, serial, blocked if blocker >= 0 else NOWHERE
    ends = waker, 0, ("util.py", 9) if waker >= 0 else NOWHERE
    return Handover(1000 + begin, 1000 + end, got, 1, "", ("util.py", 3), *cause, *ends, 1000 + woken, name, "lock")


def with_handovers(timeline: Timeline, handovers: Sequence[tuple[int, Handover]]) -> Timeline:
    """Return an arm whose workers waited so, each wait behind the rank of who did."""
    of = {rank: tuple(each for waiter, each in handovers if waiter == rank) for rank, _ in handovers}
    lanes = [replace(lane, synced=Synced(handovers=of.get(lane.worker.rank, ()))) for lane in timeline.lanes]
    return replace(timeline, lanes=tuple(lanes))


def _steps(story: Story, now: float) -> Iterator[Step]:
    for state, seconds in story:
        yield state, now, now + seconds
        now += seconds


def _lane(arm: Arm, rank: int, steps: list[Step], errors: Mapping[int, BaseException], *, measured: bool) -> Lane:
    spans = tuple(Span(*step) for step in steps if step[0] in SPANS)
    at_work = [step for step in steps if step[0] not in {*SPANS, "idle"}]
    items = array("d", _edges(steps))
    batches = tuple(
        Batch(first, items[2 * place : 2 * place + 1], items[2 * place + 1 : 2 * place + 2], [None], {i: e for i, e in errors.items() if i == first})
        for place, first in enumerate(range(rank * len(items) // 2, (rank + 1) * len(items) // 2))
    )
    worker = WorkerId(rank, 4000 + (0 if arm.model.shares_memory else rank), 5000 + rank)
    usage = Usage(0.5, NAN, 3, 2, 99.5)
    if measured:
        nothing = Clocks(array("d"), array("d"), array("d"))
        return Lane(worker, spans, batches, nothing, Samples(array("d"), array("b")), usage, _tally(at_work))
    return Lane(worker, spans, batches, _clocks(at_work), _samples(at_work), usage)


def _edges(steps: list[Step]) -> Iterator[float]:
    """Yield the begins and ends of items: two of them in each stretch of work, one behind the other."""
    for works, stretch in groupby(steps, key=lambda step: step[0] not in {*SPANS, "idle"}):
        if works:
            within = list(stretch)
            begin, end = within[0][1], within[-1][2]
            yield from (begin, (begin + end) / 2, (begin + end) / 2, end)


def _tally(steps: list[Step]) -> Tally:
    """Read the account at the begin and the end of each step, all of which was spent in its state."""
    rows, spent = array("d"), dict.fromkeys(MEASURED, 0.0)
    for state, begin, end in steps:
        rows.extend([begin, *spent.values()])
        if state in spent:
            spent[state] += end - begin
        rows.extend([end, *spent.values()])
    return Tally(rows)


def _clocks(steps: list[Step]) -> Clocks:
    """Read the clocks at the begin and the end of each step."""
    clocks, cpu, queue = Clocks(array("d"), array("d"), array("d")), 0.0, 0.0
    for state, begin, end in steps:
        for at in (begin, end):
            cpu += (end - begin) * (at == end and state == "running")
            queue += (end - begin) * (at == end and state == "cpu_wait")
            clocks.at.append(at)
            clocks.cpu.append(cpu)
            clocks.queue.append(queue)
    return clocks


def _samples(steps: list[Step]) -> Samples:
    """Look at each step, in the middle of each of its hundredths of a second."""
    at, states = array("d"), array("b")
    for state, begin, end in steps:
        if state in SEEN_AS:
            count = max(1, round((end - begin) / SAMPLING))
            at.extend(begin + (end - begin) * (k + 0.5) / count for k in range(count))
            states.extend([SEEN.index(SEEN_AS[state])] * count)
    return Samples(at, states)


def two_arms(**changes: object) -> Study:
    """Return threads that wait for the GIL half of the time, and processes that start, run and finish unevenly."""
    stories = {
        Arm.named("threads", 2): [[("running", 0.8), ("gil_wait", 0.8)], [("gil_wait", 0.8), ("running", 0.8)]],
        Arm.named("procs", 2): [
            [("startup", 0.1), ("running", 0.8), ("transfer", 0.1)],
            [("startup", 0.1), ("running", 0.6)],
        ],
    }
    return run_of(stories, **changes)  # type: ignore[arg-type]
