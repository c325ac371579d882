"""The verdict on hand-written tables: each reason, each advice, and when to say nothing."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from parmagic.analyze.verdict import Tables, reasons, verdict
from parmagic.model import traits
from parmagic.model.kinds import WORKER_STATES


def _tables(*arms, measured=False):
    """Each arm: (model, count, speedup, and what differs: states' shares, `gil_wait_share`, `baseline`, `waits`)."""
    summary, workers, waits = {}, {}, []
    for model, count, speedup, more in arms:
        label = f"{model}={count}"
        summary[label] = {
            "model": model, "n_workers": count, "n_items": more.get("n_items", 100), "wall_s": 2.0, "speedup": speedup, "efficiency": speedup / count,
            "serial_s": more.get("serial_s", 2.0 * speedup), "trace_overhead": more.get("trace_overhead", 0.0),
            "baseline": more.get("baseline", "measured"), "gil_wait_share": more.get("gil_wait_share", 0.0),
        }  # fmt: skip
        waits += [(label, *row) for row in more.get("waits", ())]
        for rank in range(count):
            workers[label, rank] = {**{f"{s}_s": 2.0 * more.get(s, 0.0) for s in WORKER_STATES}, "wall_s": 2.0, "measured": measured}
    models = {f"{model}={count}": traits.of(model) for model, count, *_ in arms}
    table = pd.DataFrame(waits, columns=["arm", "rank", "kind", "object", "line", "total_s"]).set_index(["arm", "rank"])
    return Tables(pd.DataFrame.from_dict(summary, orient="index"), pd.DataFrame.from_dict(workers, orient="index"), table, models)


def _verdict(*arms, measured=False):
    """Return the sentence on these arms."""
    return verdict(_tables(*arms, measured=measured), None).text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("startup", "starting workers took 60%"),
        ("transfer", "moving items and results took 60%"),
        ("lock_wait", "spent ~60% of the time waiting for locks"),
        ("cpu_wait", "spent 60% of the time waiting for a core"),
        ("idle", "had nothing to do for 60% of the time"),
    ],
)
def test_each_reason_has_its_words(state, words):
    """What took most of the time that was not work is named with its share; inferred shares have a tilde."""
    text = _verdict(("procs", 2, 0.9, {state: 0.6, "running": 0.4}))
    assert text.startswith("No gain: procs=2 is the best at 0.90×")
    assert words in text


def test_measured_shares_have_no_tilde():
    """Where waits were recorded by hooks there is no tilde."""
    assert "spent 60% of the time waiting for locks" in _verdict(("threads", 2, 0.9, {"lock_wait": 0.6}), measured=True)


def test_the_lock_is_named():
    """Where one thing with a name was most of what was waited for, the sentence has its name and line."""
    waits = [(0, "lock", "guard", 3, 0.6), (1, "lock", "guard", 3, 0.5), (1, "lock", "guard", 9, 0.2), (1, "queue", "q", 4, 0.4)]
    assert "60% of the time waiting for the lock `guard` (line 3)" in _verdict(("threads", 2, 0.9, {"lock_wait": 0.6, "waits": waits}), measured=True)
    waits = [(0, "lock", "guard", 3, 0.5), (1, "lock", "0x7f00", 3, 0.7)]
    assert "waiting for locks or queues" in _verdict(("threads", 2, 0.9, {"lock_wait": 0.6, "waits": waits}), measured=True)


def test_small_shares_are_no_reason():
    """A tenth of the time is not worth a word."""
    assert _verdict(("procs", 2, 1.0, {"idle": 0.1})) == "No gain: procs=2 is the best at 1.00× of the serial speed."


def test_what_is_not_known_is_no_reason():
    """Shares that are NaN neither win nor break the sentence."""
    nan = math.nan
    text = _verdict(("threads", 2, 0.9, {"lock_wait": nan, "gil_wait_share": nan, "cpu_wait": 0.5}))
    assert "waiting for a core" in text
    assert "nan" not in text


def test_a_weak_gain_says_why():
    """Four workers for twice the speed deserve the reason; two workers for 1.9 do not."""
    assert "though its workers had nothing to do for 40%" in _verdict(("procs", 4, 2.0, {"idle": 0.4}))
    assert _verdict(("procs", 2, 1.9, {"idle": 0.3})) == "Use procs=2: 1.90× of the serial speed."


def test_inferred_speedup_has_a_tilde():
    """A speedup against a sampled or estimated baseline is marked."""
    assert _verdict(("procs", 2, 1.9, {"baseline": "sampled"})) == "Use procs=2: ~1.90× of the serial speed."


def test_the_fastest_arm_wins():
    """The best of several arms is named; those that gain as well need no word."""
    assert _verdict(("threads", 2, 1.5, {}), ("procs", 2, 1.9, {})) == "Use procs=2: 1.90× of the serial speed."


@pytest.mark.parametrize(
    ("arm", "advice"),
    [
        (("threads", 2, 0.9, {"gil_wait_share": 0.5}), "Try procs=2."),
        (("procs", 2, 0.5, {"transfer": 0.5}), "Give each item more work, or stay serial."),
        (("threads", 2, 0.9, {"lock_wait": 0.5}), "Hold the lock for less of the body."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "object", "shared", 3, 0.9)]}), "Give each worker one of its own."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "queue", "jobs", 3, 0.9)]}), "waiting for the queue `jobs` (line 3)."),
    ],
)
def test_advice(arm, advice):
    """Where there is no gain, the sentence ends with what to do."""
    assert _verdict(arm).endswith(advice)


def test_processes_are_not_advised_twice():
    """Who has tried processes already is not told to."""
    assert "Try procs" not in _verdict(("threads", 2, 0.95, {"gil_wait_share": 0.5}), ("procs", 2, 0.5, {"startup": 0.6}))


def test_without_a_serial_run_there_is_no_speedup():
    """A NaN speedup is said to be none, not drawn into a comparison."""
    assert _verdict(("procs", 2, math.nan, {})) == "No serial run to compare with, so there is no speedup to report."


def test_a_serial_run_alone():
    """A line with only a serial arm is called the baseline."""
    assert _verdict(("serial", 1, 1.0, {})).startswith("A serial run of 2 s")


def test_too_few_or_too_small_items_tell_nothing():
    """Without items, with a serial run of microseconds, or with items that cost less than handing them out, no gain is claimed."""
    assert _verdict(("procs", 2, 0.0, {"n_items": 0})) == "There were no items: nothing was run."
    assert _verdict(("procs", 2, 1.3, {"serial_s": 12e-6})).startswith("Too short to tell: a serial run takes 12 µs")
    assert _verdict(("procs", 2, 1.3, {"serial_s": 999.7e-6})).startswith("Too short to tell: a serial run takes 1 ms")
    found = _verdict(("threads", 2, 1.34, {"n_items": 1_000_000, "serial_s": 0.43}))
    assert found.startswith("The items are too small to tell: 430 ns each")


def test_a_dear_trace_makes_a_speedup_rough():
    """Where tracing took more than 5 % of an arm, its speedup is marked."""
    assert "~1.80×" in _verdict(("threads", 2, 1.8, {"trace_overhead": 0.3}))
    assert "~" not in _verdict(("threads", 2, 1.8, {"trace_overhead": 0.04}))


def test_reasons_are_findings():
    """All that took much of an arm's time is found with its share, the GIL first and then what took most; little and unknown shares are not."""
    arm = ("threads", 2, 0.9, {"gil_wait_share": 0.3, "idle": 0.3, "lock_wait": 0.4, "cpu_wait": 0.2, "transfer": math.nan})
    found = reasons("threads=2", _tables(arm, measured=True))
    assert [(each.rule, each.arm, each.severity) for each in found] == [(rule, "threads=2", "warning") for rule in ("gil_wait", "lock_wait", "idle")]
    assert [each.evidence["share"] for each in found] == pytest.approx([0.3, 0.4, 0.3])


@pytest.mark.parametrize(
    ("arm", "rule", "severity"),
    [
        (("procs", 2, 1.9, {}), "gain", "info"),
        (("procs", 2, 0.9, {}), "no_gain", "warning"),
        (("procs", 2, 0.0, {"n_items": 0}), "no_items", "warning"),
        (("procs", 2, math.nan, {}), "no_baseline", "warning"),
        (("serial", 1, 1.0, {}), "serial_only", "info"),
    ],
)
def test_the_verdict_is_a_finding(arm, rule, severity):
    """It has its rule, and the figures of the arm that it recommends."""
    found = verdict(_tables(arm), None)
    assert (found.rule, found.severity) == (rule, severity)
    assert found.evidence.get("speedup") == (arm[2] if "gain" in rule else None)
