"""The ledger and its tables on hand-written lanes: what is not known is NaN, and everything tiles."""

from __future__ import annotations

import dataclasses
import math
from array import array

import numpy as np
import pytest

from parmagic.analyze import tables
from parmagic.model.kinds import SEEN, WORKER_STATES
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, Span, TraceFile, Usage, WorkerId
from parmagic.model.timeline import Baseline, Lane, Timeline

STATE_COLUMNS = [f"{state}_s" for state in WORKER_STATES]


def _d(*values):
    return array("d", values)


def _clocks(*readings):
    return Clocks(*(_d(*column) for column in zip(*readings, strict=True))) if readings else Clocks(_d(), _d(), _d())


def _seen(*pairs):
    return Samples(_d(*(at for at, _ in pairs)), array("b", [SEEN.index(state) for _, state in pairs]))


def _lane(rank=0, spans=(), batches=(), clocks=None, samples=None, usage=None):
    return Lane(WorkerId(rank, 10 + rank, 20 + rank), tuple(spans), tuple(batches), clocks or _clocks(), samples or _seen(), usage)


def _batch(first, *items, errors=None):
    return Batch(first, _d(*(b for b, _ in items)), _d(*(e for _, e in items)), [None] * len(items), errors or {})


def _timeline(*lanes, n_items=1, arm=None, begin=0.0, end=10.0, **more):
    return Timeline(arm or Arm.named("threads", len(lanes)), begin, end, n_items, lanes, **more)


def _row(lane, **more):
    return tables.workers_table([_timeline(lane, **more)]).iloc[0]


def test_a_worker_without_items_is_idle():
    """After its start-up, a worker that got no item has nothing but idle time."""
    row = _row(_lane(spans=[Span("startup", 0.0, 3.0)]))
    assert (row["startup_s"], row["idle_s"], row["running_s"], row["unknown_s"]) == (3.0, 7.0, 0.0, 0.0)
    assert row["n_items"] == 0


def test_before_it_was_ready_all_is_startup():
    """Time before the start-up span's own begin is start-up as well: the worker was not there."""
    row = _row(_lane(spans=[Span("startup", 2.0, 3.0)]))
    assert (row["startup_s"], row["idle_s"]) == (3.0, 7.0)


def test_transfer_after_startup_and_between_items():
    """Transfer wins over start-up; between a worker's items what is no transfer is busy, not idle."""
    lane = _lane(
        spans=[Span("startup", 0.0, 2.0), Span("transfer", 1.0, 2.0), Span("transfer", 5.0, 5.5)],
        batches=[_batch(0, (3.0, 5.0)), _batch(1, (6.0, 8.0))],
        clocks=_clocks((3.0, 0.0, 0.0), (8.0, 4.5, 0.0)),
    )
    row = _row(lane, n_items=2)
    assert (row["startup_s"], row["transfer_s"], row["idle_s"]) == (1.0, 1.5, 3.0)
    assert row["running_s"] == pytest.approx(4.5)


def test_items_win_over_transfer():
    """Where a transfer span overlaps an item (a queue's feeder), the time is the item's."""
    row = _row(_lane(spans=[Span("transfer", 4.0, 6.0)], batches=[_batch(0, (2.0, 5.0))], clocks=_clocks((2.0, 0.0, 0.0), (5.0, 3.0, 0.0))))
    assert (row["running_s"], row["transfer_s"]) == (pytest.approx(3.0), 1.0)


def test_blocked_and_never_seen_is_unknown():
    """Blocked time without a single sample is unknown, and the waits are NaN, not 0."""
    row = _row(_lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (10.0, 4.0, 1.0))))
    assert row["unknown_s"] == pytest.approx(5.0)
    assert all(math.isnan(row[f"{wait}_s"]) for wait in ("gil_wait", "lock_wait", "io_wait", "sleep", "native"))


def test_blocked_between_samples_follows_them():
    """A worker that was seen asleep only: all of its blocked time is sleep, also where no sample fell."""
    lane = _lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (5.0, 0.0, 0.0), (10.0, 0.0, 0.0)), samples=_seen((1.0, "sleep")))
    row = _row(lane)
    assert row["sleep_s"] == pytest.approx(10.0)
    assert row["gil_wait_s"] == row["unknown_s"] == 0.0


def test_intervals_keep_their_own_share():
    """Clock readings are exact: what ran in one interval does not leak into the next."""
    lane = _lane(batches=[_batch(0, (0.0, 4.0), (4.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (4.0, 4.0, 0.0), (10.0, 4.0, 0.0)), samples=_seen((2.0, "running"), (6.0, "io"), (9.0, "io")))
    items = tables.items_table([_timeline(lane, n_items=2)])
    assert items["running_s"].tolist() == pytest.approx([4.0, 0.0])
    assert items["io_wait_s"].tolist() == pytest.approx([0.0, 6.0])


def test_clocks_that_claim_too_much_are_cut():
    """CPU and run-queue time above the interval's length (rounding, a shared clock) never break the sum."""
    row = _row(_lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (10.0, 9.0, 7.0)), samples=_seen((5.0, "gil"))))
    assert row[STATE_COLUMNS].fillna(0.0).sum() == pytest.approx(10.0)
    assert (row["running_s"], row["cpu_wait_s"]) == (pytest.approx(9.0), pytest.approx(1.0))


def test_a_clock_that_runs_backwards_counts_as_standing():
    """A thread clock that goes back adds no negative time."""
    row = _row(_lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 5.0, 0.0), (10.0, 4.0, 0.0))))
    assert row["running_s"] == 0.0
    assert row["unknown_s"] == pytest.approx(10.0)


def test_tracing_is_paid_at_once_where_no_gil_puts_threads_in_line():
    """Its CPU seconds make an arm of threads that much longer under a GIL; without one, or in processes, by their mean."""
    trace = TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {}, overhead_s=0.4)
    lanes = [_lane(rank) for rank in range(4)]
    assert _timeline(*lanes, traces=(trace,)).overhead_s == 0.4
    assert _timeline(*lanes, traces=(trace,), gil=False).overhead_s == 0.1
    assert _timeline(*lanes, traces=(trace,) * 4).overhead_s == 0.4
    assert _timeline(*lanes, traces=(trace,) * 4, gil=False).overhead_s == 0.4
    assert _timeline(*lanes, gil=False).overhead_s == 0.0


def test_without_a_gil_there_is_no_wait_for_it():
    """On a free-threaded build gil is False and gil_wait 0, even where nothing was sampled."""
    timeline = _timeline(_lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (10.0, 10.0, 0.0))), gil=False)
    workers = tables.workers_table([timeline])
    summary = tables.summary_table([timeline], workers, [Baseline(10.0, "measured")])
    assert workers["gil_wait_s"].tolist() == [0.0]
    assert summary["gil"].tolist() == [False]
    assert summary["gil_wait_share"].tolist() == [0.0]


@pytest.mark.parametrize("seed", range(20))
def test_everything_tiles(seed):
    """For any lane, the states are never negative and add up to the wall time; so do those of any bins."""
    random = np.random.default_rng(seed)
    cuts = np.sort(random.uniform(1.0, 9.0, 12))
    batches = [_batch(k, (cuts[2 * k], cuts[2 * k + 1])) for k in range(6)]
    at = np.sort(random.uniform(0.0, 10.0, 8))
    clocks = Clocks(_d(*at), _d(*np.cumsum(random.uniform(0.0, 1.5, 8))), _d(*np.cumsum(random.uniform(0.0, 0.5, 8))))
    samples = _seen(*((t, SEEN[random.integers(len(SEEN))]) for t in np.sort(random.uniform(0.0, 10.0, 30))))
    lane = _lane(spans=[Span("startup", 0.0, 0.5), Span("transfer", 4.0, 4.2)], batches=batches, clocks=clocks, samples=samples)
    timeline = _timeline(lane, n_items=6)
    row = tables.workers_table([timeline]).iloc[0]
    assert row[STATE_COLUMNS].fillna(0.0).sum() == pytest.approx(10.0)
    assert (row[STATE_COLUMNS].fillna(0.0) >= 0).all()
    shares = tables.ledger(timeline, lane).shares(np.linspace(0.0, 10.0, 41))
    assert sum(shares.values()) == pytest.approx(np.full(40, 0.25))
    items = tables.items_table([timeline])
    assert (items[["running_s", "gil_wait_s", "lock_wait_s", "io_wait_s"]].sum(axis=1) <= items["wall_s"] + 1e-9).all()


def test_summary_of_two_workers():
    """Sums are over the workers; shares and rates follow from them."""
    lanes = [
        _lane(rank, [Span("startup", 0.0, 1.0)], [_batch(rank, (1.0, 9.0))], _clocks((1.0, 0.0, 0.0), (9.0, 4.0, 0.0)), _seen((5.0, "gil")))
        for rank in (0, 1)
    ]
    trace = TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {}, overhead_s=0.5)
    timeline = _timeline(*lanes, n_items=2, cpu_s=8.0, traces=(trace,))
    row = tables.summary_table([timeline], tables.workers_table([timeline]), [Baseline(8.0, "sampled")]).loc["threads=2"]
    assert (row["speedup"], row["efficiency"], row["cores_used"]) == (0.8, 0.4, 0.8)
    assert (row["gil_wait_s"], row["startup_s"]) == (pytest.approx(8.0), pytest.approx(2.0))
    assert row["gil_wait_share"] == pytest.approx(8.0 / (20.0 - 2.0 - 2.0))
    assert (row["baseline"], row["trace_overhead"], row["serial_s"]) == ("sampled", 0.05, 8.0)


def test_an_arm_without_workers_has_its_row():
    """An arm whose workers never came to life is in the summary, with nothing made up."""
    timelines = [_timeline(_lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (10.0, 10.0, 0.0)))), _timeline(arm=Arm.named("procs", 2))]
    summary = tables.summary_table(timelines, tables.workers_table(timelines), [Baseline(10.0, "measured"), Baseline(math.nan, "estimated")])
    assert summary.index.tolist() == ["threads=1", "procs=2"]
    assert math.isnan(summary.loc["procs=2", "speedup"])
    assert math.isnan(summary.loc["procs=2", "gil_wait_share"])


def test_an_arm_in_which_no_item_ended_has_no_speedup():
    """Its wall time is no time of theirs: nothing is divided by it."""
    arm = _timeline(_lane(spans=[Span("startup", 0.0, 3.0)]))
    summary = tables.summary_table([arm], tables.workers_table([arm]), [Baseline(10.0, "measured")])
    assert summary[["speedup", "efficiency"]].isna().all(axis=None)
    assert (summary.iloc[0]["wall_s"], summary.iloc[0]["serial_s"]) == (10.0, 10.0)


def test_items_of_an_arm_in_which_none_started():
    """Arms join without a warning, also where one of them started no item; it says so."""
    timelines = [_timeline(_lane(batches=[_batch(0, (0.0, 1.0))])), _timeline(_lane(), arm=Arm.named("procs", 1))]
    items = tables.items_table(timelines)
    assert items["error"].tolist() == [None, "not started"]
    assert math.isnan(items.loc[("procs=1", 0), "start_s"])


def test_items_say_what_failed():
    """A failed item has its times and its error on one line, cut."""
    lane = _lane(batches=[_batch(3, (1.0, 2.0), (2.0, 4.0), errors={4: ValueError("long\n" + "x" * 200)})])
    items = tables.items_table([_timeline(lane, n_items=5)]).loc["threads=1"]
    assert items["wall_s"].tolist()[3:] == [1.0, 2.0]
    assert items["error"].iloc[4].startswith("ValueError: long xxx")
    assert len(items["error"].iloc[4]) == 80


def test_waits_are_those_that_were_seen():
    """One row per worker and kind that took time; counts and maxima of inferred waits are not known."""
    lane = _lane(batches=[_batch(0, (0.0, 10.0))], clocks=_clocks((0.0, 0.0, 0.0), (10.0, 2.0, 0.0)), samples=_seen((2.0, "lock"), (8.0, "lock")))
    waits = tables.waits_table([_timeline(lane)])
    assert waits.index.tolist() == [("threads=1", 0)]
    assert waits["kind"].tolist() == ["lock"]
    assert waits["total_s"].tolist() == pytest.approx([8.0])
    assert waits[["n", "max_s"]].isna().all(axis=None)


def test_empty_tables_have_their_shape():
    """A run without arms has tables with the right columns and index names."""
    assert tables.workers_table([]).index.names == ["arm", "rank"]
    assert tables.items_table([]).index.names == ["arm", "item"]
    assert tables.waits_table([]).index.names == ["arm", "rank"]


def test_usage_is_passed_on():
    """What a worker used is in its row; a worker that never told has NaN."""
    workers = tables.workers_table([_timeline(_lane(0, usage=Usage(1.5, math.nan, 3, 4, 99.0)), _lane(1))])
    assert workers.iloc[0][["cpu_s", "ctx_voluntary", "ctx_involuntary", "rss_mb"]].tolist() == [1.5, 3, 4, 99.0]
    assert workers.iloc[1][["cpu_s", "ctx_voluntary", "ctx_involuntary", "rss_mb"]].isna().all()
    shared = dataclasses.replace(_timeline(_lane(0, usage=Usage(1.5, math.nan, 3, 4, math.nan)), _lane(1)), peak_mb=98.0)
    assert tables.workers_table([shared])["rss_mb"].fillna(0).tolist() == [98.0, 0]
