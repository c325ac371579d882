"""Lanes that no items are handed to: hand-written recordings, exact numbers."""

from __future__ import annotations

import json
from array import array

import numpy as np
import pytest

from parmagic.analyze import functions, tables
from parmagic.analyze.ledger import ledger
from parmagic.analyze.merge import merge
from parmagic.analyze.study import Study
from parmagic.analyze.waits import slices
from parmagic.model.kinds import MEASURED, SEEN, WAIT_KINDS, WORKER_STATES
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Readings, Recording, Samples, Span, Tally, TraceFile, WorkerId
from parmagic.model.timeline import Baseline, Slice
from parmagic.model.waits import WAIT_LAYOUT, Wait, Waits
from parmagic.render import chrome, page, scene, text


def doubles(*values):
    """Return them as recordings have them."""
    return array("d", values)


def readings(*rows, waits=()):
    """Return a tally of (time, {state: seconds so far}), and waits of (kind, begin, end)."""
    numbers = [number for at, states in rows for number in (at, *(states.get(state, 0.0) for state in MEASURED))]
    packed = b"".join(WAIT_LAYOUT.pack(*Wait(round(b * 1e9), round(e * 1e9), 0, WAIT_KINDS.index(kind), -1, 0, 0)) for kind, b, e in waits)
    return Readings(tally=Tally(doubles(*numbers)), waits=Waits(packed))


MEASURED_READINGS = readings((2.0, {}), (8.0, {"running": 4.0, "lock_wait": 2.0}), waits=[("lock", 3.0, 5.0)])
INFERRED_READINGS = Readings(Clocks(doubles(2.0, 8.0), doubles(0.5, 4.5), doubles(0.0, 0.0)))
SAMPLES = Samples(doubles(2.5, 3.5, 4.5, 5.5, 6.5, 7.5), array("b", [SEEN.index(s) for s in ("running", "lock", "lock", *["running"] * 3)]))


def timeline(*found, spans=(), batches=(), takes_items=False, samples=None):
    """Return an arm of 10 s whose one worker has these readings."""
    worker = WorkerId(0, 1, 2, takes_items=takes_items)
    parts = [Recording(worker, spans=tuple(spans), batches=tuple(batches), readings=each) for each in found]
    return merge(Arm.named("threads", 1), 0.0, 10.0, len(batches), parts, {0: samples} if samples else {})


def row(arm):
    """Return the worker's states that took time."""
    found = tables.workers_table([arm]).iloc[0]
    return {state: found[f"{state}_s"] for state in WORKER_STATES if found[f"{state}_s"] > 0}


@pytest.mark.parametrize(
    ("found", "samples"), [(MEASURED_READINGS, None), (INFERRED_READINGS, SAMPLES)], ids=["measured", "inferred"]
)
def test_readings_divide_the_time_of_a_lane_without_items(found, samples):
    """Between the first reading and the last its time is what they say, where it was seen; outside, nothing is known, and nothing is idle."""
    arm = timeline(found, samples=samples)
    assert row(arm) == pytest.approx({"running": 4.0, "lock_wait": 2.0, "unknown": 4.0})
    shares = ledger(arm, arm.lanes[0]).shares(np.array([0.0, 2.0, 3.0, 5.0, 8.0, 10.0]))
    assert shares["lock_wait"] == pytest.approx([0, 0, 2, 0, 0])
    assert shares["running"] == pytest.approx([0, 1, 0, 3, 0])
    assert shares["unknown"] == pytest.approx([2, 0, 0, 0, 2])


@pytest.mark.parametrize(
    ("found", "samples"), [(MEASURED_READINGS, None), (INFERRED_READINGS, SAMPLES)], ids=["measured", "inferred"]
)
def test_spans_of_a_lane_without_items(found, samples):
    """Its start-up and its transfers are what it recorded of them, and win over its readings."""
    arm = timeline(found, spans=[Span("startup", 0.0, 2.0), Span("transfer", 6.0, 7.0), Span("transfer", 8.0, 9.0)], samples=samples)
    states = row(arm)
    assert (states["startup"], states["transfer"], states["unknown"]) == pytest.approx((2.0, 2.0, 1.0))
    assert states["running"] + states["lock_wait"] == pytest.approx(5.0)
    assert "idle" not in states


@pytest.mark.parametrize(
    ("found", "samples"), [(MEASURED_READINGS, None), (INFERRED_READINGS, SAMPLES)], ids=["measured", "inferred"]
)
def test_a_worker_that_got_no_item_is_idle(found, samples):
    """It takes items, and there was none for it: what its readings say is none of the body's."""
    assert row(timeline(found, spans=[Span("startup", 0.0, 1.0)], takes_items=True, samples=samples)) == {"startup": 1.0, "idle": 9.0}


def test_a_worker_that_got_items_is_idle_outside_of_them():
    """The same readings, of a worker that has an item all the time between them."""
    batch = Batch(0, doubles(2.0), doubles(8.0), [None])
    arm = timeline(MEASURED_READINGS, batches=[batch], takes_items=True)
    assert row(arm) == pytest.approx({"running": 4.0, "lock_wait": 2.0, "idle": 4.0})


def test_without_readings_nothing_is_known():
    """A lane without items that was never read is unknown from begin to end."""
    arm = timeline(None)
    assert arm.lanes[0].at_work is None
    assert row(arm) == {"unknown": 10.0}


def test_its_waits_are_drawn():
    """Single waits and seen ones between its readings are slices of its time."""
    assert slices(timeline(MEASURED_READINGS).lanes[0]) == [Slice(3.0, 5.0, "lock_wait", "lock")]
    assert slices(timeline(INFERRED_READINGS, samples=SAMPLES).lanes[0]) == [Slice(3.0, 5.0, "lock_wait", samples=2)]


def test_its_calls_are_its_own():
    """All recorded calls between its first reading and its last are kept, cut there."""
    event = '{{"pid":1,"tid":7,"ts":{}000000.0,"ph":"X","cat":"fee","dur":{}000000.0,"name":"{}"}}'
    data = '{"traceEvents":[' + ",".join([event.format(1, 1, "before"), event.format(3, 1, "inside"), event.format(7, 2, "last")]) + "]}"
    (calls,) = functions.read(TraceFile("", 1, ((0.0, 0.0), (1e6, 1.0)), {7: 0}, data=data.encode()))
    lane = timeline(MEASURED_READINGS).lanes[0]
    assert list(functions.within_items(calls, lane)) == [(3.0, 4.0, "inside"), (7.0, 8.0, "last")]


def test_summary_of_an_arm_without_items():
    """Its waits add up as any arm's; there is no speedup to report, and nothing is made up."""
    arm = timeline(MEASURED_READINGS)
    summary = tables.summary_table([arm], tables.workers_table([arm]), [Baseline.estimated()]).iloc[0]
    assert (summary["n_items"], summary["lock_wait_s"]) == (0, pytest.approx(2.0))
    assert np.isnan(summary["speedup"])


@pytest.mark.parametrize(
    ("found", "samples"), [(MEASURED_READINGS, None), (INFERRED_READINGS, SAMPLES)], ids=["measured", "inferred"]
)
def test_it_is_drawn_as_any_other(found, samples):
    """Report, page and trace of a lane without items show its states and its waits."""
    run = Study([timeline(found, samples=samples)], {"threads=1": Baseline.estimated()}, [])
    report = text.report(run, width=80)
    assert "|??????????????" in report
    assert "L lock wait" in report
    (lane,) = scene.scene(run)[0]["arms"][0]["lanes"]
    assert set(lane["states"]) == {"running", "lock_wait", "unknown"}
    assert len(lane["waits"]["begin"]) > 0
    assert "lock wait" in page.page(run, tables=True)
    slices_of = [event for event in json.loads(chrome.dumps(run))["traceEvents"] if event["ph"] == "X"]
    assert [(event["cat"], event["ts"], event["dur"]) for event in slices_of] == [("wait", 3e6, 2e6)]
