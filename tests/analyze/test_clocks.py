"""Recordings of several machines come onto one clock: hand-written, exact numbers."""

from __future__ import annotations

import pickle
from array import array
from dataclasses import fields, replace

import pytest

from parmagic.analyze import functions, tables
from parmagic.analyze.clocks import on_ours
from parmagic.analyze.merge import merge
from parmagic.analyze.study import Study
from parmagic.model.kinds import MEASURED, SEEN, WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.recording import HERE, Batch, Clock, Clocks, Readings, Recording, Samples, Span, Tally, TraceFile, Usage, WorkerId
from parmagic.model.waits import WAIT_LAYOUT, Total, Wait, Waits
from parmagic.system.host import HOST
from parmagic.workers.endings import cut_off

FAR = Clock("far", offset=-1000.0, uncertainty=0.25)
EVENT = b'{"traceEvents":[{"pid":1,"tid":7,"ts":500000.0,"ph":"X","cat":"fee","dur":250000.0,"name":"work"}]}'


def doubles(*values):
    """Return them as recordings have them."""
    return array("d", values)


def recording(rank=0, zero=0.0, host=HOST, clock=HERE):
    """Return a worker that starts at ``zero`` on its clock, runs item ``rank`` from 1 to 9 s, and waits for a lock from 2 to 4 s."""
    tally = doubles(zero + 1.0, *[0.0] * len(MEASURED), zero + 9.0, *(6.0 * (s == "running") + 2.0 * (s == "lock_wait") for s in MEASURED))
    wait = WAIT_LAYOUT.pack(*Wait(round((zero + 2.0) * 1e9), round((zero + 4.0) * 1e9), 0xBEEF, WAIT_KINDS.index("lock"), -1, 3, 0))
    return Recording(
        WorkerId(rank, 1, 2, host=host),
        spans=(Span("startup", zero, zero + 1.0),),
        batches=(Batch(rank, doubles(zero + 1.0), doubles(zero + 9.0), ["done"]),),
        readings=Readings(tally=Tally(tally), waits=Waits(wait, lost=3)),
        totals=(Total("lock", 0xBEEF, 3, 1, 2.0, 2.0),),
        usage=Usage(6.0, 6.5, 1, 2, 50.0),
        trace=TraceFile("", 1, ((0.0, zero + 1.0), (1e6, zero + 2.0)), {7: rank}, gaps=((zero + 8.0, zero + 8.25),), since=zero + 1.5, data=EVENT),
        samples=Samples(doubles(zero + 3.0), array("b", [SEEN.index("lock")])),
        clock=clock,
    )


def test_everything_is_shifted():
    """A recording made at 1000 s of another clock is, put on ours, the one that is made at 0 s here; all that is no time stays."""
    there, here = recording(zero=1000.0, host="far", clock=FAR), recording(host="far", clock=replace(FAR, offset=0.0))
    shifted = on_ours(there)
    for each in fields(Recording):
        assert getattr(shifted, each.name) == getattr(here, each.name), each.name
    assert there == recording(zero=1000.0, host="far", clock=FAR)  # who sent it may still need it


def test_clocks_of_inferred_waits_are_shifted():
    """Readings of a thread's clocks: when they were read, not what they showed."""
    clocks = Clocks(doubles(1001.0, 1009.0), doubles(0.5, 4.5), doubles(0.0, 1.0))
    shifted = on_ours(Recording(WorkerId(0, 1, 2), readings=Readings(clocks), clock=FAR))
    assert shifted.readings == Readings(Clocks(doubles(1.0, 9.0), doubles(0.5, 4.5), doubles(0.0, 1.0)))


def test_nothing_is_copied_on_our_own_clock():
    """A recording of this machine is taken as it is, and every report crosses a border with the very clock that is ours."""
    part = recording()
    assert on_ours(part) is part
    assert pickle.loads(pickle.dumps(part)).clock is HERE
    assert pickle.loads(pickle.dumps(FAR)) == FAR
    assert (HERE.host, HERE.offset, HERE.uncertainty) == (HOST, 0.0, 0.0)


def test_two_hosts_on_one_clock():
    """Workers of two machines, whose clocks are 1000 s apart, are side by side in one arm; each lane knows its machine and how sure its times are."""
    parts = [recording(0), recording(1, zero=1000.5, host="far", clock=FAR)]
    arm = merge(Arm.named("procs", 2), 0.0, 10.0, 2, parts, {})
    near, far = arm.lanes
    assert (near.worker.host, far.worker.host) == (HOST, "far")
    assert (near.uncertainty, far.uncertainty) == (0.0, 0.25)
    workers = tables.workers_table([arm]).loc["procs=2"]
    assert workers["startup_s"].tolist() == pytest.approx([1.0, 1.5])
    assert workers["running_s"].tolist() == pytest.approx([6.0, 6.0])
    assert workers["lock_wait_s"].tolist() == pytest.approx([2.0, 2.0])
    assert workers["idle_s"].tolist() == pytest.approx([1.0, 0.5])
    assert tables.items_table([arm])["start_s"].tolist() == pytest.approx([1.0, 1.5])
    assert [(wait.begin, wait.end) for wait in far.waits] == [(2_500_000_000, 4_500_000_000)]
    assert far.samples.at.tolist() == [3.5]
    assert [list(calls) for trace in arm.traces for calls in functions.read(trace)] == [[(1.5, 1.75, "work")], [(2.0, 2.25, "work")]]
    assert (arm.traces[1].since, arm.traces[1].gaps) == (2.0, ((8.5, 8.75),))


def test_one_worker_by_two_clocks():
    """A worker that died on one machine and goes on elsewhere: its parts, and what we saw of its death, are in the order of our clock."""
    lock, sleep = (Readings(Clocks(doubles(at, at + 2.0), doubles(0.0, cpu), doubles(0.0, 0.0))) for at, cpu in ((1002.0, 1.0), (55.0, 2.0)))
    parts = [
        Recording(WorkerId(0, 9, 9, host="other"), (Span("startup", 54.0, 55.0),), (Batch(2, doubles(55.0), doubles(57.0), ["c"]),), sleep,
                  clock=Clock("other", -50.0, 0.125)),
        Recording(WorkerId(0, 1, 1, host="far"), (Span("startup", 1000.0, 1001.0),), (Batch(0, doubles(1002.0), doubles(1004.0), ["a"]),), lock,
                  clock=FAR),
        Recording(WorkerId(0, 1, 1, host="far"), batches=(Batch(1, doubles(4.0), doubles(4.5), [None], {1: ValueError("gone")}),)),
    ]  # fmt: skip
    arm = merge(Arm.named("procs", 1), 0.0, 10.0, 3, parts, {0: Samples(doubles(4.25), array("b", [1]))})
    (lane,) = arm.lanes
    assert [(span.begin, span.end) for span in lane.spans] == [(0.0, 1.0), (4.0, 5.0)]
    assert [(batch.first, batch.begins[0]) for batch in lane.batches] == [(0, 2.0), (1, 4.0), (2, 5.0)]
    assert (lane.clocks.at.tolist(), lane.clocks.cpu.tolist()) == ([2.0, 4.0, 5.0, 7.0], [0.0, 1.0, 1.0, 3.0])
    assert lane.uncertainty == 0.25
    assert (arm.failure.item, arm.failure.worker) == (1, 0)


@pytest.mark.parametrize("early", [False, True])
def test_a_death_that_is_noted_here(early):
    """Where a worker is, and what its time is about, is what it said itself; who notes its death, also one before it said a word, knows its process only."""
    far = Recording(WorkerId(0, 1, 1, host="far", takes_items=False), samples=Samples(doubles(1001.0), array("b", [1])), clock=FAR)
    death = cut_off(WorkerId(0, 9, 9), 0, (4.0, None, ()), 4.5, ValueError("gone"))
    (lane,) = merge(Arm.named("procs", 1), 0.0, 10.0, 1, [death, far] if early else [far, death], {}).lanes
    assert (lane.worker.host, lane.worker.takes_items) == ("far", False)
    assert lane.worker.pid == (1 if early else 9)
    (unseen,) = merge(Arm.named("procs", 1), 0.0, 10.0, 1, [death], {}).lanes
    assert unseen.worker == death.worker


def test_the_first_error_is_the_first_on_our_clock():
    """An error that came later on ours came earlier on the other machine's own clock: it is not the one that is raised."""
    late, soon = (Batch(item, doubles(at), doubles(at + 1.0), [None], {item: ValueError(name)}) for item, at, name in ((0, 5.0, "late"), (1, 1001.0, "soon")))
    parts = [Recording(WorkerId(0, 1, 1), batches=(late,)), Recording(WorkerId(1, 2, 2, host="far"), batches=(soon,), clock=FAR)]
    assert str(merge(Arm.named("procs", 2), 0.0, 10.0, 2, parts, {}).error) == "soon"


def test_samples_from_here_and_there():
    """What the worker's own machine saw and what we saw is one row of samples, in time order."""
    far = Recording(WorkerId(0, 1, 1), samples=Samples(doubles(1001.0, 1003.0), array("b", [1, 2])), clock=FAR)
    (lane,) = merge(Arm.named("procs", 1), 0.0, 10.0, 0, [far], {0: Samples(doubles(4.0), array("b", [3]))}).lanes
    assert (lane.samples.at.tolist(), lane.samples.states.tolist()) == ([1.0, 3.0, 4.0], [1, 2, 3])


def test_a_file_names_no_machine():
    """What a file may hold tells machines apart, in all arms alike, and not what they are called."""
    parts = [recording(0), recording(1, zero=1000.5, host="far", clock=FAR), recording(2)]
    arms = [merge(Arm.named("procs", len(some)), 0.0, 10.0, 3, some, {}) for some in (parts, parts[1:])]
    saved = Study(arms, {}, []).saved
    assert [[lane.worker.host for lane in arm.lanes] for arm in saved.timelines] == [["host 0", "host 1", "host 0"], ["host 1", "host 0"]]
