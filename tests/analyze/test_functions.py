"""VizTracer's records: hand-written ones, read as calls of each worker."""

from __future__ import annotations

import json
from array import array

import numpy as np
import pytest

from parmagic.analyze import functions
from parmagic.model.recording import Batch, Clocks, Samples, TraceFile, WorkerId
from parmagic.model.timeline import Calls, Lane


def _trace(events, workers, **more):
    """Return a trace whose microsecond 0 is our second 10, and 1,000,000 our second 11."""
    data = json.dumps({"traceEvents": events}).encode()
    return TraceFile("", 1, ((0.0, 10.0), (1e6, 11.0)), workers, data=data, **more)


def _call(tid, name, ts, dur):
    return {"ph": "X", "tid": tid, "name": name, "ts": ts, "dur": dur}


def test_calls_of_each_worker_on_our_clock():
    """Each worker has its own calls, the longest of a moment first; other threads, and our own functions, are left out."""
    ours = f"work ({functions._OURS}loop.py:1)"
    events = [
        {"ph": "M", "tid": 7, "name": "thread_name"}, _call(7, "inner", 0, 100_000), _call(7, "outer", 0, 500_000), _call(8, "other", 250_000, 1),
        _call(9, "a stranger's", 0, 1), _call(7, ours, 0, 900_000),
    ]  # fmt: skip
    seven, eight = functions.read(_trace(events, {7: 0, 8: 1}))
    assert (seven.rank, eight.rank) == (0, 1)
    assert list(seven) == [(10.0, 10.5, "outer"), (10.0, 10.1, "inner")]
    assert [(begin, name) for begin, _, name in eight] == [(10.25, "other")]


def test_calls_that_were_open_at_the_end_are_closed_there():
    """A call without an end lasts until the trace's own, and one that began behind it lasts no time."""
    events = [{"ph": "B", "tid": 7, "name": "open", "ts": 200_000}, {"ph": "B", "tid": 7, "name": "late", "ts": 1_200_000}]
    (calls,) = functions.read(_trace(events, {7: 0}))
    assert list(calls) == [(10.2, 11.0, "open"), (11.2, 11.2, "late")]


def test_a_missing_or_torn_file_has_no_calls(tmp_path):
    """What a killed worker left is no reason to fail."""
    torn = tmp_path / "torn.json"
    torn.write_text('{"traceEvents": [{"ph": "X"')
    for path in (torn, tmp_path / "missing.json"):
        (calls,) = functions.read(TraceFile(str(path), 1, ((0.0, 0.0), (1.0, 1.0)), {7: 0}))
        assert len(calls) == 0


_NAMES = ["f", "g (a, b.py:3)", r"in (C:\\\\x,\".py:1)", r"{\"pid\":1},{\"pid\":2}", r"\",\"ts\":1,\"", "", "é, ü"]
"""Function names as they stand in a file of VizTracer's."""


def _written(calls, *others):
    """Return a trace as VizTracer writes it: calls are thread, phase, begin, duration (ms), name; others are events in between."""
    lines = [
        f'{{"pid":1,"tid":{tid},"ts":{ts}000.000,"ph":"{phase}","cat":"fee","dur":{dur}000.000,"name":"{name}"}}'
        for tid, phase, ts, dur, name in calls
    ]
    lines[5:5] = others
    return f'{{"traceEvents":[   {",".join(lines)}], "viztracer_metadata": {{"overflow":false}}}}'.encode()


@pytest.mark.parametrize("block", [1, 300, 1000, 1 << 20])
@pytest.mark.parametrize("others", [(), ('{"pid":1,"tid":7,"ts":3.000,"ph":"i","cat":"instant","name":"a mark","s":"t","args":{}}',)], ids=["calls", "a mark"])
def test_read_as_viztracer_writes_it(monkeypatch, block, others):
    """Every call is found, by its fields or by the pattern, wherever a block ends and whatever its name."""
    monkeypatch.setattr(functions, "BLOCK", block)
    calls = [(7 + n % 2, "B" if n > 37 else "X", n, 1, _NAMES[n % len(_NAMES)]) for n in range(40)]
    data = _written(calls, *others)
    found = functions.read(TraceFile("", 1, ((0.0, 10.0), (1e6, 11.0)), {7: 0, 8: 1}, data=data))
    for rank, mine in enumerate(found):
        expected = [
            (10 + ts / 1e3, 11.0 if phase == "B" else 10 + (ts + 1) / 1e3, json.loads(f'"{name}"'))
            for tid, phase, ts, _, name in calls if tid == 7 + rank
        ]  # fmt: skip
        assert [name for *_, name in mine] == [name for *_, name in expected]
        assert [each[:2] for each in mine] == [pytest.approx(each[:2]) for each in expected]


@pytest.mark.parametrize("lost", range(1, 120, 7))
def test_a_torn_file_has_the_calls_before_its_end(lost):
    """Of a file whose end is missing, the whole calls are there."""
    data = _written([(7, "X", n, 1, "f") for n in range(9)])
    whole = data[: data.rindex(b"]") - lost].count(b'"f"')
    (calls,) = functions.read(TraceFile("", 1, ((0.0, 10.0), (1e6, 11.0)), {7: 0}, data=data[: data.rindex(b"]") - lost]))
    assert len(calls) == whole


def test_what_is_read_by_commas():
    """Blocks of calls only are read by their fields, with what the pattern finds; what has anything else in it is not."""
    block = _written([(7, "X", n, 1, name) for n, name in enumerate(_NAMES)])
    by_commas, by_pattern = functions._by_commas(block), functions._columns(functions._EVENT.findall(block))
    for key, expected in by_pattern._asdict().items():
        if key not in {"threads", "thread_of", "names", "name_of"}:
            assert list(getattr(by_commas, key)) == list(expected)
    assert [by_commas.name_of[name] for name in by_commas.names] == [name.encode() for name in _NAMES] == list(by_pattern.names)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"ts":0', '"at":0'), ('"dur":1', '"dur":x'), ('"tid":7', '"tid":-'), ('"ph":"X"', '"ph":"C"'), ('"cat":"fee"', '"cat":"fie"'),
        ('"name":"f"', '"name":7'), ('"name":"f"', '"more":1,"name":"f"'), ('"dur":1000.000,', ""),
    ],
)  # fmt: skip
def test_what_is_not_read_by_commas(old, new):
    """A block where one field is not as VizTracer writes it is left to the pattern."""
    with pytest.raises(ValueError, match=r"else|form|float"):
        functions._by_commas(_written([(7, "X", n, 1, "f") for n in range(4)]).replace(old.encode(), new.encode(), 1))


def test_within_items():
    """Calls between items are ours; one that ends behind its item is cut, the recorder's reading of the clock left out."""
    batches = (Batch(0, array("d", [1.0, 3.0]), array("d", [2.0, 4.0]), [None, None]),)
    empty = array("d")
    lane = Lane(WorkerId(0, 1, 1), (), batches, Clocks(empty, empty, empty), Samples(empty, array("b")), None)
    begins, ends = np.array([0.5, 1.0, 1.5, 1.9, 2.5, 3.5]), np.array([0.6, 1.2, 2.5, 2.1, 2.6, 3.6])
    calls = Calls(0, begins, ends, np.array([0, 0, 0, 1, 0, 0]), ("f", "time.perf_counter"))
    assert list(functions.within_items(calls, lane)) == [(1.0, 1.2, "f"), (1.5, 2.0, "f"), (3.5, 3.6, "f")]
    nothing = Lane(WorkerId(0, 1, 1), (), (), Clocks(empty, empty, empty), Samples(empty, array("b")), None)
    assert len(functions.within_items(calls, nothing)) == 0


def test_names_with_control_characters():
    """VizTracer writes them as they are, which JSON forbids: the calls are read all the same."""
    events = [_call(7, "NAME", 0, 100_000), _call(7, "other", 0, 50_000)]
    trace = _trace(events, {7: 0})
    torn = TraceFile("", 1, trace.anchors, {7: 0}, data=trace.data.replace(b"NAME", b"a\x1bb\nc\td"))
    (calls,) = functions.read(torn)
    assert [name for _, _, name in calls] == ["a\x1bb\nc\td", "other"]


def _as_viztracer_writes(*calls):
    """Return a record, byte by byte as VizTracer 1.1.1 dumps it: (thread, begin, phase, duration, name)."""
    head = '{"traceEvents":[{"ph":"M","pid":1,"tid":1,"name":"process_name","args":{"name":"MainProcess"}},'
    body = ",".join(
        f'{{"pid":1,"tid":{tid},"ts":{ts // 1000}.{ts % 1000:03d},"ph":"{ph}","cat":"fee","dur":{dur // 1000}.{dur % 1000:03d},"name":"{name}"}}'
        for tid, ts, ph, dur, name in calls
    )
    return f'{head}{body}], "viztracer_metadata": {{"overflow":false}}}}'.encode()


HOSTILE = (r'f (/tmp/a\"b\\c},{\"pid\":1.py:1)', "g (\x1b\n,]}.py:2)", r"no\escape", "größe (ä.py:3)")
READ = ('f (/tmp/a"b\\c},{"pid":1.py:1)', "g (\x1b\n,]}.py:2)", r"no\escape", "größe (ä.py:3)")


@pytest.mark.parametrize("block", [1, 50, 333, 1 << 20])
def test_what_viztracer_writes_is_read_in_blocks(tmp_path, monkeypatch, block):
    """Wherever a block ends, in a name or a number, the calls are the same; whatever a name holds, it is not taken for the next call."""
    monkeypatch.setattr(functions, "BLOCK", block)
    calls = [(7 + n % 2, 1000 * n, "X", 500, HOSTILE[n % 4]) for n in range(40)] + [(7, 50_000, "B", 0, "open")]
    file = tmp_path / "record.json"
    file.write_bytes(_as_viztracer_writes(*calls, (9, 0, "X", 1, "a stranger's")))
    seven, eight = functions.read(TraceFile(str(file), 1, ((0.0, 0.0), (100.0, 100.0)), {7: 0, 8: 1}))
    assert list(seven) == [(n, n + 0.5, READ[n % 4]) for n in range(0, 40, 2)] + [(50.0, 100.0, "open")]
    assert list(eight) == [(n, n + 0.5, READ[n % 4]) for n in range(1, 40, 2)]


def test_what_is_whole_of_a_torn_record_is_read(tmp_path):
    """A record that ends within a call has those before it."""
    file = tmp_path / "record.json"
    file.write_bytes(_as_viztracer_writes((7, 1000, "X", 500, "f"), (7, 2000, "X", 500, "g"))[:-60])
    (calls,) = functions.read(TraceFile(str(file), 1, ((0.0, 0.0), (1.0, 1.0)), {7: 0}))
    assert list(calls) == [(1.0, 1.5, "f")]
