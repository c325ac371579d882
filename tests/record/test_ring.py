"""How many calls VizTracer's ring has lost: counted, and said."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import pytest

import parmagic
from parmagic.analyze import rules
from parmagic.model.plan import Arm
from parmagic.model.recording import TraceFile
from parmagic.model.timeline import Timeline
from parmagic.record import profiler, tracing
from parmagic.record.profiler import Profiler
from parmagic.record.ring import Count, Ring
from parmagic.system.files import Folder

KEPT = 1000
_kept_alive: dict[int, Profiler] = {}


def _use(monkeypatch, entries):
    """Record by a tracer whose ring has room for so many entries; it lives on, as freeing one corrupts memory."""
    if entries not in _kept_alive:
        _kept_alive[entries] = Profiler(entries)
    monkeypatch.setattr(profiler, "_profiler", _kept_alive[entries])


@pytest.fixture
def small(monkeypatch):
    """A ring with room for 1,000 entries."""
    _use(monkeypatch, KEPT)


@pytest.fixture
def roomier(monkeypatch):
    """A ring with room for what we call ourselves in an arm: from Python 3.12 on the notebook's thread is recorded, too."""
    _use(monkeypatch, 4 * KEPT)


def test_a_tracer_without_a_ring_lives_on(monkeypatch):
    """Where the ring cannot be made, the tracer that it was for is not freed all the same: that corrupts memory."""
    seen = []

    def no_ring(tracer, entries):
        seen.append(weakref.ref(tracer))
        raise MemoryError(entries)

    monkeypatch.setattr(profiler, "Ring", no_ring)
    with pytest.raises(MemoryError):
        Profiler(KEPT)
    gc.collect()
    assert seen[0]() is not None


def test_count_goes_round():
    """Places of a ring of 9 entries, one place kept free, add up over its end; a mark that lives proves that no round was missed."""
    count = Count(entries=9, place=7)
    for place in (7, 9, 4, 3):
        count.add(place, overwritten=False, in_doubt=False)
    assert (count.taken, count.exact) == (2 + 5 + 9, True)


def test_count_is_a_lower_bound_where_a_round_was_missed():
    """A mark that was overwritten means 10 entries since it was set; what came may be more by whole rounds, and is said to be."""
    at_once = Count(entries=9, place=0)
    at_once.add(4, overwritten=True, in_doubt=True)
    assert (at_once.taken, at_once.exact) == (14, False)
    of_age = Count(entries=9, place=0)
    of_age.add(3, overwritten=False, in_doubt=False)
    of_age.add(1, overwritten=True, in_doubt=True)  # 8, or 18: the mark is 3 older than the last look
    assert (of_age.taken, of_age.exact) == (11, False)
    meanwhile = Count(entries=9, place=0)
    meanwhile.add(8, overwritten=False, in_doubt=True)
    assert (meanwhile.taken, meanwhile.exact) == (8, False)


def record(tmp_path, times, looks):
    """Call a function as often in each of so many rounds, looking at the ring after each; return the recording and its events."""

    def called():
        pass

    recorded = tracing.prepare("full")
    recorded.start()
    try:
        recorded.controller.end()  # it looks from a thread of its own, whenever it gets there
        recorded.attach(0)
        recorded.refresh()
        for _ in range(looks):
            for _ in range(times):
                called()
            if looks > 1:
                recorded.ring.look()
        recorded.detach()
        file = recorded.finish(Folder(str(tmp_path)).file("0-0.json"))
    finally:
        recorded.end()
    data = file.data or Path(file.path).read_bytes()
    return file, data.count(b'"ph":"X"'), len(re.findall(rb'"name":"[^"(]*called \(', data))


@pytest.mark.usefixtures("small")
def test_what_falls_out_is_counted_exactly(tmp_path):
    """What was recorded and what was lost are together what was called, over several rounds of the ring."""
    _, every, called = record(tmp_path, 10, 20)
    own = every - called
    file, every, _ = record(tmp_path, 430, 20)
    assert file.lost_exactly
    assert KEPT - 40 < every <= KEPT  # marks take a place, too
    assert file.lost + every == pytest.approx(20 * 430 + own, abs=60)  # setting a mark are some calls of our own
    assert file.overhead_s == pytest.approx((file.lost + every) * profiler.call_cost())


@pytest.mark.usefixtures("small")
def test_nothing_is_lost_of_a_ring_that_has_room(tmp_path):
    """A recording that fits has nothing lost, and is complete from its beginning."""
    file, _, called = record(tmp_path, 500, 1)
    assert called == 500
    assert (file.lost, file.lost_exactly, file.since) == (0, True, None)


@pytest.mark.usefixtures("small")
def test_too_few_looks_make_a_lower_bound(tmp_path):
    """Where more than a round passes between two looks, no more is claimed than what is sure."""
    file, _, called = record(tmp_path, 2150, 1)
    assert not file.lost_exactly
    assert 0 < file.lost <= 2150 - called + 60


@pytest.mark.usefixtures("small")
def test_a_tracer_that_looks_different(tmp_path, monkeypatch):
    """Where the ring's place is not to be found, VizTracer's own word that there was more is all that is known."""
    monkeypatch.setattr(profiler.get(), "ring", Ring(profiler.get()._tracer, KEPT - 1))
    file, *_ = record(tmp_path, 1200, 1)
    assert file.lost != file.lost
    assert "nobody knows how many lost" in rules.of_arm(Timeline(Arm.named("threads", 1), 0.0, 1.0, 1, (), (file,)))[0].text
    assert record(tmp_path, 10, 1)[0].lost == 0


def called():
    """Do nothing."""


def body(times):
    """Call a function as often."""
    for _ in range(times):
        called()


def oldest(run):
    """Return what the notes say of lost calls: who, how many, and from when on nothing is missing."""
    notes = [note for note in run.notes if "oldest function calls" in note]
    return re.findall(r"(workers? [\d, ]+): ((?:at least )?)([\d,]+) lost, complete from (\d+\.\d{3}) s", notes[0]) if notes else []


@pytest.mark.usefixtures("roomier")
@pytest.mark.parametrize("trace", ["full", "auto"])
def test_threads_share_a_ring(trace):
    """Workers are named together, and the timeline begins where the note says; so it is with windows. A ring that fills at once has a bound."""
    run = parmagic.run(body, [3 * KEPT] * 3, "threads=2", once=True, trace=trace)
    (timeline,) = run._study.timelines
    ((who, least, lost, since),) = oldest(run)
    assert (who, least) == ("workers 0, 1", "at least ")
    ((_, found),) = run._study.functions()
    kept = sum(name.startswith("called ") for calls in found for _, _, name in calls)
    assert 0 < int(lost.replace(",", "")) < 9 * KEPT - kept + 2 * KEPT  # and our own, before the first item
    assert min(calls.ends.min() for calls in found if len(calls)) == pytest.approx(timeline.begin + float(since), abs=0.002)
    assert oldest(parmagic.run(body, [10], "threads=2", once=True, trace=trace)) == []


@pytest.mark.parametrize("models", ["threads=1", "procs=1"])
def test_a_full_ring_is_said_with_how_many(models):
    """A worker makes 1.1 million calls: 0.1 million of them, and some of ours, are said to be lost."""
    run = parmagic.run(body, [110_000] * 10, models, once=True, trace="full")
    ((who, least, lost, since),) = oldest(run)
    assert (who, least) == ("worker 0", "")
    assert 100_000 <= int(lost.replace(",", "")) < 110_000
    assert 0 < float(since) < run._study.timelines[0].end - run._study.timelines[0].begin


def test_the_note_names_each_process():
    """Every process has its own number; where it is a lower bound, the note says so."""
    anchors = ((0.0, 10.0), (1e6, 11.0))
    traces = [
        TraceFile("", 1, anchors, {7: 0}, lost=1234, since=10.25),
        TraceFile("", 2, anchors, {8: 1}, lost=5000, lost_exactly=False, since=10.5),
        TraceFile("", 3, anchors, {9: 2}),
    ]
    (finding,) = rules.of_arm(Timeline(Arm.named("procs", 3), 10.0, 11.0, 1, (), tuple(traces)))
    assert finding.text == (
        "procs=3: the oldest function calls are not in the timeline, as VizTracer keeps the last 1,000,000 of a process (worker 0: 1,234 lost, "
        "complete from 0.250 s; worker 1: at least 5,000 lost, complete from 0.500 s into the arm). Run fewer items to see all, or --trace auto "
        "to see windows."
    )
