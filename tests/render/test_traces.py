"""Trace files: written as a stream, the same as all at once, in little memory, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stories import calls_of, run_of, two_arms

from parmagic.model.recording import TraceFile
from parmagic.model.timeline import Calls
from parmagic.render import chrome, save
from parmagic.render.figures import clean, error_words, slice_words

HOSTILE = '</script>\x1b[31m"\\\u2028\ud800 größe'


def busy_run():
    """Return two arms whose calls overlap, begin together, lie outside of the arm, and come from two processes of one rank."""
    rng = np.random.default_rng(7)
    begins = np.sort(rng.uniform(999.5, 1003.5, 400)).round(3)  # to the millisecond: many begin together
    spans = [(f"f{k % 7} {HOSTILE}", b, b + rng.exponential(0.1)) for k, b in enumerate(begins)]
    calls = [calls_of(0, *spans[::2]), calls_of(1, *spans[1::2]), calls_of(0, ("again", 1000.1, 1000.2), ("outer", 1000.1, 1000.3))]
    return two_arms(functions=lambda: [(0, calls), (1, calls[:2])], item_errors={3: ValueError("secret"), 0: KeyError(1)}, notes=[HOSTILE])


def plainly(run):
    """Return a run's trace as one object, made one event after another: what the writer has to write."""
    run = run.saved
    zero, events = run.timelines[0].begin if run.timelines else 0.0, []
    for pid, timeline in enumerate(run.timelines, 1):
        label, arm_calls = timeline.arm.label, dict(run.functions()).get(pid - 1, [])
        events += [_meta("process_name", pid, 0, name=label), _meta("process_sort_index", pid, 0, sort_index=pid - 1)]
        for lane in timeline.lanes:
            worker = lane.worker
            who = f"{timeline.arm.model.name} {worker.pid if timeline.arm.model.own_process else worker.tid}"
            functions = [(b, e, clean(name, 300), {}) for each in arm_calls if each.rank == worker.rank for b, e, name in each]
            items = [
                (b, e, f"item {item}", {"item": item} | ({"error": error_words(batch.errors[item])} if item in batch.errors else {}))
                for batch in lane.batches for item, (b, e) in enumerate(zip(batch.begins, batch.ends, strict=True), batch.first)
            ]  # fmt: skip
            waits = [(piece.begin, piece.end, *slice_words(piece)) for piece in run.slices(lane)]
            rows = ((who, "function", functions), ("items", "item", items), ("waits", "wait", waits))
            for place, (name, category, pieces) in enumerate(rows):
                index = 10 * worker.rank + place
                tid = 1_000_000 * pid + index
                events += [_meta("thread_name", pid, tid, name=f"worker {worker.rank} · {name}"), _meta("thread_sort_index", pid, tid, sort_index=index)]
                same = {"cat": category, "pid": pid, "tid": tid}
                events += [{"ph": "X", "name": name} | same | times for name, times in _nested(pieces, timeline, zero)]
    other = {"title": clean(run.title), "verdict": clean(run.verdict), "notes": [clean(note) for note in run.notes]}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _meta(what, pid, tid, **args):
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _nested(pieces, timeline, zero):
    """Yield the name, and the times and arguments, of each slice: cut to the arm, and to the slice that it begins in."""
    inside = [(max(b, timeline.begin), min(e, timeline.end), *rest) for b, e, *rest in pieces if b <= timeline.end and e >= timeline.begin]
    whole = [(round((b - zero) * 1e9), round((e - zero) * 1e9), name, args) for b, e, name, args in inside]
    around: list[int] = []
    for begin, end, name, args in sorted(whole, key=lambda piece: (piece[0], -piece[1])):
        around = [other for other in around if other > begin]
        cut = max(begin, min([end, *around]))
        around.append(cut)
        yield name, {"ts": begin / 1e3, "dur": (cut - begin) / 1e3} | ({"args": args} if args else {})


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_the_stream_is_the_whole(monkeypatch, tmp_path, block):
    """However many slices are written at once, the file is what one JSON of all events would be, byte by byte; compressed, too."""
    monkeypatch.setattr(chrome, "BLOCK", block)
    for run in (busy_run(), run_of({}), two_arms(error=ValueError("x"))):
        expected = json.dumps(plainly(run), separators=(",", ":"), allow_nan=False).encode("ascii")
        save.save(run, tmp_path / "x.json")
        save.save(run, tmp_path / "x.json.gz")
        assert (tmp_path / "x.json").read_bytes() == expected
        assert gzip.decompress((tmp_path / "x.json.gz").read_bytes()) == expected


def test_the_file_tells_from_when_on_calls_are_complete():
    """Where the oldest calls of a process are lost, a mark in the row of each of its workers stands where they are complete."""
    run = busy_run()
    anchors = ((0.0, 10.0), (1e6, 11.0))
    traces = (TraceFile("", 1, anchors, {7: 1}, lost=5, since=1000.125), TraceFile("", 1, anchors, {8: 0}))
    run.timelines = (replace(run.timelines[0], traces=traces), *run.timelines[1:])
    marks = [event for event in json.loads(chrome.dumps(run))["traceEvents"] if event["ph"] == "i"]
    assert marks == [{"ph": "i", "s": "t", "name": "functions are complete from here on", "cat": "function", "pid": 1, "tid": 1_000_010, "ts": 125e3}]


def test_the_file_tells_where_no_calls_were_recorded():
    """Both ends of such a stretch have a mark in the rows of the workers that ran items in it."""
    run = busy_run()
    begin, end = run.timelines[0].lanes[1].stretches()[0]
    trace = TraceFile("", 1, ((0.0, 10.0), (1e6, 11.0)), {7: 1}, gaps=((begin - 1.0, (begin + end) / 2),))
    run.timelines = (replace(run.timelines[0], traces=(trace,)), *run.timelines[1:])
    marks = [event for event in json.loads(chrome.dumps(run))["traceEvents"] if event["ph"] == "i"]
    assert [(each["name"], each["tid"]) for each in marks] == [
        ("functions are not recorded from here on", 1_000_010), ("functions are recorded again from here on", 1_000_010),
    ]  # fmt: skip
    zero = run.timelines[0].begin
    assert [each["ts"] / 1e6 for each in marks] == pytest.approx([begin - zero, (begin + end) / 2 - zero], abs=1e-5)


MEASURE = """
import resource, sys
sys.path.insert(0, {tests!r})
from stories import run_of
from parmagic.analyze import functions
from parmagic.model.plan import Arm
from parmagic.model.recording import TraceFile
from parmagic.render import chrome, page, save
trace = TraceFile({record!r}, 1, ((0.0, 1000.0), (1e6, 1001.0)), {{7: 0}})
run = run_of({{Arm.named("threads", 1): [[("running", 1.0)]]}})
chrome.dumps(run)  # what is loaded once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run.functions = lambda: [(0, functions.read(trace))]
save.save(run, {target!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="maxrss is in kilobytes there")
def test_many_calls_need_little_memory(tmp_path):
    """A record of half a million calls, over 80 MB of JSON, is saved with less than 120 MB more; all calls are in the file."""
    record, target = tmp_path / "record.json", tmp_path / "saved.json"
    calls, name = 500_000, "a_function_of_some_length (/home/somebody/a/folder/of/some/length/module.py"
    with record.open("w") as file:
        file.write('{"traceEvents":[{"ph":"M","pid":1,"tid":7,"name":"process_name","args":{"name":"MainProcess"}}')
        file.writelines(f',{{"pid":1,"tid":7,"ts":{n}.000,"ph":"X","cat":"fee","dur":0.500,"name":"{name}:{n % 100})"}}' for n in range(calls))
        file.write('], "viztracer_metadata": {"overflow":true}}')
    script = MEASURE.format(tests=str(Path(__file__).parents[1]), record=str(record), target=str(target))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 120_000
    saved = target.read_bytes()
    assert len(saved) > 80e6
    assert saved.count(b'"cat":"function"') == calls


class Struck(Exception):
    """Something that fails in the middle of a file."""


def strikes(run, strike):
    """Return a run whose functions strike when their names are written: after half of them."""

    class Names(tuple):
        __slots__ = ()

        def __getitem__(self, place):
            strike()
            return super().__getitem__(place)

        def __iter__(self):
            strike()
            return super().__iter__()

    first, second = run.timelines
    calls = Calls(0, np.array([second.begin]), np.array([second.end]), np.array([0], dtype=np.int32), Names(["f"]))
    many = calls_of(0, *(("g", first.begin + k * 1e-6, first.begin + k * 1e-6) for k in range(20_000)))
    run.functions = lambda: [(0, [many]), (1, [calls])]
    return run


def fail():
    """Fail, as a full disk or a lost file would."""
    raise Struck


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
@pytest.mark.parametrize(("strike", "raised"), [(fail, Struck), (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt)])
def test_a_save_that_is_ended_leaves_nothing(tmp_path, suffix, strike, raised):
    """An error or Ctrl-C when half of the file is written: the older file is as it was, and nothing lies beside it."""
    target = tmp_path / f"x{suffix}"
    target.write_text("older")
    with pytest.raises(raised):
        save.save(strikes(two_arms(), strike), target)
    assert target.read_text() == "older"
    assert [one.name for one in tmp_path.iterdir()] == [target.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of a file's size")
def test_a_full_disk_leaves_nothing(tmp_path):
    """Where no more can be written, the error comes through and the part that was is gone."""
    script = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[1]); from stories import two_arms; from parmagic.render import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: save.save(two_arms(), sys.argv[2])\n"
        "except OSError as error: print(error.errno)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("27", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path):
    """Wherever a Ctrl-C strikes a save, the file is whole or as it was, and nothing lies beside it."""
    target, run = tmp_path / "x.json", two_arms()
    whole = chrome.dumps(run)
    ended = set()
    for microseconds in range(0, 4000, 40):
        target.write_text("older")
        timer = threading.Timer(microseconds * 1e-6, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            save.save(run, target)
            timer.join()
        except KeyboardInterrupt:
            ended.add("early")
        finally:
            try:
                timer.join()
            except KeyboardInterrupt:
                timer.join()
        assert target.read_bytes() in {whole, b"older"}
        assert [one.name for one in tmp_path.iterdir()] == [target.name]
    assert "early" in ended
