"""The study, on hand-written recordings: exact numbers, no threads, no clock."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import numpy as np
import pytest

from parmagic.analyze import compare, tables, verdict
from parmagic.analyze.merge import merge
from parmagic.execute import baseline
from parmagic.model.kinds import SEEN, WORKER_STATES
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Readings, Recording, Samples, Span, TraceFile, WorkerId
from parmagic.model.timeline import Baseline, Timeline


def _doubles(*values: float) -> array[float]:
    return array("d", values)


def _recording(rank: int = 0, first: int = 0, cpu: float = 4.0, queue: float = 1.0) -> Recording:
    """Return a worker that starts in 1 s, runs two items from 2 to 12 s, and transfers until 13 s."""
    return Recording(
        WorkerId(rank, 100 + rank, 200 + rank),
        spans=(Span("startup", 0.0, 1.0), Span("transfer", 12.0, 13.0)),
        batches=(Batch(first, _doubles(2.0, 7.0), _doubles(7.0, 12.0), ["a", "b"]),),
        readings=Readings(Clocks(_doubles(2.0, 12.0), _doubles(0.5, 0.5 + cpu), _doubles(0.25, 0.25 + queue))),
    )


def _samples(*names: str) -> Samples:
    """Return one sample a second, in the middle of each second from 2 to 12."""
    return Samples(_doubles(*(2.5 + i for i in range(len(names)))), array("b", [SEEN.index(name) for name in names]))


def _timeline(samples: Samples | None, arm: Arm | None = None, **changes: float) -> Timeline:
    parts = [_recording(**changes)]
    return merge(arm or Arm.named("threads", 1), 0.0, 14.0, 2, parts, {0: samples} if samples else {})


def _row(timeline: Timeline) -> dict[str, float]:
    return tables.workers_table([timeline]).iloc[0].to_dict()


def test_blocked_time_is_divided_by_samples():
    """Half of the time on a core, a tenth queued, and the rest blocked as it was seen."""
    row = _row(_timeline(_samples("running", "running", "running", "running", "running", "running", "gil", "gil", "gil", "lock")))
    assert row["startup_s"] == pytest.approx(1.0)
    assert row["transfer_s"] == pytest.approx(1.0)
    assert row["idle_s"] == pytest.approx(2.0)  # from 1 to 2 s, and from 13 to 14 s
    assert row["running_s"] == pytest.approx(4.0)
    assert row["cpu_wait_s"] == pytest.approx(1.0)
    assert row["gil_wait_s"] == pytest.approx(3.0 + 1.0 * 3 / 4)  # 4 s were seen blocked, 5 s were: the rest follows
    assert row["lock_wait_s"] == pytest.approx(1.0 + 1.0 * 1 / 4)
    assert row["sleep_s"] == row["io_wait_s"] == row["unknown_s"] == 0.0
    assert math.isnan(row["native_s"])


def test_samples_never_change_the_sum():
    """Where more was seen blocked than the clocks allow, the clocks win."""
    row = _row(_timeline(_samples(*["sleep"] * 10), cpu=9.0, queue=0.0))
    assert row["running_s"] == pytest.approx(9.0)
    assert row["sleep_s"] == pytest.approx(1.0)


def test_without_samples_waits_are_absent():
    """What was never looked at is not known: NaN, and its time is unknown."""
    row = _row(_timeline(None))
    assert all(math.isnan(row[name]) for name in ("gil_wait_s", "lock_wait_s", "io_wait_s", "sleep_s"))
    assert row["unknown_s"] == pytest.approx(5.0)


def test_without_a_run_queue_clock():
    """Where the system does not tell the run queue, it is absent and its time is blocked."""
    row = _row(_timeline(_samples(*["io"] * 10), queue=math.nan))
    assert math.isnan(row["cpu_wait_s"])
    assert row["io_wait_s"] == pytest.approx(6.0)


@pytest.mark.parametrize("samples", [None, _samples("gil", "lock", "io", "sleep", "running", "gil", "lock", "io", "sleep", "running")])
@pytest.mark.parametrize("cpu", [0.0, 0.3, 4.0, 10.0, 12.0])
def test_states_tile_the_wall_time(samples, cpu):
    """Whatever the clocks and samples say, the states add up to the wall time, and none is negative."""
    row = _row(_timeline(samples, cpu=cpu))
    states = np.nan_to_num([row[f"{state}_s"] for state in WORKER_STATES])
    assert states.sum() == pytest.approx(14.0)
    assert (states >= 0).all()


def test_shares_of_bins_add_up_to_the_table():
    """A drawn lane and the table have one source."""
    timeline = _timeline(_samples(*["gil", "running"] * 5))
    shares = tables.ledger(timeline, timeline.lanes[0]).shares(np.linspace(0.0, 14.0, 29))
    row = _row(timeline)
    for state in WORKER_STATES:
        assert shares[state].sum() == pytest.approx(np.nan_to_num(row[f"{state}_s"]))
    assert sum(shares.values()) == pytest.approx(np.full(28, 0.5))


def test_items_get_their_part():
    """Each item's waits are the ledger between its begin and its end."""
    timeline = _timeline(_samples("gil", "gil", "gil", "gil", "gil", *["running"] * 5), cpu=5.0, queue=0.0)
    items = tables.items_table([timeline])
    assert items["gil_wait_s"].tolist() == pytest.approx([5.0, 0.0])
    assert items["running_s"].tolist() == pytest.approx([0.0, 5.0])
    assert items["start_s"].tolist() == [2.0, 7.0]
    assert items["error"].isna().all()


def test_item_that_never_started():
    """It has no figures, and says so."""
    timeline = merge(Arm.named("threads", 1), 0.0, 14.0, 3, [_recording()], {})
    items = tables.items_table([timeline])
    assert items["error"].iloc[2] == "not started"
    assert items.iloc[2][["rank", "start_s", "wall_s"]].isna().all()


def test_summary_formulas():
    """Speedup, efficiency, cores and the GIL's share follow the README's formulas."""
    gil = _samples(*["gil"] * 10)
    parts = [_recording(0), _recording(1, first=2)]
    timeline = merge(Arm.named("threads", 2), 0.0, 14.0, 4, parts, {0: gil, 1: gil}, cpu_s=7.0)
    timeline = replace(timeline, traces=(TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {}, overhead_s=0.7),))
    workers = tables.workers_table([timeline])
    row = tables.summary_table([timeline], workers, [Baseline(21.0, "measured")]).loc["threads=2"]
    assert row["speedup"] == pytest.approx(1.5)
    assert row["efficiency"] == pytest.approx(0.75)
    assert row["cores_used"] == pytest.approx(0.5)
    assert row["trace_overhead"] == pytest.approx(0.05)
    assert row["gil_wait_s"] == pytest.approx(10.0)
    assert row["gil_wait_share"] == pytest.approx(10.0 / (28.0 - 2.0 - 4.0))


def test_clocks_of_a_restarted_worker_go_on():
    """A rank that was started again after a death counts on, not back."""
    again = Recording(WorkerId(0, 999, 999), readings=Readings(Clocks(_doubles(20.0, 21.0), _doubles(0.1, 0.6), _doubles(0.0, 0.1))))
    clocks = merge(Arm.named("procs", 1), 0.0, 22.0, 2, [_recording(), again], {}).lanes[0].clocks
    assert clocks.cpu.tolist() == pytest.approx([0.5, 4.5, 4.5, 5.0])
    assert clocks.queue.tolist() == pytest.approx([0.25, 1.25, 1.25, 1.35])


def test_sample_of_a_baseline_is_spread_evenly():
    """All items where they fit; else as many as fit, evenly spread."""
    assert baseline.sample([1.0] * 10, 10.0) is None
    assert [r.start for r in baseline.sample([1.0] * 10, 5.0)] == [1, 3, 5, 7, 9]
    assert [r.start for r in baseline.sample([1.0] * 10, 0.1)] == [5]


def test_baseline_is_scaled_by_its_items_own_ratio():
    """Half of the items ran serially, in half of their parallel time: so would all."""
    arm = _timeline(_samples(*["running"] * 10))
    serial = merge(
        Arm.named("serial"), 0.0, 3.0, 2, [Recording(WorkerId(0, 1, 1), batches=(Batch(1, _doubles(0.0), _doubles(2.5), ["b"]),))], {}
    )
    scaled = baseline.scaled_to(arm, serial)
    assert (scaled.serial_s, scaled.how) == (pytest.approx(5.0), "sampled")


def test_estimate_leaves_out_what_others_caused():
    """The estimate counts running, sleep and I/O, and no wait for the GIL or a core."""
    timeline = _timeline(_samples("running", "running", "running", "running", "running", "gil", "gil", "gil", "sleep", "sleep"))
    workers = tables.workers_table([timeline])
    table = tables.summary_table([timeline], workers, [Baseline.estimated()])
    assert table["serial_s"].iloc[0] == pytest.approx(4.0 + 2.0)


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (1, 1, True),
        (1, 2, False),
        (float("nan"), float("nan"), True),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        ([1, [2, np.array([3])]], [1, [2, np.array([3])]], True),
        ({"a": 1}, {"a": 2}, False),
        (object(), object(), None),
        ([1, object()], [2, object()], False),
    ],
)
def test_same(one, other, answer):
    """Results are compared by value; what only knows identity cannot tell."""
    assert compare.same(one, other) is answer


def _verdict(rows: list[tuple[str, int, float, float]], error: str | None = None) -> str:
    import pandas as pd

    labels = [f"{model}={n}" for model, n, _, _ in rows]
    summary = pd.DataFrame(
        {
            "model": [r[0] for r in rows], "n_workers": [r[1] for r in rows], "speedup": [r[2] for r in rows],
            "efficiency": [r[2] / r[1] for r in rows], "baseline": "measured", "gil_wait_share": [r[3] for r in rows], "wall_s": 1.0,
            "n_items": 10, "serial_s": [r[2] for r in rows], "trace_overhead": 0.0,
        },
        index=labels,
    )  # fmt: skip
    states = dict.fromkeys((f"{state}_s" for state in WORKER_STATES), 0.0)
    index = pd.MultiIndex.from_tuples([(label, 0) for label in labels])
    workers = pd.DataFrame([{**states, "wall_s": 1.0, "measured": False}] * len(rows), index=index)
    arms = {f"{model}={n}": Timeline(Arm.named(model, n), 0.0, 1.0, 10, ()) for model, n, _, _ in rows}
    return verdict.verdict(verdict.Tables(summary, workers, tables.waits_table([]), arms), error).text


def test_verdict_names_what_to_do():
    """The best arm first, then why another gained nothing, with its evidence."""
    text = _verdict([("threads", 2, 0.98, 0.48), ("procs", 2, 1.8, 0.0)])
    assert text == (
        "Use procs=2: 1.80× of the serial speed; threads=2 gains nothing (0.98×): "
        "its workers spent ~48% of their active time waiting for the GIL."
    )


def test_verdict_where_threads_gain_nothing():
    """The GIL stops threads: try processes."""
    text = _verdict([("threads", 4, 0.97, 0.7)])
    assert text.startswith("No gain: threads=4 is the best at 0.97×")
    assert text.endswith("Try procs=4.")


def test_verdict_of_a_failed_run():
    """A run that ended early says why, and nothing else."""
    assert _verdict([("threads", 2, 1.9, 0.0)], "ValueError: no") == "The run ended early: ValueError: no"
