"""Rules about what other programs, other machines and limits took, on hand-written loads."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from parmagic.analyze import loads
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Clocks, Samples, WorkerId
from parmagic.model.timeline import Baseline, Lane, Timeline

QUIET = Load(2, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0)


def lane(rank, queued):
    """Return a worker that stood in the run queue for so many seconds."""
    clocks = Clocks(array("d", [0.0, 2.0]), array("d", [0.0, 1.0]), array("d", [5.0, 5.0 + queued]))
    return Lane(WorkerId(rank, 1, rank), (), (), clocks, Samples(array("d"), array("b")), None)


def arm(model="procs", count=2, *, cpu_s=2.0, queued=0.0, **load):
    """Return an arm of 2 s, whose workers used the CPU for so many seconds, and each waited for a core for `queued`."""
    lanes = tuple(lane(rank, queued) for rank in range(count))
    return Timeline(Arm.named(model, count), 0.0, 2.0, count, lanes, cpu_s=cpu_s, load=replace(QUIET, **load))


def rules(timeline):
    """Return the rules that hold for an arm."""
    return [finding.rule for finding in loads.of_arm(timeline)]


@pytest.mark.parametrize(
    ("timeline", "holds"),
    [
        (arm(cpu_s=4.0), False),
        (arm(cpu_s=2.6, queued=0.7, others_cores=0.7), True),  # three tasks on two cores
        (arm(cpu_s=2.0, queued=1.0, others_cores=1.0), True),
        (arm(cpu_s=2.0, queued=1.0, others_cores=0.4), False),  # too little to be worth a word
        (arm(cpu_s=0.1, queued=0.0, others_cores=1.9), False),  # it slept, and missed nothing
        (arm(count=1, cpu_s=2.0, others_cores=1.0), False),  # one worker, one core each
        (arm("threads", cpu_s=2.0, others_cores=1.0), False),  # one GIL, one core each
        (arm("threads", cpu_s=1.3, queued=0.1, others_cores=1.33), True),  # the one that held it waited for a core
        (arm("threads", cpu_s=1.3, others_cores=0.6), False),  # a core was idle
        (arm(cpu_s=2.0, queued=1.0, others_cores=math.nan), False),
    ],
)
def test_other_programs(timeline, holds):
    """They are named where they took cores that the workers wanted, and only there."""
    assert ("crowded" in rules(timeline)) is holds


def test_words_of_a_crowd():
    """The note names the arm, the cores and how many there are."""
    (finding,) = loads.of_arm(arm(cpu_s=2.0, queued=1.0, others_cores=1.42))
    assert finding.text == "procs=2: other programs took 1.4 of 2 cores meanwhile, so its figures are too low."
    assert finding.evidence == {"others_cores": 1.42, "cpus": 2}


@pytest.mark.parametrize(("count", "throttled_s", "share"), [(2, 3.0, 0.75), (8, 3.0, 0.75), (1, 1.0, 0.5), (1, 9.0, 1.0), (2, 0.1, None)])
def test_a_quota(count, throttled_s, share):
    """Each worker that can run at once was held back for its part of what the kernel adds up over CPUs."""
    found = [each for each in loads.of_arm(arm(count=count, throttled_s=throttled_s, quota=0.5)) if each.rule == "throttled"]
    assert [each.evidence["share"] for each in found] == ([] if share is None else [share])


@pytest.mark.parametrize(("steal", "others", "words"), [(0.4, 1.4, "Other programs took 1.4"), (0.9, 0.6, "The hypervisor gave 0.9")])
def test_who_took_more_is_said_first(steal, others, words):
    """Of other programs and of other machines."""
    found = loads.of_arm(arm(cpu_s=2.0, queued=2.0, others_cores=others, steal_cores=steal))
    assert {each.rule for each in found} == {"stolen", "crowded"}
    assert loads.first("procs=2", found).startswith(words)


def test_other_limits():
    """A hypervisor, memory and slow clocks have their rules; what is not known has none."""
    assert rules(arm(steal_cores=0.5)) == ["stolen"]
    assert rules(arm(steal_cores=0.5, cpu_s=0.1)) == []  # who waits is not held up
    assert rules(arm(memory_share=0.3, swapped_mb=120.0)) == ["short_of_memory"]
    assert "120 MB went to swap" in loads.of_arm(arm(memory_share=0.3, swapped_mb=120.0))[0].text
    assert rules(arm(clock_ghz=1.2, top_ghz=3.5)) == ["slow_clock"]
    assert rules(arm(clock_ghz=1.2, top_ghz=3.5, cpu_s=0.1)) == []  # who waits lets them be slow
    assert rules(arm()) == rules(replace(arm(), load=None)) == rules(replace(arm(), load=Load(2))) == []


def test_unlike_loads_of_who_needs_no_core():
    """Where others had cores that an arm had no use for, its speedup may be as it is: no verdict begins with that."""
    baseline = Baseline(4.0, "measured", load=QUIET)
    (slept,), (computed,) = (loads.unlike(arm(cpu_s=cpu_s, others_cores=1.0), baseline) for cpu_s in (0.1, 3.0))
    assert "its speedup may be too low" in slept.text
    assert "its speedup is too low" in computed.text
    assert loads.first("procs=2", [slept]) == ""
    assert loads.first("procs=2", [computed]).startswith("Other programs took 0.0 of 2 cores during the serial run and 1.0 during procs=2")


@pytest.mark.parametrize(("serial", "mine", "way"), [(1.2, 0.3, "high"), (0.0, 0.6, "low"), (0.4, 0.0, None), (math.nan, 1.9, None)])
def test_unlike_loads(serial, mine, way):
    """An arm and its serial run that met loads which differ by more than a quarter of the CPUs are not compared in silence."""
    baseline = Baseline(4.0, "measured", load=replace(QUIET, others_cores=serial))
    found = [*loads.unlike(arm(others_cores=mine), baseline)]
    assert [each.text.rpartition(" ")[2] for each in found] == ([f"{way}."] if way else [])
    assert [*loads.unlike(arm(others_cores=mine), Baseline(4.0, "measured"))] == []
