"""What cannot be, on hand-written accounts."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from parmagic.analyze import laws
from parmagic.model.kinds import MEASURED
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, Tally, WorkerId
from parmagic.model.timeline import Baseline, Lane, Timeline

NOTHING = array("d")


def arm(model, *accounts, wall_s=2.0, measured=True, gil=True, **more):
    """Return an arm whose workers' accounts say for how many seconds each was in which states."""
    lanes = tuple(_lane(rank, account, measured) for rank, account in enumerate(accounts))
    return Timeline(Arm.named(model, len(accounts)), 0.0, wall_s, len(accounts), lanes, gil=gil, **more)


def _lane(rank, account, measured):
    rows = array("d", [0.0, *(7.0 for _ in MEASURED), 2.0, *(7.0 + account.get(state, 0.0) for state in MEASURED)])
    batch = Batch(rank, array("d", [0.0]), array("d", [2.0]), [None])
    return Lane(WorkerId(rank, 1, rank), (), (batch,), Clocks(NOTHING, NOTHING, NOTHING), Samples(NOTHING, array("b")), None, Tally(rows) if measured else None)


PYTHON = {"running": 1.0, "gil_wait": 1.0}
MIXED = {"running": 0.5, "native": 1.0, "gil_wait": 0.5}


@pytest.mark.parametrize(
    ("timeline", "most"),
    [
        (arm("threads", PYTHON, PYTHON), 1.0),
        (arm("threads", *[PYTHON] * 4), 1.0),
        (arm("threads", {"sleep": 2.0}, {"sleep": 2.0}), 2.0),
        (arm("threads", *[MIXED] * 4), 3.0),  # six seconds of work, two of which hold the GIL
        (arm("threads", *[{"running": 0.1, "native": 1.9}] * 2), 2.0),
        (arm("threads", *[{"running": 0.5, "gil_wait": 0.5, "lock_wait": 1.0}] * 2), 2.0),  # it may wait for a timer
        (arm("threads", PYTHON, PYTHON, gil=False), 2.0),
        (arm("threads", PYTHON, PYTHON, measured=False), 2.0),  # running may be native there
        (arm("procs", PYTHON, PYTHON, PYTHON), 3.0),
        (arm("procs", *[{"running": 1.0, "cpu_wait": 1.0}] * 4, load=Load(2)), 2.0),
        (arm("procs", *[{"running": 0.1, "sleep": 1.9}] * 4, load=Load(2)), 4.0),
        (arm("threads", *[{"running": 0.1, "native": 0.9}] * 4, load=Load(2)), 2.0),
    ],
)
def test_bounds(timeline, most):
    """One GIL lets Python code run one after another; else there are as many at once as there are workers."""
    assert laws.bound(timeline) == pytest.approx(most)


@pytest.mark.parametrize(
    ("timeline", "serial_s", "most"),
    [
        (arm("threads", PYTHON, PYTHON), 2.1, None),
        (arm("threads", PYTHON, PYTHON), 2.39, None),
        (arm("threads", PYTHON, PYTHON), 2.41, 1.0),
        (arm("procs", PYTHON, PYTHON), 4.59, None),
        (arm("procs", PYTHON, PYTHON), 4.61, 2.0),
        (arm("serial", {"running": 2.0}), 9.0, None),
        (arm("procs", PYTHON, PYTHON, wall_s=0.01), 0.2, None),  # too short to judge
        (arm("procs", PYTHON, PYTHON), None, None),
    ],
)
def test_beyond_the_bound(timeline, serial_s, most):
    """A speedup beyond what can be, by more than two runs differ, is said to be so."""
    found = [*laws.beyond(timeline, Baseline(serial_s, "measured"))]
    assert [each.evidence["most"] for each in found] == ([] if most is None else [most])


def test_words():
    """The note has both figures, whose law it is, and what is known of the reason."""
    (found,) = laws.beyond(arm("threads", PYTHON, PYTHON), Baseline(2.8, "measured"))
    assert found.text.startswith("threads=2 seems to be 1.40× as fast as the serial run, and Python code under one GIL can be 1.00× at most: ")
    assert "(caches, imports, files read before)" in found.text
    (found,) = laws.beyond(arm("procs", PYTHON, PYTHON), Baseline(5.0, "measured"))
    assert "and 2 processes can be 2.00× at most: " in found.text
    busy = Baseline(5.0, "measured", load=Load(2, math.inf, 1.3))
    (found,) = laws.beyond(arm("procs", PYTHON, PYTHON, load=Load(2, math.inf, 0.1)), busy)
    assert "others hindered the serial run (they took 1.3 cores then, and 0.1 during the arm)" in found.text


@pytest.mark.parametrize(("cpu_s", "holds"), [(4.0, False), (4.24, False), (4.4, True), (math.nan, False)])
def test_more_cores_than_there_are(cpu_s, holds):
    """CPU time that the CPUs do not have is said to be of another time."""
    timeline = arm("procs", PYTHON, PYTHON, cpu_s=cpu_s, load=Load(2))
    found = [*laws.too_many_cores(timeline)]
    assert bool(found) is holds
    assert [*laws.too_many_cores(replace(timeline, load=None))] == []
    assert all(each.text.startswith("cores_used of procs=2 is 2.20, and this process may use 2 CPUs: ") for each in found)
