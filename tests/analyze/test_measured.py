"""The ledger of measured workers: hand-written tallies and waits, exact numbers."""

from __future__ import annotations

import logging
from array import array

import numpy as np
import pandas as pd
import pytest

from parmagic.analyze import rules, tables
from parmagic.analyze import waits as waits_of
from parmagic.analyze.ledger import ledger
from parmagic.analyze.merge import merge
from parmagic.model.kinds import EVENTS, MEASURED, WAIT_KINDS, WORKER_STATES
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Readings, Recording, Span, Tally, WorkerId
from parmagic.model.timeline import Slice
from parmagic.model.waits import WAIT_LAYOUT, Total, Waits
from parmagic.record import meter
from parmagic.render.figures import slice_words

STARTUP = (Span("startup", 0.0, 1.0),)
EMPTY = dict.fromkeys(MEASURED, 0.0)


def tally(*readings):
    """Return a tally of (time, {state: seconds so far})."""
    rows = array("d")
    for at, states in readings:
        rows.extend([at, *({**EMPTY, **states}[state] for state in MEASURED)])
    return Tally(rows)


def waits(*singles, lost=0):
    """Return waits of (kind, begin, end, and what differs)."""
    packed = b"".join(
        WAIT_LAYOUT.pack(
            round(begin * 1e9), round(end * 1e9), more.get("object", 0), WAIT_KINDS.index(kind), more.get("holder", -1),
            more.get("line", 0), more.get("with_gil", 0), more.get("what", 0),
        )
        for kind, begin, end, more in singles
    )  # fmt: skip
    return Waits(packed, lost)


def timeline(*readings, items=((1.0, 9.0),), spans=STARTUP, totals=(), kind="threads", ranks=1):
    """Return an arm of 10 s; worker 0 has these readings (tally, waits) and items, others have nothing to do."""
    batch = Batch(0, array("d", [b for b, _ in items]), array("d", [e for _, e in items]), [None] * len(items))
    parts = [
        Recording(WorkerId(0, 1, 2), spans=tuple(spans), batches=(batch,)),
        *(Recording(WorkerId(0, 1, 2), readings=Readings(tally=t, waits=w)) for t, w in readings),
        Recording(WorkerId(0, 1, 2), totals=tuple(totals)),
        *(Recording(WorkerId(rank, 1, 2 + rank), readings=Readings(tally=tally((0.5, {})), waits=Waits())) for rank in range(1, ranks)),
    ]
    return merge(Arm.named(kind, ranks), 0.0, 10.0, len(items), parts, {})


def row(arm):
    """Return worker 0's states."""
    return {state: tables.workers_table([arm]).loc[(arm.arm.label, 0), f"{state}_s"] for state in WORKER_STATES}


def test_seconds_between_readings_are_the_tallys():
    """Without single waits each state has the tally's seconds, and everything tiles the wall time."""
    found = row(timeline((tally((1.0, {}), (9.0, {"running": 5.0, "native": 1.0, "gil_wait": 1.5, "cpu_wait": 0.5})), waits())))
    assert found == pytest.approx(
        {**dict.fromkeys(WORKER_STATES, 0.0), "startup": 1.0, "running": 5.0, "native": 1.0, "gil_wait": 1.5, "cpu_wait": 0.5, "idle": 1.0}
    )


@pytest.mark.parametrize(
    ("readings", "running", "unknown"),
    [
        (((1.0, {"cpu_wait": np.nan}), (9.0, {"running": 5.0, "gil_wait": 1.0, "cpu_wait": np.nan})), 5.0, 2.0),
        (((1.0, {}), (5.0, {"running": 2.0, "gil_wait": 1.0, "cpu_wait": 1.0}), (9.0, {"running": 4.0, "gil_wait": 1.0, "cpu_wait": np.nan})), 4.0, 3.0),
    ],
    ids=["never", "no more"],
)  # fmt: skip
def test_a_run_queue_that_cannot_be_read(readings, running, unknown):
    """Where the run queue's clock cannot be read (any more), the wait for a core is NaN, and what no state claims is unknown."""
    found = row(timeline((tally(*readings), waits())))
    assert np.isnan(found.pop("cpu_wait"))
    assert found == pytest.approx(
        {**dict.fromkeys(found, 0.0), "startup": 1.0, "running": running, "gil_wait": 1.0, "idle": 1.0, "unknown": unknown}
    )


def test_waits_lie_where_they_were():
    """A kept wait fills its own time with its state; the rest of the interval has the other states."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 6.0, "gil_wait": 2.0})), waits(("gil", 2.0, 4.0, {}))))
    shares = ledger(arm, arm.lanes[0]).shares(np.arange(0.0, 11.0))
    assert shares["gil_wait"] == pytest.approx([0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    assert shares["running"] == pytest.approx([0, 1, 0, 0, 1, 1, 1, 1, 1, 0])


def test_what_tells_of_no_wait_is_none():
    """Events of other things than waits stay in the record, and change no table, slice, note, or what a worker is said to do."""
    singles = [("lock", 2.0, 3.0, {"object": 7}), ("not named", 4.0, 4.4, {"with_gil": 1})]
    others = [("lock", 3.0, 8.0, {"object": 7, "what": EVENTS.index("took")}), ("sleep", 8.0, 8.9, {"with_gil": 1, "what": EVENTS.index("released")})]
    readings = tally((1.0, {}), (9.0, {"running": 6.0, "lock_wait": 1.0, "io_wait": 1.0}))
    totals = (Total("lock", 7, 0, 1, 1.0, 1.0), Total("not named", 0, 0, 1, 0.4, 0.4, 0.4))
    plain, more = (timeline((readings, each), totals=totals, ranks=2) for each in (waits(*singles), waits(*singles[:1], *others, *singles[1:], *others)))
    assert len(list(more.lanes[0].waits.every())) == 6
    assert list(more.lanes[0].waits) == list(plain.lanes[0].waits)
    assert more.lanes[0].waits.last == plain.lanes[0].waits.last
    assert waits(*others).last is None
    assert [wait.begin for wait in more.lanes[0].waits.shifted(1.0).every()] == [wait.begin + 10**9 for wait in more.lanes[0].waits.every()]
    assert row(more) == row(plain)
    assert waits_of.slices(more.lanes[0]) == waits_of.slices(plain.lanes[0])
    assert rules.of_arm(more) == rules.of_arm(plain) != []


def test_waits_that_were_not_kept_are_spread():
    """Where the tally has more of a state than the kept waits, the rest is spread over the open time."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 3.0, "gil_wait": 5.0})), waits(("gil", 1.0, 3.0, {}))))
    shares = ledger(arm, arm.lanes[0]).shares(np.array([1.0, 3.0, 9.0]))
    assert shares["gil_wait"] == pytest.approx([2.0, 3.0])
    assert shares["running"] == pytest.approx([0.0, 3.0])


def test_a_call_that_copied_data_was_at_work_meanwhile():
    """An I/O call counts as I/O only for as long as the tally says; the rest of it is work."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 4.0, "native": 3.0, "io_wait": 1.0})), waits(("file", 1.0, 5.0, {"object": 7}))))
    shares = ledger(arm, arm.lanes[0]).shares(np.array([1.0, 5.0, 9.0]))
    assert shares["io_wait"] == pytest.approx([1.0, 0.0])
    assert shares["running"] + shares["native"] == pytest.approx([3.0, 4.0])


def test_items_get_their_own_waits():
    """Each item's row has the waits that lie in it."""
    arm = timeline(
        (tally((1.0, {}), (5.0, {"running": 3.0, "lock_wait": 1.0}), (9.0, {"running": 5.0, "lock_wait": 1.0, "io_wait": 2.0})),
         waits(("lock", 2.0, 3.0, {}), ("socket", 6.0, 8.0, {}))),
        items=((1.0, 5.0), (5.0, 9.0)),
    )  # fmt: skip
    table = tables.items_table([arm])
    assert table["lock_wait_s"].tolist() == pytest.approx([1.0, 0.0])
    assert table["io_wait_s"].tolist() == pytest.approx([0.0, 2.0])
    assert table["running_s"].tolist() == pytest.approx([3.0, 2.0])


def test_waiting_for_the_gil_is_not_idle():
    """A worker that is ready and waits for the GIL to begin its first item is not idle."""
    arm = timeline((tally((0.5, {}), (3.0, {"gil_wait": 1.5, "lock_wait": 1.0}), (9.0, {"gil_wait": 1.5, "lock_wait": 1.0, "running": 6.0})),
                    waits(("gil", 1.5, 3.0, {}))), items=((3.0, 9.0),))  # fmt: skip
    found = row(arm)
    assert (found["startup"], found["idle"], found["gil_wait"], found["running"]) == pytest.approx((1.0, 1.5, 1.5, 6.0))


def test_what_others_make_of_a_start_is_theirs():
    """Of a worker's start-up, what it waited for the GIL or for a core is that, also before its first own reading."""
    arm = timeline((tally((0.0, {}), (0.5, {"running": 0.1, "cpu_wait": 0.1, "gil_wait": 0.3}), (1.0, {"running": 0.4, "cpu_wait": 0.3, "gil_wait": 0.3}),
                           (9.0, {"running": 8.4, "cpu_wait": 0.3, "gil_wait": 0.3})), waits(("gil", 0.2, 0.5, {}))), items=((1.0, 9.0),))  # fmt: skip
    found = row(arm)
    assert (found["startup"], found["cpu_wait"], found["gil_wait"], found["idle"]) == pytest.approx((0.4, 0.3, 0.3, 1.0))


def test_beyond_the_last_reading_nothing_is_known():
    """A worker that was killed within an item left no reading behind: from the last one on its time is unknown."""
    found = row(timeline((tally((1.0, {}), (4.0, {"running": 3.0})), waits())))
    assert found["running"] == pytest.approx(3.0)
    assert found["unknown"] == pytest.approx(5.0)


def test_transfers_keep_their_time():
    """An interval between readings that a transfer lies in is scaled to what the transfer leaves of it."""
    spans = (Span("startup", 0.0, 1.0), Span("transfer", 5.0, 6.0))
    first = Batch(0, array("d", [1.0]), array("d", [5.0]), [None])
    second = Batch(1, array("d", [6.0]), array("d", [9.0]), [None])
    found = tally((1.0, {}), (5.0, {"running": 4.0}), (6.0, {"running": 4.2, "io_wait": 0.8}), (9.0, {"running": 7.2, "io_wait": 0.8}))
    part = Recording(WorkerId(0, 1, 2), spans=spans, batches=(first, second), readings=Readings(tally=found, waits=Waits()))
    states = row(merge(Arm.named("procs", 1), 0.0, 10.0, 2, [part], {}))
    assert (states["transfer"], states["running"], states["io_wait"], states["idle"]) == pytest.approx((1.0, 7.0, 0.0, 1.0))


@pytest.mark.parametrize("seed", range(20))
def test_states_tile_the_wall_time_whatever_is_recorded(seed):
    """For random tallies and waits, also contradictory ones, no state is negative and all add up to the wall time."""
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0.5, 9.5, 6))
    sums = np.cumsum(random.uniform(0.0, 1.0, (6, len(MEASURED))), axis=0)
    readings = [(at, dict(zip(MEASURED, values, strict=True))) for at, values in zip(times, sums, strict=True)]
    edges = np.sort(random.uniform(0.0, 10.0, 16)).reshape(-1, 2)
    singles = [(str(random.choice(WAIT_KINDS)), begin, end, {}) for begin, end in edges]
    arm = timeline((tally(*readings), waits(*singles)), items=((1.0, 4.0), (4.0, 9.0)))
    found = row(arm)
    assert min(found.values()) >= -1e-12
    assert sum(found.values()) == pytest.approx(10.0, rel=1e-9)


def test_a_restarted_worker_goes_on():
    """A rank whose process was replaced counts from zero again; its account goes on where the first one ended."""
    parts = [
        Recording(WorkerId(0, 1, 1), readings=Readings(tally=tally((1.0, {}), (3.0, {"running": 2.0})))),
        Recording(WorkerId(0, 9, 9), readings=Readings(tally=tally((5.0, {}), (6.0, {"sleep": 1.0})))),
        Recording(WorkerId(0, 9, 9), readings=Readings(tally=tally((6.0, {"sleep": 1.0}), (7.0, {"sleep": 2.0})))),
    ]
    joined = merge(Arm.named("procs", 1), 0.0, 8.0, 0, parts, {}).lanes[0].tally
    rows = np.array(joined.rows).reshape(-1, 1 + len(MEASURED))
    assert rows[:, 0].tolist() == [1.0, 3.0, 5.0, 6.0, 6.0, 7.0]
    assert rows[:, 1 + MEASURED.index("running")].tolist() == [0.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rows[:, 1 + MEASURED.index("sleep")].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 2.0]


def test_waits_table():
    """One row per kind, object, line and place, the longest first; locks by address, I/O by descriptor."""
    totals = (Total("sleep", 0, 0, 2, 0.5, 0.3), Total("lock", 0xBEEF, 4, 3, 1.5, 1.0), Total("socket", 7, 5, 1, 0.25, 0.25))
    table = tables.waits_table([timeline((tally((1.0, {}), (9.0, {"running": 8.0})), waits()), totals=totals)])
    assert table.columns.tolist() == ["kind", "object", "line", "place", "n", "total_s", "max_s"]
    assert table["kind"].tolist() == ["lock", "sleep", "socket"]
    assert table["object"].tolist()[::2] == ["0xbeef", "fd 7"]
    assert pd.isna(table["object"].tolist()[1])
    assert table["line"].tolist()[0] == 4
    assert np.isnan(table["line"].tolist()[1])
    assert table["n"].tolist() == [3, 2, 1]
    assert table["place"].isna().all()
    assert set(table.index) == {("threads=1", 0)}


def test_what_is_called_the_same_at_one_place_is_one_row():
    """Locks of a library have one name, as it is not known which is which; another line, place or kind is another row."""
    same = {"place": f"{logging.__file__}:9:0:0"}
    totals = (
        Total("lock", 0xBEEF, 4, 3, 1.5, 1.0, **same), Total("lock", 0xFEED, 4, 1, 2.5, 2.5, **same), Total("lock", 0xFEED, 5, 1, 0.5, 0.5, **same),
        Total("lock", 0xBEEF, 4, 1, 0.25, 0.25, name="a lock in logging"), Total("queue", 0xBEEF, 4, 1, 0.125, 0.125, **same),
    )  # fmt: skip
    table = tables.waits_table([timeline((tally((1.0, {}), (9.0, {"running": 8.0})), waits()), totals=totals)])
    assert set(table["object"]) == {"a lock in logging", "a queue in logging"}
    assert table["place"].fillna("").tolist() == ["logging/__init__.py:9", "logging/__init__.py:9", "", "logging/__init__.py:9"]
    assert table["n"].tolist() == [4, 1, 1, 1]
    assert table["total_s"].tolist() == [4.0, 0.5, 0.25, 0.125]
    assert table["max_s"].tolist() == [2.5, 0.5, 0.25, 0.125]


def test_who_held_the_gil_while_blocked():
    """The note names the worker, the seconds, the item and the line."""
    singles = waits(("not named", 2.0, 2.4, {"with_gil": 1, "line": 5}), ("sleep", 6.0, 6.1, {"with_gil": 1}))
    totals = (Total("not named", 0, 5, 1, 0.4, 0.4, 0.4), Total("sleep", 0, 0, 1, 0.1, 0.1, 0.1))
    arm = timeline((tally((1.0, {}), (9.0, {"running": 8.0})), singles), items=((1.0, 2.0), (2.0, 9.0)), totals=totals, ranks=2)
    (finding,) = rules.of_arm(arm)
    assert "worker 0 held the GIL while blocked for 0.50 s, most of it in item 1, line 5" in finding.text
    assert (finding.rule, finding.arm, finding.severity, finding.evidence) == ("held_gil", "threads=2", "warning", {"rank": 0, "blocked_s": 0.5})


@pytest.mark.parametrize("changes", [{"ranks": 1}, {"ranks": 2, "kind": "procs"}])
def test_holding_the_gil_alone_is_nobodys_business(changes):
    """With one thread, or in processes, nobody waits for a GIL that is held while blocked."""
    totals = (Total("not named", 0, 5, 1, 0.4, 0.4, 0.4),)
    arm = timeline((tally((1.0, {}), (9.0, {"running": 8.0})), waits()), totals=totals, **changes)
    assert rules.of_arm(arm) == []


def test_lost_waits_are_noted():
    """Waits that did not fit are counted in a note."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 8.0})), waits(lost=1234)))
    (finding,) = rules.of_arm(arm)
    assert finding.text.startswith("1,234 single waits of threads=1 did not fit")


def test_trace_names_the_holder():
    """A wait for the GIL is drawn with the worker that held it, at the place where it was."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 6.0, "gil_wait": 2.0})), waits(("gil", 2.0, 4.0, {"holder": 3, "line": 7}))))
    (piece,) = [piece for piece in waits_of.slices(arm.lanes[0]) if piece.state != "startup"]
    assert piece == Slice(2.0, 4.0, "gil_wait", "gil", holder=3, line=7)
    assert slice_words(piece) == ("GIL, held by worker 3", {"kind": "gil", "line": 7})


def test_gil_free_native_is_absent():
    """Without a GIL, native code cannot be told from Python: NaN; there is no GIL wait."""
    arm = timeline((tally((1.0, {}), (9.0, {"running": 8.0})), waits()))
    free = merge(arm.arm, 0.0, 10.0, 1, [Recording(WorkerId(0, 1, 2), readings=Readings(tally=arm.lanes[0].tally))], {}, gil=False)
    found = row(free)
    assert np.isnan(found["native"])
    assert found["gil_wait"] == 0.0


def test_a_torn_reading_is_dropped():
    """Where an interrupt came between the two halves of a reading of inferred waits, the next one does not shift them."""
    gauge = meter.meter(0, own_process=False, measuring=False)
    gauge._at.append(1.0)
    clocks = gauge.take().clocks
    gauge.close()
    assert len(clocks.at) == len(clocks.cpu) == len(clocks.queue) == 2
    assert 1.0 not in clocks.at
