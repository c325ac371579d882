"""Efficiency as a product: known pieces of hand-written runs, and what a real run's product comes to."""

from __future__ import annotations

import math
import zlib

import pytest
from stories import run_of

import parmagic
from parmagic.analyze.factors import FACTORS
from parmagic.model.plan import Arm
from parmagic.model.timeline import Baseline

TWO = Arm.named("procs", 2)


def factors_of(stories, serial=None, **more):
    """Return the row of one arm of these stories, against a serial run of the story ``serial``."""
    arm = Arm.named("procs", len(stories))
    study = run_of({arm: stories}, measured=True, **more)
    if serial is not None:
        alone = run_of({Arm.named("serial", 1): [serial]}, measured=True).timelines[0]
        study.baselines[arm.label] = Baseline(sum(seconds for _, seconds in serial), "measured", run=alone)
    return study.factors.loc[arm.label]


def product(row):
    """Return what the factors that are known multiply to."""
    return math.prod(row[factor] for factor in FACTORS if not math.isnan(row[factor]))


ONES = dict.fromkeys(FACTORS, 1.0)


@pytest.mark.parametrize(
    ("state", "factor"),
    [("idle", "load_balance"), ("gil_wait", "gil_wait"), ("lock_wait", "lock_wait"), ("transfer", "transfer"), ("startup", "startup"), ("cpu_wait", "no_core")],
)
def test_one_piece(state, factor):
    """Two workers of whom one loses half of its time: three quarters are left, by the factor of that state and no other."""
    lost = [("running", 1.0), (state, 1.0)] if state != "startup" else [(state, 1.0), ("running", 1.0)]
    row = factors_of([[("running", 2.0)], lost], serial_s=3.0)
    expected = {**ONES, factor: 0.75, "cpu_slowdown": math.nan, "serial_run": math.nan}
    assert {name: row[name] for name in FACTORS} == {name: pytest.approx(value, nan_ok=True) for name, value in expected.items()}
    assert row["efficiency"] == pytest.approx(0.75)
    assert row["rest"] == pytest.approx(1.0)
    assert row["biggest"] == factor


def test_pieces_are_taken_in_order():
    """Each is a share of what those before have left: of 8 s 2 s are idle, of 6 s 1.5 s wait for the GIL, of 4.5 s 0.5 s are start-up."""
    row = factors_of([[("startup", 0.5), ("running", 3.5)], [("running", 0.5), ("gil_wait", 1.5), ("idle", 2.0)]], serial_s=4.0)
    assert row["load_balance"] == pytest.approx(6 / 8)
    assert row["gil_wait"] == pytest.approx(4.5 / 6)
    assert row["startup"] == pytest.approx(4 / 4.5)
    assert product(row) == pytest.approx(row["efficiency"]) == pytest.approx(0.5)
    assert row["biggest"] == "load_balance"


def test_items_that_compute_for_longer():
    """The same items take 4 CPU seconds side by side, and 3 alone; nobody waits. That is the slowdown, to the last of its seconds."""
    row = factors_of([[("running", 2.0)], [("running", 2.0)]], [("running", 3.0), ("startup", 0.0), ("running", 3.0)])
    assert row["cpu_slowdown"] == pytest.approx(1.5)  # 6 s alone: faster side by side
    row = factors_of([[("running", 2.0)], [("running", 2.0)]], [("running", 1.5), ("startup", 0.0), ("running", 1.5)])
    assert row["cpu_slowdown"] == pytest.approx(0.75)
    assert row["biggest"] == "cpu_slowdown"
    assert row["rest"] == pytest.approx(1.0)


def test_only_what_computes_is_slowed_down():
    """Of 4 s of which 2 s sleep, twice the CPU seconds are a quarter of the time; what slept longer is the rest."""
    mine = [("running", 1.0), ("sleep", 1.0)]
    row = factors_of([mine, mine], [("running", 0.5), ("sleep", 1.0), ("startup", 0.0), ("running", 0.5), ("sleep", 1.0)])
    assert row["cpu_slowdown"] == pytest.approx(3 / 4)
    assert row["rest"] == pytest.approx(1.0)
    row = factors_of([mine, mine], [("running", 1.0), ("sleep", 0.5), ("startup", 0.0), ("running", 1.0), ("sleep", 0.5)])
    assert row["cpu_slowdown"] == pytest.approx(1.0)
    assert row["rest"] == pytest.approx(3 / 4)
    assert row["biggest"] is None


def test_what_the_serial_run_lost():
    """It needed 4 s for its items, and took 5: a second between two of them. The arm's efficiency is that much too good."""
    row = factors_of([[("running", 2.0)], [("running", 2.0)]], [("running", 2.0), ("transfer", 1.0), ("running", 2.0)])
    assert row["efficiency"] == pytest.approx(5 / 4)
    assert row["serial_run"] == pytest.approx(5 / 4)
    assert row["rest"] == pytest.approx(1.0)
    assert row["biggest"] is None


def test_what_nobody_waits_for_has_no_biggest():
    """A run that is as good as it can be names nothing."""
    row = factors_of([[("running", 1.0)], [("running", 1.0)]], serial_s=2.0)
    assert row["efficiency"] == pytest.approx(1.0)
    assert row["biggest"] is None


def test_inferred_waits():
    """Where waits are inferred, what is not known takes nothing, and is in the rest."""
    arm = Arm.named("threads", 2)
    row = run_of({arm: [[("running", 1.0), ("gil_wait", 1.0)]] * 2}, serial_s=2.0).factors.loc[arm.label]
    assert row["gil_wait"] == pytest.approx(0.5, rel=0.05)
    assert product(row) * row["rest"] == pytest.approx(row["efficiency"])


def packs(data):
    """Compute with the GIL released."""
    for _ in range(3):
        zlib.compress(data, 6)


def test_a_real_run_multiplies_back():
    """Each row's factors and rest are its efficiency; of a serial arm, and of two workers whose items are compared one by one."""
    data = bytes(range(256)) * 2000
    table = parmagic.run(packs, [data] * 12, "serial threads=2 procs=2").factors
    assert list(table.index) == ["serial", "threads=2", "procs=2"]
    for _, row in table.iterrows():
        assert product(row) * row["rest"] == pytest.approx(row["efficiency"])
        assert row["cpu_slowdown"] > 0
    assert table.loc["serial", "cpu_slowdown"] == pytest.approx(1.0)


def test_nothing_ran():
    """A run without items has a table without figures, and no error."""
    table = parmagic.run(packs, [], "threads=2").factors
    assert list(table.columns) == ["efficiency", *FACTORS, "rest", "biggest"]
