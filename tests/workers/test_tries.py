"""``--retry`` and ``--item-timeout``: in every model, and in the baseline, an item is tried again, and no try takes longer than it may."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from arms import MODELS

import parmagic
from parmagic.errors import ItemTimeout, LineError, WorkerDied
from parmagic.record import hooks
from parmagic.workers.processes.member import Heir, Member
from parmagic.workers.processes.wreck import Wreck

PROCS = [model for model in MODELS if "procs" in model]
FLAKY = """
import os, pathlib, signal, threading, time
class Odd(Exception): pass
def count(n):
    \"\"\"Tell for which time this is called of n, in whichever process.\"\"\"
    with open(f"tries-{n}", "a") as file: file.write("x")
    return len(pathlib.Path(f"tries-{n}").read_text())
def fails(n, times):
    if count(n) <= times: raise Odd(n)
def dies(n, times):
    if count(n) <= times: os.kill(os.getpid(), signal.SIGKILL)
def hangs(n, times):
    if count(n) <= times:
        while True: time.sleep(0.001)
"""


@pytest.fixture
def flaky(ip):
    """A notebook with functions that fail the first times."""
    ip(FLAKY)
    return ip


def tries(run):
    """Return how often each item of the only arm was tried."""
    return run.items["tries"].tolist()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chunk", ["", "--chunk 4"])
def test_an_item_is_tried_again(flaky, model, chunk):
    """Until it does not fail; the table and a note say how often, and nothing is an error."""
    run = flaky(f"%%parallel {model} {chunk} -q --once --retry 2 for n in range(6)\nfails(n, n % 3)\nn * 10")
    assert run.results == [0, 10, 20, 30, 40, 50]
    assert tries(run) == [1, 2, 3, 1, 2, 3]
    assert run.error is None
    assert run.items["error"].isna().all()
    label = run._study.timelines[0].arm.label
    assert f"{label}: 4 items needed more than one try: item 1 (2 tries), item 2 (3 tries), item 4 (2 tries), item 5 (3 tries)." in run.notes


@pytest.mark.parametrize("model", MODELS)
def test_the_last_failure_counts(flaky, model):
    """Where no try is left, the item fails as it does without; so does the run, but with --keep-going."""
    body = "if n == 1: raise Odd(count(1))\nn"
    error = flaky.fails(f"%%parallel {model} -q --once --retry 2 for n in range(3)\n{body}")
    assert (type(error).__name__, error.args) == ("Odd", (3,))
    run = flaky(f"%%parallel {model} -q --once --retry 1 --keep-going for n in range(3)\n{body}")
    assert run.items["error"].tolist() == [None, "Odd: 5", None]
    assert tries(run) == [1, 2, 1]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("raised", ["SystemExit(3)", "GeneratorExit()"])
def test_what_is_not_tried_again(flaky, model, raised):
    """What is no Exception ends the item at once."""
    run = flaky(f"%%parallel {model} -q --once --retry 3 --keep-going for n in range(2)\nfails(2, 0)\nif n: raise {raised}\nn")
    assert tries(run) == [1, 1]
    assert run.items["error"].tolist()[1].startswith(raised.partition("(")[0])


@pytest.mark.parametrize("model", MODELS)
def test_break_ends_the_loop_at_whatever_try(flaky, model):
    """A break is no failure; an item that breaks at its second try has two."""
    run = flaky(f"%%parallel {model} -q --once --retry 1 for n in range(9)\nif n == 4:\n    fails(n, 1)\n    break\nn")
    assert run.error is None
    assert run._study.timelines[0].broke == 4
    assert run.items["tries"].tolist()[4] == 2


@pytest.mark.parametrize("model", MODELS)
def test_random_numbers_are_a_try_s_own(flaky, model):
    """The last try draws what the only one would have drawn."""
    body = "drawn = worker.rng.random(3).tolist()\nfails(n, {} * (n % 2))\ndrawn"
    plain = flaky(f"%%parallel {model} -q --once --seed 5 for n in range(4)\n{body.format(0)}")
    run = flaky(f"%%parallel {model} -q --once --seed 5 --retry 2 for n in range(10, 14)\n{body.format(2)}")
    assert run.results == plain.results


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_the_baseline_tries_as_well(flaky, model):
    """It is measured, and its results are the arm's."""
    run = flaky(f"%%parallel {model} -q --retry 1 for n in range(4)\nif n == 2 and os.getpid() and not hasattr(os, 'once'):\n    os.once = 1\n    raise Odd\nn")
    assert run.summary["baseline"].tolist() == ["measured"]
    assert not [note for note in run.notes if "disagree" in note or "failed" in note]


@pytest.mark.parametrize("method", ["", "--start-method spawn", "--start-method fork"])
def test_spmd_ranks_are_tried_again(flaky, method):
    """Each by itself, also behind a death: the one in its place begins at once, and nobody else begins again."""
    run = flaky(f"%%parallel procs=3 {method} -q --once --retry 2\n(fails if worker.rank == 0 else dies)(worker.rank, worker.rank)\ncount('all'), worker.rank")
    assert [rank for _, rank in run.results] == [0, 1, 2]
    assert tries(run) == [1, 2, 3]
    assert run.error is None


@pytest.mark.parametrize("model", PROCS)
@pytest.mark.parametrize("more", ["", "--keep-going", "--chunk 3"])
def test_a_death_costs_a_try(flaky, model, more):
    """Another process of the rank tries the item again, also without --keep-going; what was lost with it runs again; a note tells of it."""
    run = flaky(f"%%parallel {model} {more} -q --once --retry 2 for n in range(8)\nif n == 5:\n    fails('5 once', 1)\n    dies(n, 1)\nn * 10")
    assert run.results == [n * 10 for n in range(8)]
    assert tries(run) == [1] * 5 + [3, 1, 1]
    assert run.error is None
    (note,) = [note for note in run.notes if "tried again" in note]
    assert "was killed by SIGKILL in item 5" in note
    lane = next(lane for lane in run._study.timelines[0].lanes if lane.lost_tries)
    (lost,) = lane.lost_tries
    (row,) = run.items[run.items["tries"] == 3].to_dict("records")
    assert row["wall_s"] >= lost.ends[0] - lost.begins[0]
    assert row["start_s"] == pytest.approx(lost.begins[0] - run._study.timelines[0].begin)
    assert run.workers["n_items"].sum() == 8


@pytest.mark.parametrize("model", PROCS)
def test_the_last_death_counts(flaky, model):
    """It is the item's error, with all of its tries."""
    error = flaky.fails(f"%%parallel {model} -q --once --retry 1 for n in range(3)\nif n == 1: dies(n, 9)\nn")
    assert isinstance(error, WorkerDied)
    run = parmagic.last()
    assert run.items["tries"].tolist()[1] == 2
    run = flaky(f"%%parallel {model} -q --once --retry 2 --keep-going for n in range(5)\nif n == 1: dies(10 + n, 9)\nn")
    assert run.results == [0, None, 2, 3, 4]
    assert tries(run) == [1, 3, 1, 1, 1]


def test_a_baseline_that_dies_is_tried_again(flaky):
    """Its worker is replaced; what that took to start counts as no work, so the baseline is scaled."""
    run = flaky("%%parallel threads=2 -q --retry 1 for n in range(4)\nif n == 2 and 'parmagic' in pathlib.Path('/proc/self/comm').read_text(): dies(n, 1)\ntime.sleep(0.01)\nn")
    assert run.results == [0, 1, 2, 3]
    assert run.summary["baseline"].tolist() in (["sampled"], ["measured"])
    assert run.error is None


@pytest.mark.parametrize("model", MODELS)
def test_an_item_over_its_time(flaky, model):
    """It fails with ItemTimeout, what its body has opened is closed, and the others go on under --keep-going."""
    body = "try:\n    if n == 2: hangs(n, 9)\nfinally:\n    count(f'closed {n}')\nn"
    run = flaky(f"%%parallel {model} -q --once --item-timeout 0.2 --keep-going for n in range(6)\n{body}")
    assert run.results == [0, 1, None, 3, 4, 5]
    assert run.items["error"].tolist()[2] == "ItemTimeout: took longer than --item-timeout 0.2 s"
    assert isinstance(run._study.timelines[0].errors[2], ItemTimeout)
    assert run.items["wall_s"].tolist()[2] >= 0.2
    assert (flaky("count('closed 2')")) == 2


def test_who_was_heard_late():
    """An item that is ended for its time began when it did, and not when the report of the one before was heard: here, after that."""
    member = Member(Heir(0))
    try:
        member.heard, member.began = 100.0, 99.5
        (batch,) = Wreck(7, 100.25, (0.0, None, ()), []).cut_off(member, 3, None, "", 1).batches
    finally:
        member.close()
    assert (batch.begins[0], batch.ends[0]) == (99.5, 100.25)


@pytest.mark.parametrize("model", MODELS)
def test_it_ends_the_run(flaky, model):
    """Without --keep-going, as any other failure; the error tells of its item."""
    error = flaky.fails(f"%%parallel {model} -q --once --item-timeout 0.2 for n in range(4)\nif n == 1: hangs(n, 9)\nn")
    assert isinstance(error, ItemTimeout)
    assert any("item 1" in note for note in error.__notes__)


@pytest.mark.parametrize("model", MODELS)
def test_a_time_is_a_try_s(flaky, model):
    """Tries that are over their time are tried again, each with all of its time; many short items take as long as they like together."""
    run = flaky(f"%%parallel {model} -q --once --item-timeout 0.3 --retry 2 for n in range(4)\nif n == 1: hangs(n, 2)\nelse: time.sleep(0.2)\nn")
    assert run.results == [0, 1, 2, 3]
    assert tries(run) == [1, 3, 1, 1]
    assert run.items["wall_s"].tolist()[1] >= 0.6


SWALLOWS = {
    "except Exception": "while True:\n    try:\n        while True: time.sleep(0.001)\n    except Exception: pass",
    "except BaseException": "try:\n    while True: time.sleep(0.001)\nexcept BaseException: pass",
    "in a finally": "try:\n    pass\nfinally:\n    while True: time.sleep(0.001)",
    "another error": "try:\n    while True: time.sleep(0.001)\nexcept BaseException: raise Odd('mine')",
    "in a generator": "def forever():\n    while True: yield time.sleep(0.001)\nfor _ in forever(): pass",
    "in a with": "lock = threading.Lock()\nwith lock:\n    while True: time.sleep(0.001)",
    "late, and well": "time.sleep(0.25)",
}


@pytest.mark.parametrize("model", ["serial", "threads=2", "procs=2", "procs=2 --start-method fork"])
@pytest.mark.parametrize("what", SWALLOWS)
def test_whatever_the_body_makes_of_it(flaky, model, what):
    """What catches an Exception does not catch this one, and who catches all is late all the same."""
    body = f"if n == 1:\n    {SWALLOWS[what].replace(chr(10), chr(10) + '    ')}\nn"
    run = flaky(f"%%parallel {model} -q --once --item-timeout 0.15 --keep-going for n in range(3)\n{body}")
    assert run.results == [0, None, 2]
    assert run.items["error"].tolist()[1].startswith("ItemTimeout: took longer than --item-timeout 0.15 s")


@pytest.fixture
def blocked(flaky):
    """A pipe that is empty, in which Python cannot interrupt a thread; it is filled behind the test, which waits for the thread."""
    near, far = os.pipe()
    before = set(threading.enumerate())
    flaky.space.update(os=os, near=near)
    yield flaky
    os.write(far, b"more than is read")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    os.close(near)
    os.close(far)


def test_a_thread_that_is_blocked_in_c(blocked):
    """It is named, its item fails, and nobody waits for it; what it does when it comes back is nobody's."""
    begin = time.monotonic()
    run = blocked("%%parallel threads=2 -q --once --item-timeout 0.2 --keep-going for n in range(6)\nif n == 1: os.read(near, 1)\nn")
    assert time.monotonic() - begin < 5
    assert run.results == [0, None, 2, 3, 4, 5]
    assert run.items["error"].tolist()[1] == "ItemTimeout: took longer than --item-timeout 0.2 s, and is blocked"
    assert any("is blocked" in note and "left behind" in note for note in run.notes)


def test_a_blocked_thread_ends_the_run(blocked):
    """Without --keep-going at once, however long it stays there."""
    begin = time.monotonic()
    error = blocked.fails("%%parallel threads=2 -q --once --item-timeout 0.2 for n in range(6)\nif n == 1: os.read(near, 1)\nn")
    assert time.monotonic() - begin < 5
    assert isinstance(error, ItemTimeout)


@pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")
def test_threads_that_wait_for_a_lock(flaky):
    """They are ended in their waits, each of them, where these are measured: the lock is as it was, and nobody is left behind."""
    lock, before = threading.Lock(), set(threading.enumerate())
    flaky.space["lock"] = lock
    with lock:
        run = flaky("%%parallel threads=4 -q --once --item-timeout 0.2 --keep-going for n in range(8)\nif 0 < n < 4:\n    with lock: pass\nn")
        assert run.results == [0, None, None, None, 4, 5, 6, 7]
        assert set(run.items["error"][1:4]) == {"ItemTimeout: took longer than --item-timeout 0.2 s"}
        assert set(threading.enumerate()) == before


def test_a_blocked_thread_that_comes_back(flaky):
    """While others have items, its own counts when it returns: it has failed, with all of its time, and it takes the next ones."""
    flaky("import ctypes\nsleep = ctypes.CDLL(None).usleep")
    run = flaky("%%parallel serial -q --once --item-timeout 0.2 --keep-going for n in range(4)\nif n == 1: sleep(600_000)\nn")
    assert run.results == [0, None, 2, 3]
    assert run.items["error"].tolist()[1] == "ItemTimeout: took longer than --item-timeout 0.2 s"
    assert run.items["wall_s"].tolist()[1] >= 0.6


@pytest.mark.parametrize("model", PROCS)
def test_a_process_that_holds_on_is_killed(flaky, model):
    """One that ignores what it is asked, or is in C, is killed a second later, and replaced."""
    body = "if n == 1:\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    hangs(n, 9)\nos.getpid()"
    run = flaky(f"%%parallel {model} -q --once --item-timeout 0.2 --keep-going for n in range(8)\n{body}")
    assert run.items["error"].tolist()[1] == "ItemTimeout: took longer than --item-timeout 0.2 s"
    assert all(run.results[:1] + run.results[2:])


@pytest.mark.parametrize("model", ["procs=2", "procs=2 --start-method fork"])
def test_a_process_is_replaced(flaky, model):
    """Items behind one that was over its time run in another process of that rank."""
    body = "Path(f'pid-{n}').write_text(str(os.getpid()))\nif n < 2: hangs(n, 9)\nos.getpid()"
    run = flaky(f"%%parallel {model} -q --once --item-timeout 0.3 --keep-going for n in range(6)\nfrom pathlib import Path\n{body}")
    assert run.results[:2] == [None, None]
    assert not set(run.results[2:]) & {int(Path(f"pid-{n}").read_text()) for n in range(2)}
    assert run.workers["n_items"].sum() == 6


def test_spmd_over_its_time(flaky):
    """A rank that is over its time fails, and the others keep their results."""
    run = flaky("%%parallel procs=3 -q --once --item-timeout 0.3 --keep-going\nif worker.rank == 1: hangs(1, 9)\nworker.rank")
    assert run.results == [0, None, 2]


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_the_baseline_has_the_same_time(flaky, model):
    """An item that is over its time in the baseline as well ends neither."""
    run = flaky(f"%%parallel {model} -q --item-timeout 0.3 --keep-going for n in range(4)\nif n == 2: hangs('every', 99)\ntime.sleep(0.01)\nn")
    assert run.results == [0, 1, None, 3]
    assert run.summary["baseline"].tolist() == ["sampled"]


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "procs=2 --start-method spawn"])
def test_a_result_that_cannot_go_home(flaky, model):
    """No try of the body has failed: it is not tried again for that, and its tries are told."""
    run = flaky(f"%%parallel {model} -q --once --retry 2 --keep-going for n in range(3)\nif n == 1: fails(n, 1)\nthreading.Lock() if n == 1 else n")
    assert tries(run) == [1, 2, 1]
    error = run.items["error"].tolist()[1]
    assert error is None if "threads" in model else "cannot be sent back" in error


def test_ctrl_c_is_not_tried_again(flaky):
    """It ends the run, whatever tries are left."""
    strike = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    strike.start()
    error = flaky.fails("%%parallel threads=2 -q --once --retry 5 --item-timeout 30 for n in range(2)\nhangs(n, 9)")
    strike.join()
    assert isinstance(error, KeyboardInterrupt)
    assert max(parmagic.last().items["tries"]) == 1


@pytest.mark.parametrize("wrong", ["--retry -1", "--retry x", "--retry 1.5", "--item-timeout 0", "--item-timeout -1", "--item-timeout x", "--item-timeout inf"])
def test_what_is_no_number(ip, wrong):
    """A count is whole, and 0 or more; seconds are above 0."""
    assert wrong.split()[0] in str(ip.fails(f"%%parallel threads=2 {wrong} for n in range(3)\nn"))


def test_as_keywords():
    """``parmagic.run`` has both."""
    seen = []

    def body(n):
        seen.append(n)
        if seen.count(n) < 3:
            raise ValueError(n)
        return n

    run = parmagic.run(body, range(3), "threads=2", retry=2, item_timeout=20, once=True)
    assert run.results == [0, 1, 2]
    assert run.items["tries"].tolist() == [3, 3, 3]
    with pytest.raises(LineError, match="`retry`"):
        parmagic.run(body, range(3), "threads=2", retry=-1)


KEPT = """
import contextlib
@contextlib.contextmanager
def kept():
    count('entered')
    yield []
    count('left')
"""


@pytest.mark.parametrize("model", MODELS)
def test_what_is_made_once_and_tried_again(flaky, model):
    """A try that failed by an exception finds what its worker has made; it is made and left once."""
    flaky(KEPT)
    workers = 1 if model == "serial" else 2
    run = flaky(f"%%parallel {model} -q --once --retry 2 for n in range(8)\nmine = worker.once(kept)\nmine.append(n)\nfails(n, n % 3)\nlen(mine)")
    assert tries(run) == [1 + n % 3 for n in range(8)]
    assert flaky("count('entered')") - 1 == flaky("count('left')") - 1 <= workers
    assert max(run.results) > 3


@pytest.mark.parametrize("model", ["procs=2", "procs=2 --start-method fork"])
def test_what_is_made_once_and_ended_for_its_time(flaky, model):
    """A process that is ended for its item's time leaves it; the one in its place makes its own."""
    flaky(KEPT)
    run = flaky(f"%%parallel {model} -q --once --retry 1 --item-timeout 0.3 for n in range(6)\n_ = worker.once(kept)\nif n == 3: hangs(n, 1)\nn")
    assert run.results == list(range(6))
    assert tries(run) == [1, 1, 1, 2, 1, 1]
    assert flaky("count('entered')") == flaky("count('left')")
