"""What travels between processes comes back equal."""

import copy
import pickle
from array import array
from dataclasses import dataclass, fields

import pytest

from parmagic.model import recording
from parmagic.model.plan import Arm, Plan
from parmagic.model.sent import sent
from parmagic.model.traits import PROCS

ME = recording.WorkerId(3, 41, 42, 7)
BATCH = recording.Batch(5, array("d", [1.0]), array("d", [2.0]), ["x"], {})
TRACE = recording.TraceFile("", 41, ((0.0, 0.0), (1.0, 1.0)), {42: 3}, (), 0.0, ("note",), b"data")


@sent
@dataclass(frozen=True, slots=True)
class Alone:
    """One field only."""

    it: tuple[int, ...]


@pytest.mark.parametrize(
    "what",
    [
        ME,
        recording.Span("startup", 0.0, 1.0),
        BATCH,
        recording.Tally(array("d", [1.0])),
        recording.Waits(b"events", 3),
        TRACE,
        recording.Recording(ME, batches=(BATCH,), trace=TRACE, notes=("note",), noted=True),
        Arm(PROCS, 2),
        Plan((Arm(PROCS, 2),)),
        Alone((1, 2)),
        Alone(()),
    ],
)
def test_it_comes_back_equal(what):
    """Every field does, by pickle and by copy."""
    for back in (pickle.loads(pickle.dumps(what)), copy.deepcopy(what), copy.copy(what)):
        assert type(back) is type(what)
        assert [getattr(back, field.name) for field in fields(what)] == [getattr(what, field.name) for field in fields(what)]
