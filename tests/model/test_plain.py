"""Runs as plain data: what is read again is the run that was written, but for values; what is garbled is refused."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from array import array
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import parmagic
from parmagic.analyze.merge import merge
from parmagic.analyze.study import Study
from parmagic.model import plain, traits
from parmagic.model.finding import Finding, told
from parmagic.model.kinds import MEASURED, WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clock, Clocks, Moved, Readings, Recording, Samples, Span, Tally, TraceFile, Usage, WorkerId
from parmagic.model.timeline import Baseline, Packed
from parmagic.model.waits import WAIT_LAYOUT, Total, Wait, Waits
from parmagic.render import chrome, page, text
from parmagic.result import Run, from_plain, to_plain

TABLES = ("summary", "workers", "items", "waits", "transfers", "children")


def again(run):
    """Return the run, by way of a text of JSON that any reader of JSON can read."""
    return from_plain(json.loads(json.dumps(to_plain(run), allow_nan=False)))


def assert_same(run, other):
    """Compare all that is told of both, to the last digit."""
    shown = run._study.saved
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(other, name), getattr(shown, name), check_exact=True)
    assert text.report(other._study) == text.report(shown)
    assert page.page(other._study, tables=True) == page.page(run._study, tables=True)
    assert chrome.dumps(other._study) == chrome.dumps(run._study)
    assert (other._study.title, other.notes, other.verdict, other._study.show_items) == (run._study.title, shown.notes, shown.verdict, run._study.show_items)
    assert other.results == [None] * len(run.results)
    assert other._study.findings == shown.findings


SETUP = """
import os, threading, time, _thread
pid = os.getpid()
lock = threading.Lock()
def work(n):
    return n
def stop(n):
    if n == 3: os.kill(pid, 2)
    time.sleep(0.01)
    return n
def fail(n):
    raise ValueError(f'no {n}\\n\\u2028 <b>')
"""

RUNS = {
    "threads": ("%%parallel threads=2 -q for n in range(20)", "with lock:\n    time.sleep(0.002)\n[work(k) for k in range(500)]"),
    "processes": ("%%parallel procs=2 -q for n in range(20)", "[work(k) for k in range(500)]"),
    "everything": ("%%parallel serial threads=2 procs=2 -q for n in range(6)", "time.sleep(0.002)\nwork(n)"),
    "large traces": ("%%parallel threads=2 procs=2 -q --trace full for n in range(20)", "[work(k) for k in range(2000)]"),
    "ranks": ("%%parallel threads=2 procs=2 -q --once", "time.sleep(0.01)\nworker.rank"),
    "no items": ("%%parallel threads=2 -q --once for n in []", "n"),
    "kept going": ("%%parallel threads=2 procs=2 -q --keep-going for n in range(6)", "if n % 2: fail(n)\nn"),
}
ENDED = {
    "failed threads": ("%%parallel threads=2 procs=2 -q for n in range(6)", "if n == 4: fail(n)\nn"),
    "failed processes": ("%%parallel procs=2 -q for n in range(6)", "if n == 4: fail(n)\nn"),
    "killed": ("%%parallel procs=2 -q for n in range(6)", "if n == 4: os.kill(os.getpid(), 9)\nn"),
    "interrupted threads": ("%%parallel threads=2 procs=2 -q for n in range(1000)", "stop(n)"),
    "interrupted processes": ("%%parallel procs=2 -q for n in range(1000)", "stop(n)"),
}


@pytest.mark.parametrize("leave", [False, True], ids=["private", "shown"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_as_it_was_written(ip, name, leave):
    """Tables, report, page and trace of real runs are the same, also when the run's own files are gone; private texts are left out."""
    ip(SETUP)
    ip(f"%config ParallelMagics.show_items = {leave}")
    run = ip("\n".join(RUNS[name]))
    if name == "large traces":
        assert [trace for timeline in run._study.timelines for trace in timeline.traces if trace.path]
    data = json.loads(json.dumps(to_plain(run)))
    before = chrome.dumps(run._study)
    shutil.move(".parmagic", "gone") if Path(".parmagic").exists() else None
    other = from_plain(data)
    assert chrome.dumps(other._study) == before
    shutil.move("gone", ".parmagic") if Path("gone").exists() else None
    assert_same(run, other)


@pytest.mark.parametrize("leave", [False, True], ids=["private", "shown"])
@pytest.mark.parametrize("name", ENDED)
def test_a_run_that_ended_early_is_read_as_it_was_written(ip, name, leave):
    """So are runs that failed, were killed or interrupted; errors have their types' names, and their texts where these may be shown."""
    ip(SETUP)
    ip(f"%config ParallelMagics.show_items = {leave}")
    ip.fails("\n".join(ENDED[name]))
    run = parmagic.last()
    other = again(run)
    assert_same(run, other)
    assert type(other.error).__name__ == type(run.error).__name__
    assert str(other.error) == (str(run.error) if leave else "")
    assert ("no 4" in json.dumps(to_plain(run))) == (leave and "failed" in name)


def test_inferred_waits(ip, monkeypatch):
    """A run without hooks has clocks and samples instead of a tally."""
    monkeypatch.setenv("PARMAGIC_WAITS", "off")
    ip(SETUP)
    run = ip("%%parallel threads=2 -q --once for n in range(4)\nwith lock:\n    time.sleep(0.03)")
    assert not run.workers["measured"].any()
    assert_same(run, again(run))


def test_what_is_read_is_written_the_same(ip):
    """A second copy is the first one: nothing is lost on the way, and no number changes."""
    ip(SETUP)
    run = ip("%%parallel threads=2 procs=2 -q --keep-going for n in range(6)\nif n % 2: fail(n)\nn")
    data = to_plain(run)
    assert to_plain(from_plain(data)) == data
    assert {tuple(each) for each in data["errors"]} == {("ValueError", "")}


# ---------------------------------------------------------------------------------------------------------------------------------
# hand-written


def doubles(*values):
    """Return them as recordings have them."""
    return array("d", values)


def hand_written(**more):
    """Return a run with one of everything, of two machines; one worker takes no items."""
    nan = math.nan
    error = KeyError("there is no such thing")
    wait = WAIT_LAYOUT.pack(*Wait(2_000_000_000, 4_000_000_000, 2**64 - 1, WAIT_KINDS.index("lock"), -1, 3, 1))
    parts = [
        Recording(
            WorkerId(0, 1, 2), (Span("startup", 0.0, 1.0),), (Batch(0, doubles(1.0, 5.0), doubles(5.0, 9.0), [1, None], {1: error}),),
            Readings(tally=Tally(doubles(1.0, *[0.0] * len(MEASURED), 9.0, *range(len(MEASURED)))), waits=Waits(wait, 7)),
            (Total("lock", 2**64 - 1, 3, 1, 2.0, 2.0, 0.5, "lock"), Total("interpreter", 1, 0, 1, 0.5, 0.5)),
            Usage(6.0, nan, 1, 2, 50.0),
            TraceFile("/nowhere/at/all", 1, ((0.0, 1.0), (1e6, 2.0)), {7: 0}, ((7.5, 8.0), (8.5, 8.75)), 0.25, ("a note",), b"", nan, lost_exactly=False, since=1.5),
            moved=Moved(1, 0.5, 2, 0.25),
        ),
        Recording(
            WorkerId(1, 9, 9, host="far", takes_items=False), readings=Readings(Clocks(doubles(1002.0, 1008.0), doubles(0.0, 4.0), doubles(nan, nan))),
            samples=Samples(doubles(1003.0), array("b", [2])), clock=Clock("far", -1000.0, 0.25),
        ),
    ]  # fmt: skip
    timeline = merge(Arm.named("threads", 2), 0.0, 10.0, 3, parts, {}, cpu_s=math.inf, packed=Packed(10, 0.5))
    findings = [Finding("one", "first"), Finding("two", "second", "threads=2", "warning", {"share": 0.5, "items": 3})]
    return Run(Study([timeline], {"threads=2": Baseline(4.0, "sampled", True)}, findings, error, title="a title", show_items=True, **more))


def test_every_field_is_kept():
    """All of a hand-written run is there, of every kind of part; its one error is one, and its missing trace has no calls."""
    run = hand_written()
    other = again(run)
    (lane, far), (was, far_was) = other._study.timelines[0].lanes, run._study.timelines[0].lanes
    assert repr(lane) == repr(was).replace("values=[1, None]", "values=[None, None]").replace("KeyError(", 'KeyError("').replace("thing')", "thing'\")")
    assert repr(far) == repr(far_was)
    assert (far.worker.host, far.worker.takes_items, far.uncertainty) == ("far", False, 0.25)
    assert repr(other._study.timelines[0].traces) == repr(run._study.timelines[0].traces).replace("/nowhere/at/all", "")
    assert (other._study.timelines[0].arm, other._study.timelines[0].arm.model) == (run._study.timelines[0].arm, run._study.timelines[0].arm.model)
    assert other.error is other._study.timelines[0].error is other._study.timelines[0].failure.error is lane.batches[0].errors[1]
    assert str(other.error) == "'there is no such thing'"
    assert (other._study.timelines[0].packed, other._study.timelines[0].cpu_s) == (Packed(10, 0.5), math.inf)
    assert_same(run, other)


def test_a_model_that_is_known_no_more():
    """A run of a model that was added is read where nobody has added it: its traits come with it."""
    fibers = traits.Model("fibers", "fibers", shares_memory=True, own_process=False, shares_gil=True, also=("fibres",))
    traits.add(fibers)
    try:
        run = Run(Study([merge(Arm(fibers, 2), 0.0, 1.0, 0, [], {})], {"fibers=2": Baseline.estimated()}, []))
        data = to_plain(run)
    finally:
        traits.remove(fibers)
    other = from_plain(data)
    assert (other._study.timelines[0].arm.model, other._study.timelines[0].arm.label) == (fibers, "fibers=2")
    assert_same(run, other)


def test_a_run_of_no_arms():
    """A run that ended before its first arm has its error and its notes."""
    run = Run(Study([], {}, told(["a note"], "rule"), KeyboardInterrupt(), title="a title"))
    assert_same(run, again(run))


def places(data, path=()):
    """Yield the way to everything within plain data."""
    yield path
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, each in steps:
        yield from places(each, (*path, step))


def changed(data, path, change):
    """Return a copy in which something else stands there."""
    if not path:
        return change(data)
    data = copy.copy(data)
    data[path[0]] = changed(data[path[0]], path[1:], change)
    return data


DATA = to_plain(hand_written())
PLACES = [path for path in places(DATA) if path and path[0] in {"errors", "run"}]


def test_what_is_of_another_type_is_refused():
    """Wherever something of another type stands, the run is refused, and the error says where that is."""
    for path in PLACES:
        name = next(str(step) for step in reversed(path) if isinstance(step, str))
        with pytest.raises(ValueError, match=f"garbled: .*{name}"):
            from_plain(changed(DATA, path, lambda _: {"not": "expected"}))


def test_what_is_missing_or_too_much_is_refused():
    """So it is where a field or a part of a pair is missing, or is there that nobody knows."""
    for path in PLACES:
        here = DATA
        for step in path:
            here = here[step]
        if isinstance(here, dict):
            for name in here:
                with pytest.raises(ValueError, match="the fields"):
                    from_plain(changed(DATA, path, lambda fields, name=name: {key: each for key, each in fields.items() if key != name}))
            with pytest.raises(ValueError, match="the fields"):
                from_plain(changed(DATA, path, lambda fields: fields | {"more": 1}))
        if isinstance(here, list) and len(here) == 2 and path[-2:-1] in {("anchors",), ("workers",), ("baselines",)}:
            with pytest.raises(ValueError, match="1 values, not 2"):
                from_plain(changed(DATA, path, lambda pair: pair[:1]))


LANE = ("run", "timelines", 0, "lanes", 0)


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ((*LANE, "batches", 0, "begins"), lambda packed: packed[:-4], "a Batch that cannot be|cannot be read"),
        ((*LANE, "batches", 0, "first"), lambda _: 5, "lanes.0..batches.0. has a Batch"),
        ((*LANE, "tally", "rows"), lambda _: "AAAAAAAA8D8=", "a Tally that cannot be"),
        ((*LANE, "waits", "events"), lambda _: "!", "what cannot be read"),
        ((*LANE, "waits", "events"), lambda _: "AAAA", "what cannot be read"),
        ((*LANE, "spans", 0, "kind"), lambda _: "dancing", "a Span that cannot be"),
        ((*LANE, "spans", 0, "end"), lambda _: "nan", "a Span that cannot be"),
        ((*LANE, "totals", 0, "kind"), lambda _: "love", "a Total that cannot be"),
        ((*LANE, "worker", "rank"), lambda _: 1, "a Timeline that cannot be"),
        (("run", "findings", 1, "severity"), lambda _: "dire", "none of info, warning, error"),
        ((*LANE[:3], "n_items"), lambda _: 1, "a Timeline that cannot be"),
        ((*LANE[:3], "n_items"), lambda _: 10**12, "a Timeline that cannot be"),
        ((*LANE[:3], "begin"), lambda _: 10**400, "begin has a int, not a float"),
        ((*LANE[:3], "begin"), lambda _: -1e308, "a Timeline that cannot be"),
        ((*LANE[:3], "end"), lambda _: 0.0, "a Timeline that cannot be"),
        ((*LANE[:3], "end"), lambda _: -1.0, "a Timeline that cannot be"),
        ((*LANE[:3], "traces", 0, "since"), lambda _: 10**400, "since has a int, not a float"),
        ((*LANE[:3], "traces", 0, "gaps"), lambda _: [[0.5, "nan"]], "TraceFile that cannot be"),
        ((*LANE[:3], "traces", 0, "anchors", 1, 0), lambda _: 10**300, "a TraceFile that cannot be"),
        ((*LANE, "batches", 0, "first"), lambda _: 10**400, "a Batch that cannot be"),
        (("run", "findings", 1, "evidence", 0, 1), lambda _: -(10**400), "evidence.*has a int, not a float"),
        ((*LANE[:3], "arm", "count"), lambda _: 0, "an? Arm that cannot be"),
        ((*LANE[:3], "error"), lambda _: 1, "the error 1, which is not there"),
        (("run", "baselines"), lambda _: [], "a Story that cannot be"),
        (("errors", 0, 0), lambda _: "a\0b", "errors"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(path, change, says):
    """Data of the right types that no run can have, or that nothing can be drawn of, is refused by where it stands."""
    with pytest.raises(ValueError, match=says):
        from_plain(changed(DATA, path, change))


@pytest.mark.parametrize("data", [None, [], "a run", {}, {"timelines": []}])
def test_what_is_no_run_is_refused(data):
    """So is what nobody has written as a run."""
    with pytest.raises(ValueError, match="not a run that parmagic wrote"):
        from_plain(data)


@pytest.mark.parametrize("changes", [{"parmagic": [0, 1]}, {"parmagic": "1"}, {"byteorder": "middle"}])
def test_another_version_is_refused(changes):
    """So is a run of another version, before anything else of it is read; the error says which it is."""
    with pytest.raises(ValueError, match=r"written by another version of parmagic: it has format .*, expected \[\d+, \d+\]"):
        from_plain(DATA | {"run": "never looked at"} | changes)


@pytest.mark.parametrize("seed", range(40))
def test_garbled_text(seed):
    """Wherever letters of the text are changed, it is refused, or it is a run that can be shown."""
    chance = random.Random(seed)
    letters = list(json.dumps(DATA))
    for _ in range(chance.choice([1, 1, 3])):
        letters[chance.randrange(len(letters))] = chance.choice('0123456789"{}[],:-aAeE/+=')
    try:
        run = from_plain(json.loads("".join(letters)))
    except ValueError:
        return
    assert all(len(getattr(run, name)) >= 0 for name in TABLES)
    assert text.report(run._study)
    assert page.page(run._study, tables=True)


@pytest.mark.parametrize(("most", "fits"), [(39, False), (40, True)])
def test_what_unpacks_to_too_much_is_refused(monkeypatch, most, fits):
    """A few bytes can be made of very many: no more of these are unpacked than any run has; one wait takes 40."""
    monkeypatch.setattr(plain, "MOST_BYTES", most)
    if fits:
        assert from_plain(DATA)._study.timelines[0].lanes[0].waits.events
    else:
        with pytest.raises(ValueError, match=r"waits.events has what cannot be read .*more than 39 bytes"):
            from_plain(DATA)


@pytest.mark.parametrize("value", [np.int64(3), np.True_, True, "3", None])
def test_evidence_that_is_no_python_number(value):
    """It is refused by the rule's and the figure's name where the run is written, and not where nobody can mend it any more."""
    run = hand_written()
    run._study.add([Finding("a_rule", "third", evidence={"n": value})])
    with pytest.raises(TypeError, match=f"'a_rule' has a {type(value).__name__} as its n"):
        to_plain(run)


def test_evidence_that_is_a_number():
    """Integers and floats, NumPy's own floats among them, are read as what they are worth."""
    run = hand_written()
    run._study.add([Finding("a_rule", "third", evidence={"n": 3, "share": np.float64(0.5), "none": math.inf})])
    assert again(run)._study.findings[-1].evidence == {"n": 3, "share": 0.5, "none": math.inf}


def test_nothing_is_unpickled():
    """What reads a run knows no pickle."""
    assert not {"pickle", "cloudpickle", "marshal"} & vars(plain).keys()
