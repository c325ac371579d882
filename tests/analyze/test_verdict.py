"""The verdict on hand-written tables: each reason, each advice, and when to say nothing."""

from __future__ import annotations

import math
from array import array

import pandas as pd
import pytest

from parmagic.analyze import locks
from parmagic.analyze.verdict import Tables, reasons, verdict
from parmagic.model.finding import Finding
from parmagic.model.kinds import MEASURED, WAIT_KINDS, WORKER_STATES
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, Tally, WorkerId
from parmagic.model.things import THING
from parmagic.model.timeline import Lane, Timeline
from parmagic.model.waits import WAIT_LAYOUT, Total, Wait, Waits

NOTHING = array("d")


def _tables(*arms, measured=False, findings=()):
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
            states = {**more, **more.get("ranks", {}).get(rank, {})}
            seconds = {f"{s}_s": 2.0 * states.get(s, 0.0) for s in WORKER_STATES}
            workers[label, rank] = {**seconds, "wall_s": 2.0, "measured": measured, "n_items": states.get("each", 50)}
    told = {f"{model}={count}": _arm(model, count, more) for model, count, _, more in arms}
    rough = frozenset(label for label, row in summary.items() if row["baseline"] != "measured")
    table = pd.DataFrame(waits, columns=["arm", "rank", "kind", "object", "line", "total_s"]).set_index(["arm", "rank"])
    return Tables(pd.DataFrame.from_dict(summary, orient="index"), pd.DataFrame.from_dict(workers, orient="index"), table, told, findings, rough)


def _arm(model, count, more):
    """Return an arm of 2 s, with a load where it has some, and items in its first lane that took `took` seconds each."""
    took = more.get("took", ())
    batches = [Batch(item, array("d", [0.0]), array("d", [seconds]), [None]) for item, seconds in enumerate(took)]
    totals = tuple(Total("lock", 1 << 40, 3, 1, 1.0, 1.0, name=name, thing=thing) for name, thing in more.get("things", {}).items())
    lane = Lane(WorkerId(0, 1, 1), (), tuple(batches), Clocks(NOTHING, NOTHING, NOTHING), Samples(NOTHING, array("b")), None, totals=totals)
    return Timeline(Arm.named(model, count), 0.0, 2.0, len(took), (lane,) if took or totals else (), load=more.get("load"))


def _verdict(*arms, measured=False, findings=()):
    """Return the sentence on these arms."""
    return verdict(_tables(*arms, measured=measured, findings=findings), None).text


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


def test_what_a_lock_allows():
    """It is held for as long as another worker waits for it: once where these overlap, not by other locks, nor where not all waits are known."""
    waits = [[(0.0, 0.5), (0.6, 0.9)], [(0.2, 0.7), (1.5, 2.0)], []]
    arm = _locked(waits)
    assert locks.held_s(arm, "guard") == pytest.approx(0.9 + 0.5)
    assert math.isnan(locks.held_s(arm, "other"))
    assert math.isnan(locks.held_s(_locked(waits, lost=1), "guard"))
    assert math.isnan(locks.held_s(_locked(waits, model="procs"), "guard"))


@pytest.mark.parametrize(("serial_s", "words"), [(2.1, "(line 3), which caps this at 1.50×."), (3.8, "(line 3).")])
def test_the_cap_is_named(serial_s, words):
    """A lock that allows nearly what so many workers could gain is no cap."""
    more = {"lock_wait": 0.5, "serial_s": serial_s, "waits": [(0, "lock", "guard", 3, 0.9)], "things": {"guard": "lock"}}
    tables = _tables(("threads", 3, 0.9, more), measured=True)
    tables.arms["threads=3"] = _locked([[(0.0, 0.5), (0.6, 0.9)], [(0.2, 0.7), (1.5, 2.0)], []])
    assert words in verdict(tables, None).text


def _locked(waits, *, lost=0, model="threads"):
    """Return an arm of three whose lanes waited from when to when (seconds), each for one lock, and for something else all along."""
    lanes = [
        Lane(
            WorkerId(rank, 1, rank), (), (), Clocks(NOTHING, NOTHING, NOTHING), Samples(NOTHING, array("b")), None, Tally(NOTHING),
            Waits(b"".join(WAIT_LAYOUT.pack(*_single(*wait, 1 << 40)) for wait in mine) + WAIT_LAYOUT.pack(*_single(0.0, 2.0, 1 << 41)), lost),
            (Total("lock", 1 << 40, 3, 1, 1.0, 1.0, name="guard", thing="lock"),),
        )
        for rank, mine in enumerate(waits)
    ]  # fmt: skip
    return Timeline(Arm.named(model, len(waits)), 0.0, 2.0, 6, tuple(lanes))


def _single(begin, end, thing):
    return Wait(round(begin * 1e9), round(end * 1e9), thing, WAIT_KINDS.index("lock"), -1, 3, 0)


def test_advice_is_about_what_took_most():
    """Who mostly waits for a core is not told about a lock that took less."""
    waits = [(0, "lock", "guard", 3, 0.9)]
    text = _verdict(("threads", 4, 0.9, {"cpu_wait": 0.5, "lock_wait": 0.3, "waits": waits}), measured=True)
    assert text.endswith("waiting for a core.")
    text = _verdict(("threads", 4, 0.9, {"cpu_wait": 0.3, "lock_wait": 0.5, "waits": waits}), measured=True)
    assert text.endswith("Hold the lock for less of the body.")


def test_helper_threads_are_named():
    """Who waits for the threads of a library is told whose they are, and not to hold a lock for less long."""
    waits = [(0, "helpers", "helper threads of polars", 3, 0.6), (1, "lock", "guard", 9, 0.2)]
    text = _verdict(("threads", 2, 0.9, {"lock_wait": 0.6, "waits": waits}), measured=True)
    assert "60% of the time waiting for helper threads of polars (line 3). They compute on several cores already: stay serial." in text


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
        (("threads", 2, 0.9, {"lock_wait": 0.5}), "waiting for locks or queues."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "lock", "guard", 3, 0.9)]}), "Hold the lock for less of the body."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "lock", "0x7f00", 3, 0.9)]}), "run.waits tells which, and where."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "object", "shared", 3, 0.9)]}), "Give each worker one of its own."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "queue", "jobs", 3, 0.9)]}), "let more do that, or have more in it."),
        (("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "queue", "pool.free", 3, 0.9)]}), "(line 3). Make the pool larger, or keep what it lends for less of the body."),
    ],
)
def test_advice(arm, advice):
    """Where there is no gain, the sentence ends with what to do."""
    assert _verdict(arm).endswith(advice)


HELP = {
    "lock": ("the lock `it` (line 3)", "Hold the lock for less of the body."),
    "semaphore": ("the semaphore `it` (line 3)", "Let more through the semaphore at once, or hold it for less of the body."),
    "event": ("the event `it` (line 3)", "set it sooner, or wait later."),
    "condition": ("the condition `it` (line 3)", "notify sooner."),
    "barrier": ("the barrier `it` (line 3)", "give each as much work between two waits, or wait there less often."),
    "queue": ("the queue `it` (line 3)", "let more do that, or have more in it."),
    "future": ("the future `it` (line 3)", "give these more workers, or ask for it later."),
    "value": ("the value `it` (line 3)", "count in the body, and add once under get_lock()."),
    "array": ("the array `it` (line 3)", "or on Array(…, lock=False)."),
    "pipe": ("the pipe `it` (line 3)", "is slower than who waits for it."),
    "proxy": ("the proxy `it` (line 3)", "ask for more in one call."),
    "thread": ("the thread `it` (line 3)", "or join them later."),
    "import": ("the lock `it` (line 3)", "import it in a cell above, before the run."),
    "helpers": ("the lock `it` (line 3)", "They compute on several cores already: stay serial."),
    "native": ("the lock `it` (line 3)", "or call it less often."),
    "pool": ("the lock `it` (line 3)", "Make the pool larger, or keep what it lends for less of the body."),
    "library": ("the lock `it` (line 3)", "let each worker have an object of its own (worker.once)."),
}


def test_each_sort_of_lock_has_its_advice():
    """Nothing is left out here."""
    assert HELP.keys() == THING.keys()


@pytest.mark.parametrize("thing", HELP)
def test_advice_is_about_what_was_waited_for(thing):
    """It is called what it is, and only who waits for a lock of their own is told to hold it for less."""
    words, advice = HELP[thing]
    text = _verdict(("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "lock", "it", 3, 0.9)], "things": {"it": thing}}), measured=True)
    assert f"waiting for {words}. " in text
    assert text.endswith(advice)
    assert ("Hold the lock" in text) == (thing == "lock")


def test_a_lock_that_only_its_library_knows():
    """It is called by its library; several that have no name, by what they are."""
    name = "a lock in logging"
    text = _verdict(("threads", 2, 0.9, {"lock_wait": 0.5, "waits": [(0, "lock", name, 3, 0.9)], "things": {name: "library"}}), measured=True)
    assert f"waiting for {name} (line 3). The lock is a library's own" in text
    waits = [(0, "lock", "one", 3, 0.4), (1, "lock", "two", 4, 0.5), (1, "lock", "0x7f00", 5, 0.5)]
    things = {"one": "barrier", "two": "barrier"}
    text = _verdict(("threads", 2, 0.9, {"lock_wait": 0.5, "waits": waits, "things": things}), measured=True)
    assert "waiting for barriers (line 4). All wait at a barrier" in text
    assert "0x" not in text


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
    assert _verdict(("procs", 2, 1.3, {"serial_s": 0.0099})).startswith("Too short to tell: a serial run takes 9.9 ms, and starting workers")
    assert _verdict(("procs", 2, 1.3, {"serial_s": 999.7e-6})).startswith("Too short to tell: a serial run takes 1 ms")
    found = _verdict(("threads", 2, 1.34, {"n_items": 1_000_000, "serial_s": 0.43}))
    assert found.startswith("The items are too small to tell: 430 ns each")


def test_a_dear_trace_makes_a_speedup_rough():
    """Where tracing bent an arm, its speedup is marked."""
    tables = _tables(("threads", 2, 1.8, {}))
    assert "~1.80×" in verdict(tables._replace(rough=frozenset({"threads=2"})), None).text
    assert "~" not in verdict(tables, None).text


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


@pytest.mark.parametrize(
    ("load", "advice"),
    [
        (Load(8), "Try procs=4."),
        (Load(2), "Try procs=2."),
        (Load(8, quota=1.5), "Try procs=2."),
        (Load(1), "There is one CPU here, so processes cannot gain either."),
    ],
)
def test_no_more_processes_are_advised_than_can_run(load, advice):
    """As many as there are CPUs for, by the scheduler and by the container's quota; none where there is one."""
    assert _verdict(("threads", 4, 0.9, {"gil_wait_share": 0.7, "load": load})).endswith(advice)


def test_more_workers_than_cpus():
    """Who waits for a core is told how many there are, where that is less than there are workers."""
    arm = {"cpu_wait": 0.5, "running": 0.5}
    assert "waiting for a core (2 CPUs here, 4 workers)." in _verdict(("procs", 4, 1.0, {**arm, "load": Load(2)}))
    assert "waiting for a core." in _verdict(("procs", 4, 1.0, {**arm, "load": Load(4)}))


def test_a_long_item_is_named():
    """The item that took most of the time, which is why others had nothing to do; one item of many that took less is not."""
    text = _verdict(("procs", 4, 1.1, {"idle": 0.6, "running": 0.4, "took": [0.1, 1.78, 0.1]}))
    assert "had nothing to do for 60% of the time (item 1 took 89% of the wall time). Start that item first, or split it." in text
    assert "(too few or too uneven items)." in _verdict(("procs", 3, 1.1, {"idle": 0.6, "running": 0.4, "took": [0.1, 0.9, 0.1]}))
    assert "(3 items for 4 workers)." in _verdict(("procs", 4, 1.1, {"idle": 0.6, "running": 0.4, "took": [1.3, 1.8, 0.1]}))
    text = _verdict(("procs", 4, 2.1, {"idle": 0.6, "running": 0.4, "took": [0.1, 1.78, 0.1]}))
    assert text.startswith("Use procs=4")
    assert text.endswith("Start that item first, or split it.")


def test_workers_without_an_item():
    """Where items are fewer than workers, what kept the others from a gain comes first; only where nothing did, that there were few."""
    few = {"n_items": 2, "idle": 1.0, "each": 0, "took": [0.9, 0.9]}
    busy = {"idle": 0.1, "running": 0.5, "startup": 0.4, "each": 1}
    text = _verdict(("procs", 8, 1.1, {**few, "ranks": {0: busy, 3: busy}}))
    assert "because starting workers took 40% of the time of its 2 workers with items." in text
    quiet = {"idle": 0.1, "running": 0.9, "each": 1}
    text = _verdict(("procs", 8, 1.1, {**few, "serial_s": 3.5, "ranks": {0: quiet, 3: quiet}}))
    assert "because its workers had nothing to do for 78% of the time (2 items for 8 workers)." in text
    alone = {**few, "n_items": 1, "took": [1.9], "ranks": {2: {"idle": 0.0, "cpu_wait": 0.6, "running": 0.4, "each": 1}}}
    assert "because its only worker with items spent 60% of the time waiting for a core." in _verdict(("procs", 8, 1.0, alone))


def test_who_sets_the_pace():
    """Where each worker has one thing to do and all but one wait for the others, that one is named; where nobody or more never wait, none is."""
    waits = [(1, "queue", "jobs", 3, 1.2)]
    arm = {"lock_wait": 0.6, "each": 1, "waits": waits}
    text = _verdict(("threads", 2, 0.9, {**arm, "ranks": {0: {"lock_wait": 0.01}}}), measured=True)
    assert "waiting for the queue `jobs` (line 3); worker 0 never waits: it sets the pace." in text
    assert "pace" not in _verdict(("threads", 2, 0.9, arm), measured=True)
    assert "pace" not in _verdict(("threads", 2, 0.9, {**arm, "each": 7, "ranks": {0: {"lock_wait": 0.01}}}), measured=True)
    assert "pace" not in _verdict(("threads", 3, 0.9, {**arm, "ranks": {0: {"lock_wait": 0.0}, 1: {"lock_wait": 0.0}}}), measured=True)


def test_a_gain_that_cannot_be_is_no_gain():
    """A speedup beyond what the arm's own account allows is shown with how much can be, and is not recommended by it."""
    impossible = Finding("beyond", "…", "threads=2", "warning", {"speedup": 1.4, "most": 1.0})
    text = _verdict(("threads", 2, 1.4, {}), findings=[impossible])
    assert text.startswith("No gain: threads=2 is the best at 1.40× (it can be 1.00× at most, see the notes) of the serial speed")
    text = _verdict(("threads", 2, 1.4, {}), ("procs", 2, 1.3, {}), findings=[impossible])
    assert text.startswith("Use procs=2: 1.30× of the serial speed; threads=2 gains nothing (1.40×; it can be 1.00× at most, see the notes).")
    more = Finding("beyond", "…", "procs=2", "warning", {"speedup": 2.6, "most": 2.0})
    assert _verdict(("procs", 2, 2.6, {}), findings=[more]).startswith("Use procs=2: 2.60× (it can be 2.00× at most, see the notes)")


@pytest.mark.parametrize(("seen", "words"), [(1.38, "No gain: threads=2 is the best at 1.38× (it can be 1.00× at most) of"), (1.08, "No gain: threads=2 is the best at 1.08× of")])
def test_a_short_run_that_cannot_gain(seen, words):
    """What one GIL does not allow is no gain either where the runs are too short for a note: two of these differ by as much."""
    tables = _tables(("threads", 2, seen, {"gil_wait_share": 0.5}), measured=True)
    spent = [2.0 * (state == "running") / 2 for state in MEASURED]
    lanes = [
        Lane(
            WorkerId(rank, 1, rank), (), (), Clocks(NOTHING, NOTHING, NOTHING), Samples(NOTHING, array("b")), None,
            Tally(array("d", [0.0, *[0.0] * len(MEASURED), 2.0, *spent])),
        )
        for rank in range(2)
    ]  # fmt: skip
    tables.arms["threads=2"] = Timeline(Arm.named("threads", 2), 0.0, 2.0, 6, tuple(lanes))
    assert verdict(tables, None).text.startswith(words)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        ("running", "its items took 1.6× as long side by side as in the serial run."),
        ("io_wait", "in the serial run, most of it in I/O. What they wait for is slower for so many at once: try fewer workers."),
    ],
)
def test_items_that_take_longer_side_by_side(state, end):
    """What workers do beyond what a serial run needs is lost, too: who shares a core, a disk or a server."""
    text = _verdict(("procs", 2, 1.1, {state: 0.9, "serial_s": 2.2}), measured=True)
    assert text.endswith(end)
    assert "side by side" not in _verdict(("procs", 2, 1.1, {state: 0.7, "serial_s": 2.2}), measured=True)


def test_who_else_wants_a_core():
    """Threads of libraries are named where workers wait for a core, and where it is told what to do about them."""
    helpers = Finding("helpers", "…", "threads=2", "warning", {"share": 0.5, "cores_wanted": 2.8, "cores": 2, "OpenBLAS_cpu_s": 1.0})
    text = _verdict(("threads", 2, 1.0, {"cpu_wait": 0.4}), measured=True, findings=[helpers])
    assert "40% of the time waiting for a core (threads of OpenBLAS want one, too). The notes tell how that library has fewer." in text


def test_what_bends_all_figures_is_said_first():
    """Other programs, a container's limit: before what the verdict says, the worst one once."""
    crowd = Finding("crowded", "…", "procs=2", "warning", {"others_cores": 1.42, "cpus": 2})
    unlike = Finding("unlike", "…", "procs=2", "warning", {"serial_others_cores": 1.61, "others_cores": 0.8, "cpus": 2})
    held = Finding("throttled", "…", "procs=2", "warning", {"quota": 2.0, "throttled_s": 3.0, "share": 0.341})
    text = _verdict(("procs", 2, 1.3, {}), findings=[crowd])
    assert text == (
        "Other programs took 1.4 of 2 cores: figures are too low, try again when it is quiet. Use procs=2: 1.30× of the serial speed."
    )
    text = _verdict(("procs", 2, 1.3, {}), findings=[crowd, unlike])
    assert text.startswith("Other programs took 1.6 of 2 cores during the serial run and 0.8 during procs=2: its speedup is too high, try again")
    text = _verdict(("threads", 2, 1.9, {}), ("procs", 2, 1.3, {}), findings=[crowd])
    assert text.startswith("Other programs took 1.4 of 2 cores: figures of procs=2 are too low, try again when it is quiet. Use threads=2")
    text = _verdict(("procs", 2, 1.3, {}), findings=[crowd, held, held])
    assert text.startswith("This container may use 2.0 CPUs and was held back 34% of the time. Use procs=2")
