"""Rules over hand-written arms: when each holds, the figures that it looked at, and its words."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from parmagic.analyze import rules
from parmagic.model.finding import Finding, notes_of, rough, told
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, Tally, TraceFile, Usage, WorkerId
from parmagic.model.timeline import Lane, Timeline

NOTHING = array("d")
NOT_LOOKED = Samples(NOTHING, array("b"))


def lane(rank=0, cpu_s=1.0, errors=None):
    """Return a worker that used some CPU and ran two items of a second each."""
    batch = Batch(2 * rank, array("d", [0.0, 1.0]), array("d", [1.0, 2.0]), [None, None], errors or {})
    usage = Usage(cpu_s, math.nan, 0, 0, 1.0)
    return Lane(WorkerId(rank, 1, 1), (), (batch,), Clocks(NOTHING, NOTHING, NOTHING), NOT_LOOKED, usage)


ARM = Timeline(Arm.named("threads", 2), 0.0, 2.0, 4, (lane(0), lane(1)))


def traced(seconds):
    """Return the arm, made that much longer by tracing."""
    return replace(ARM, traces=(TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {}, overhead_s=seconds),))


@pytest.mark.parametrize(
    ("items", "words"), [([7], "disagree on item 7:"), ([1, 2], "2 items (1, 2)"), (list(range(9)), "9 items (0, 1, 2, 3, 4, …)")]
)
def test_results_that_differ(items, words):
    """One item is named, several are counted and the first five named."""
    finding = rules.differ(items, ARM)
    assert words in finding.text
    assert "threads=2" in finding.text
    assert "race" in finding.text
    assert (finding.rule, finding.arm, finding.severity, finding.evidence) == ("differ", "threads=2", "warning", {"items": len(items), "of": 4})


@pytest.mark.parametrize(("seconds", "holds"), [(0.1, False), (0.12, True)])
def test_tracing_that_bends_figures(seconds, holds):
    """From more than 5 % of an arm's wall time on there is a finding, and its speedup is shown as rough: one rule for both."""
    found = [*rules.slowed(traced(seconds), in_windows=True)]
    assert [(each.rule, each.evidence["traced_s"]) for each in found] == [("slowed", seconds)] * holds
    assert all("about 6% longer (short runs pay up to 50 ms for it): its times" in each.text for each in found)
    assert rough({"threads=2": "measured"}, found) == ({"threads=2"} if holds else set())


@pytest.mark.parametrize(
    ("gaps", "where"),
    [
        ((), []), (((2.5, 3.0),), []), (((0.5, 0.75), (1.75, 9.0)), [(0.5, 0.75), (1.75, 2.0)]), (((0.5, 0.75), (0.752, 0.8)), [(0.5, 0.8)]),
    ],
)  # fmt: skip
def test_functions_are_missing_where_items_ran_without_a_record(gaps, where):
    """A stretch in which no item ran has none to miss: there is no note. Those of a worker's own process count alone."""
    arm = replace(ARM, traces=(TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {7: 0}, gaps),))
    assert arm.gaps(arm.lanes[0]) == where
    assert arm.gaps(arm.lanes[1]) == []
    assert [each.rule for each in rules.of_arm(arm)] == ["cut_calls"] * bool(where)


def test_tracing_all_of_the_time_needs_no_excuse():
    """Where tracing was on all of the time, the sentence does not speak of windows."""
    (finding,) = rules.slowed(traced(1.0), in_windows=False)
    assert "about 50% longer: its times" in finding.text


def test_a_baseline_that_was_not_measured_is_rough():
    """A speedup against a scaled or an estimated baseline is rough, and so is that of a loop that broke; no other arm's is."""
    assert rough({"a": "measured", "b": "sampled", "c": "estimated"}, []) == {"b", "c"}
    assert rough({"a": "measured", "b": "measured"}, [Finding("broke", "Item 3 broke the loop.", "a"), Finding("lost_waits", "Some.", "b")]) == {"a"}


def test_items_that_failed():
    """They are counted, the first five named, and the first one's type told; without any there is no finding."""
    errors = {0: ValueError("x"), 1: KeyError(1)}
    (finding,) = rules.failed(replace(ARM, lanes=(lane(0, errors=errors), lane(1))))
    assert finding.text == "2 of 4 items of threads=2 failed (item 0, 1; ValueError); run.items['error'] tells how."
    assert (finding.severity, finding.evidence) == ("error", {"items": 2, "of": 4})
    assert [*rules.failed(ARM)] == []


@pytest.mark.parametrize(("cpu_s", "cores", "holds"), [(2.4, 1, False), (8.0, 1, True), (8.0, 8, False), (math.nan, 1, False)])
def test_helper_threads_compete(monkeypatch, cpu_s, cores, holds):
    """They are named where they used much beside the workers, and want more cores than there are; an unknown figure finds nothing."""
    monkeypatch.setattr(rules, "available_cpus", lambda: cores)
    found = [*rules.helpers(replace(ARM, cpu_s=cpu_s))]
    assert [each.evidence for each in found] == [{"share": 0.75, "cores_wanted": 8.0, "cores": 1}] * holds
    assert all("used 75% of the CPU time of threads=2: its workers and their helpers could use 8.0 cores" in each.text for each in found)


def test_prints_that_are_not_shown():
    """Each worker's flood has a finding, by rank; none where all is shown."""
    found = [*rules.cut_prints("procs=2", {1: 2_500_000, 0: 0})]
    assert [each.text for each in found] == ["Worker 1 of procs=2 printed 2.5 MB more than is shown under the cell."]
    assert found[0].evidence == {"rank": 1, "bytes": 2_500_000}


SEEN = Samples(array("d", [1.0]), array("b", [0]))


@pytest.mark.parametrize(
    ("arm", "samples", "seconds", "holds"),
    [
        (ARM, [NOT_LOOKED], 1.0, True),
        (ARM, [NOT_LOOKED, SEEN], 1.0, False),
        (ARM, [], 0.05, False),
        (replace(ARM, lanes=(replace(lane(), tally=Tally(NOTHING)),)), [], 1.0, False),
    ],
    ids=["not seen", "seen once", "too short", "measured"],
)
def test_waits_that_nobody_saw(arm, samples, seconds, holds):
    """Only an arm whose waits would be inferred, that ran for more than 50 ms and has no sample at all, says so, and why."""
    may, may_not = ([*rules.not_seen(arm, samples, seconds, can_look=can)] for can in (True, False))
    assert [each.text.rpartition(": ")[2] for each in may] == ["the sampler was not ready, or may not look. Run the cell again."] * holds
    assert [each.text.rpartition(": ")[2] for each in may_not] == ["this system does not show it."] * holds


def test_notes_are_findings_in_words():
    """They keep their order, and what is found twice is said once."""
    found = [Finding("a", "first", "threads=2", "warning"), *told(["second", "first"], "worker", "procs=2")]
    assert notes_of(found) == ["first", "second"]
    assert found[1] == Finding("worker", "second", "procs=2", "info")
