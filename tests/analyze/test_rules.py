"""Rules over hand-written arms: when each holds, the figures that it looked at, and its words."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from parmagic.analyze import helpers, rules
from parmagic.model.finding import Finding, notes_of, rough, told
from parmagic.model.helpers import Helpers
from parmagic.model.kinds import MEASURED
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


def helped(monkeypatch, arm, cores, *threads):
    """Return what is found about threads of libraries that an arm had beside it, and so many cores."""
    monkeypatch.setattr(helpers, "available_cpus", lambda: cores)
    return [*helpers.helpers(replace(arm, helpers=threads))]


@pytest.mark.parametrize(
    ("cpu_s", "queue_s", "cores", "holds"),
    [(0.4, 9.0, 1, False), (6.0, 0.0, 1, True), (5.0, 1.0, 3, True), (5.0, 1.0, 4, False), (2.0, 0.0, 2, False), (6.0, 0.0, 8, False)],
)
def test_helper_threads_compete(monkeypatch, cpu_s, queue_s, cores, holds):
    """They are named where they used much beside the workers, and all of them together wanted more cores than there are."""
    found = helped(monkeypatch, ARM, cores, Helpers("polars", cpu_s, queue_s))
    share = cpu_s / (2 + cpu_s)
    assert [each.evidence for each in found] == [{"share": share, "cores_wanted": 4.0, "cores": cores, "polars_cpu_s": cpu_s}] * holds
    words = f"of polars used {share:.0%} of the CPU time of threads=2: together with its workers they wanted 4.0 cores on average"
    assert all(words in each.text and "Set POLARS_MAX_THREADS to 1 before" in each.text for each in found)


def test_what_workers_queued_for(monkeypatch):
    """It counts as wanted, from an account or from clocks; what is not known does not."""
    for seconds, wanted in ((3.0, 5.5), (math.nan, 4.0)):
        clocks = Clocks(array("d", [0.0, 2.0]), array("d", [0.0, 1.0]), array("d", [1.0, 1.0 + seconds]))
        row = [0.0] * len(MEASURED)
        tally = Tally(array("d", [0.0, *row, 2.0, *(seconds if state == "cpu_wait" else 0.0 for state in MEASURED)]))
        for other in (replace(lane(1), clocks=clocks), replace(lane(1), tally=tally)):
            (found,) = helped(monkeypatch, replace(ARM, lanes=(lane(0), other)), 1, Helpers("polars", 6.0))
            assert found.evidence["cores_wanted"] == wanted


def test_threads_that_nobody_knows(monkeypatch):
    """What threads used that had ended is no library's, and gets no note."""
    assert not helped(monkeypatch, ARM, 1, Helpers("", 60.0))


@pytest.mark.parametrize(
    ("library", "threads", "processes"),
    [
        ("OpenBLAS", "threadpool_limits(1) before the run (not in the body", "OPENBLAS_NUM_THREADS to 1 before the library is imported, or call threadpoolctl.threadpool_limits(1) in the body."),
        ("MKL", "MKL_NUM_THREADS", "threadpool_limits(1) in the body"),
        ("OpenMP", "Set OMP_NUM_THREADS to 1 before the library is imported.", "threadpool_limits(1) in the body"),
        ("numexpr", "Call numexpr.set_num_threads(1) before the run", "Call numexpr.set_num_threads(1) in the body."),
        ("torch", "Call torch.set_num_threads(1) before the run", "Call torch.set_num_threads(1) in the body."),
        ("Arrow", "or pass use_threads=False.", "Call pyarrow.set_cpu_count(1) in the body, or pass use_threads=False."),
        ("libfaiss", "Where libfaiss has a setting for its number of threads, set it to 1.", "Where libfaiss has a setting"),
    ],
)
def test_each_library_has_its_advice(monkeypatch, library, threads, processes):
    """It is the library's own; what holds for a whole process is not to be called by workers that share one."""
    for arm, words in ((ARM, threads), (replace(ARM, arm=Arm.named("procs", 2)), processes)):
        (found,) = helped(monkeypatch, arm, 1, Helpers(library, 6.0))
        assert words in found.text, found.text
        assert ("in the body" in found.text.replace("not in the body", "")) == (arm is not ARM and "(1) in" in processes)


def test_several_libraries(monkeypatch):
    """Those that used much are named, with the advice for each."""
    (found,) = helped(monkeypatch, ARM, 1, Helpers("OpenMP", 4.0), Helpers("polars", 2.0), Helpers("libzmq", 0.5))
    assert "threads of OpenMP and polars used 76% of" in found.text
    assert found.text.index("OMP_NUM_THREADS") < found.text.index("POLARS_MAX_THREADS")
    assert "libzmq" not in found.text


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
