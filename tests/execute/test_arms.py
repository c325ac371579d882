"""What a run gives back, for every model: the same list of cases."""

from __future__ import annotations

import math
import subprocess
import sys

import pandas as pd
import pytest
from arms import MODELS

import parmagic
from parmagic.model.kinds import WORKER_STATES
from parmagic.system.gil import gil_enabled


@pytest.mark.parametrize("model", MODELS)
class TestEveryModel:
    """One contract for all models."""

    def test_results_are_in_order(self, ip, model):
        """Results come in item order, however the items are spread."""
        run = ip(f"%parallel {model} -q --once n * n for n in range(1000)")
        assert run.results == [n * n for n in range(1000)]

    def test_few_items(self, ip, model):
        """No item, and one item, work."""
        assert ip(f"%parallel {model} -q --once n for n in []").results == []
        assert ip(f"%parallel {model} -q --once n for n in [7]").results == [7]

    def test_body_sees_the_notebook(self, ip, model):
        """Functions, classes, lambdas and imports of the notebook work, and its classes come back as themselves."""
        ip("import math\nclass Point:\n    def __init__(self, x):\n        self.x = x\ndouble = lambda n: 2 * n\ndef f(n):\n    return Point(double(n))")
        run = ip(f"%%parallel {model} -q --once for n in range(5)\nprivate = f(n)\nprivate.x += math.floor(0.5)\nprivate")
        assert [type(p) for p in run.results] == [ip.space["Point"]] * 5
        assert [p.x for p in run.results] == [0, 2, 4, 6, 8]
        assert "private" not in ip.space

    def test_worker(self, ip, model):
        """The body knows which worker it runs on."""
        run = ip(f"%%parallel {model} -q --once for n in range(20)\n(worker.rank, worker.count, worker.model)")
        kind, count = (model.split("=")[0], 2) if "=" in model else ("serial", 1)
        assert {r[1:] for r in run.results} == {(count, kind)}
        assert {r[0] for r in run.results} <= set(range(count))

    def test_original_exception(self, ip, model):
        """The body's own exception is raised, at the cell's own line, with a note; what was done is kept."""
        ip("class Odd(Exception):\n    pass")
        error = ip.fails(f"%%parallel {model} -q --once --chunk 1 for n in range(9)\nif n == 4:\n    raise Odd(n)\nn")
        assert type(error) is ip.space["Odd"]
        assert "item 4" in error.__notes__[0]
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        assert trace.tb_lineno == 3
        run = parmagic.last()
        assert run.error is error
        done = run.items["error"].isna()
        assert run.results == [n if done.iloc[n] else None for n in range(9)]
        assert {"Odd: 4"} <= set(run.items["error"][~done]) <= {"Odd: 4", "not started"}
        assert run.items["error"].iloc[4].startswith("Odd: 4")

    def test_keep_going(self, ip, model):
        """With --keep-going all items run, and nothing is raised."""
        run = ip(f"%%parallel {model} -q --once --keep-going for n in range(9)\n1 / (n - 4)\nn")
        assert run.results == [0, 1, 2, 3, None, 5, 6, 7, 8]
        assert run.items["error"].notna().sum() == 1

    def test_account_tiles_the_wall_time(self, ip, model):
        """Each worker's states add up to the arm's wall time."""
        run = ip(f"%parallel {model} -q --once sum(range(20000)) for n in range(50)")
        states = run.workers[[f"{s}_s" for s in WORKER_STATES]].fillna(0.0).sum(axis=1)
        assert states.tolist() == pytest.approx(run.workers["wall_s"].tolist())
        assert (run.workers["startup_s"] > 0).all()

    def test_peak_memory(self, ip, model):
        """What the body has had is in the peak of its process, which threads share."""
        run = ip(f"%parallel {model} -q --once len(b'x' * 2 * 10**8) for n in range(2)")
        assert (run.workers["rss_mb"] > 200).any()
        assert len(set(run.workers["rss_mb"])) == 1 or len(set(run.workers["pid"])) == 2
        busy = run.workers["wall_s"] - run.workers[["startup_s", "transfer_s", "idle_s"]].sum(axis=1)
        assert run.items["wall_s"].sum() <= busy.sum() * 1.01 + 0.01  # items lie in what is no start-up, transfer or idling


def test_tables_have_their_columns(ip):
    """Every table has exactly the columns that the README names."""
    run = ip("%parallel threads=2 procs=2 -q n for n in range(10)")
    assert list(run.summary.columns) == ["model", "n_workers", "n_items", "wall_s", "serial_s", "speedup", "efficiency", "baseline", "cpu_s", "cores_used", "gil_wait_s", "gil_wait_share", "lock_wait_s", "io_wait_s", "startup_s", "transfer_s", "trace_overhead", "gil", "others_cores", "throttled_s"]
    states = "startup_s running_s native_s gil_wait_s lock_wait_s io_wait_s sleep_s cpu_wait_s transfer_s idle_s unknown_s"
    assert list(run.workers.columns) == f"pid tid n_items wall_s {states} cpu_s ctx_voluntary ctx_involuntary rss_mb measured".split()
    of_items = ["running_s", "native_s", "gil_wait_s", "lock_wait_s", "io_wait_s", "sleep_s", "cpu_wait_s", "unknown_s"]
    assert list(run.items.columns) == ["rank", "start_s", "wall_s", *of_items, "tries", "error"]
    assert (run.items[of_items].sum(axis=1) - run.items["wall_s"]).abs().max() < 1e-9
    assert list(run.waits.columns) == ["kind", "object", "line", "place", "n", "total_s", "max_s"]
    assert run.summary.index.tolist() == ["threads=2", "procs=2"]
    assert run.workers.index.names == run.waits.index.names == ["arm", "rank"]
    assert run.items.index.names == ["arm", "item"]
    assert run.workers["n_items"].groupby("arm").sum().tolist() == [10, 10]
    shadowed = {column for frame in (run.summary, run.workers, run.items, run.waits) for column in frame if hasattr(pd.DataFrame, column)}
    assert shadowed == {"rank"}  # the field's name for it: items["rank"]


def test_spmd(ip):
    """Without a clause every worker runs the body once, and the serial run is ranks in turn."""
    run = ip("%%parallel threads=3 procs=2 serial -q\n(worker.rank, worker.count)")
    assert run.arm("threads=3").results == [(0, 3), (1, 3), (2, 3)]
    assert run.arm("procs=2").results == [(0, 2), (1, 2)]
    assert run.arm("serial").results == [(0, 3), (1, 3), (2, 3)]


def test_memory_changes_once_per_threads_arm(ip):
    """Threads change the notebook's memory, once per arm; processes and the baseline never do."""
    ip("calls = []")
    run = ip("%%parallel threads=1,2 procs=2 -q for n in range(3)\ncalls.append(n)\nlen(calls)")
    assert sorted(ip.space["calls"]) == [0, 0, 1, 1, 2, 2]
    assert run.summary["baseline"].tolist() == ["measured"] * 3
    assert any("twice" in note or "2 times, once per threads arm" in note for note in run.notes)
    assert any("calls" in note and "stays in them" in note for note in run.notes)


def test_an_arm_that_did_not_run_changed_no_memory(ip):
    """Behind an error in the first arm, the second one has not run in the notebook's memory."""
    with pytest.raises(ZeroDivisionError):
        ip("%%parallel threads=1,2 -q for n in range(3)\n1 / 0")
    assert not any("notebook's memory" in note for note in parmagic.last().notes)


@pytest.mark.parametrize("models", ["threads=2", "procs=2"])
def test_baseline_sees_a_cold_cache(ip, models):
    """The baseline runs with memory as it was before the first arm."""
    ip("cache = {}")
    ip(f"%%parallel {models} -q for n in range(6)\nwarm = n in cache\ncache[n] = True\nif warm:\n    raise RuntimeError('warm')\nn")
    run = parmagic.last()
    assert run.error is None
    assert not any("baseline failed" in note for note in run.notes)
    assert run.summary["baseline"].tolist() == ["measured"]


def test_serial_and_parallel_results_are_compared(ip):
    """Where they differ, a note names the items."""
    ip("import os")
    run = ip("%%parallel procs=2 -q for n in range(4)\nos.getpid() if n == 2 else n")
    assert any("disagree on item 2" in note for note in run.notes)


def test_run_from_plain_python():
    """parmagic.run works in a script without a main guard, which workers never import again."""
    script = "import parmagic\nprint('once')\nrun = parmagic.run(lambda n: n + 1, range(4), 'threads=2 procs=2')\nprint(run.results)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "once\n[1, 2, 3, 4]\n"


@pytest.mark.skipif(not gil_enabled(), reason="there is no GIL")
def test_theory_of_the_gil():
    """Two CPU-bound threads spend half of their active time waiting for the GIL; processes none."""
    run = parmagic.run(lambda n: sum(i * i for i in range(n)), [400_000] * 20, "threads=2 procs=2", once=True, trace="off")
    sums = run.workers.groupby("arm").sum()
    threads, procs = sums.loc["threads=2"], sums.loc["procs=2"]
    # one thread at a time runs, or waits for a core where the machine is busy: the rest is the other one's turn
    active = threads["wall_s"] - threads["startup_s"] - threads["idle_s"]
    assert threads["running_s"] / active < 0.6
    assert (threads["running_s"] + threads["cpu_wait_s"]) / active > 0.4
    assert threads["gil_wait_s"] > 0.1 * threads["running_s"]  # about as much, where nobody else wants the cores
    assert threads[["lock_wait_s", "io_wait_s", "sleep_s"]].sum() < 0.05 * threads["gil_wait_s"]
    assert procs["gil_wait_s"] < 0.05 * procs["running_s"]


def test_sleep_is_sleep():
    """Sleeping threads sleep: no GIL wait, and four of them are nearly four times as fast."""
    run = parmagic.run(lambda _: __import__("time").sleep(0.05), range(16), "threads=4")
    row = run.summary.loc["threads=4"]
    assert row["speedup"] > 3
    assert row["gil_wait_share"] < 0.1
    assert run.workers["sleep_s"].sum() > 0.7
    assert set(run.waits["kind"]) >= {"sleep"}


def test_lock_is_no_gil_wait(ip):
    """Threads that wait for a lock are seen waiting for a lock."""
    ip("import threading, time\nlock = threading.Lock()")
    run = ip("%%parallel threads=2 --once -q for n in range(20)\nwith lock:\n    time.sleep(0.01)")
    workers = run.workers
    assert workers["lock_wait_s"].sum() > 0.5 * workers["sleep_s"].sum()
    assert workers["gil_wait_s"].sum() < 0.2 * workers["lock_wait_s"].sum()


def test_timeline_files(ip, tmp_path):
    """The timeline is saved as JSON, compressed JSON and a page; another suffix is refused."""
    import gzip
    import json

    ip("def square(n):\n    return n * n")
    run = ip("%parallel threads=2 procs=2 -q --once square(n) for n in range(50)")
    for name in ("x.json", "x.json.gz", "x.html"):
        run.timeline.save(tmp_path / name)
    data = json.loads((tmp_path / "x.json").read_bytes())
    assert json.loads(gzip.decompress((tmp_path / "x.json.gz").read_bytes())) == data
    names = [event["name"] for event in data["traceEvents"]]
    assert sum(name.startswith("square (") for name in names) == 100
    assert "http" not in (tmp_path / "x.html").read_text().split("<script")[0].replace("http-equiv", "")
    with pytest.raises(ValueError, match=r"\.json"):
        run.timeline.save(tmp_path / "x.png")


def test_quiet_run_is_kept(ip, capsys):
    """-q shows nothing, and the run is `_` and under its name all the same."""
    ip("%parallel threads=2 -q -o mine n for n in range(3)")
    assert ip("mine is _")
    assert ip.space["mine"].results == [0, 1, 2]
    assert "threads=2" not in capsys.readouterr().out


def test_nothing_came_back(ip):
    """Where every result is None and the body bound names, a note says how to get them back."""
    advice = "last line"
    assert any(advice in note for note in ip("%%parallel threads=2 --once -q for n in range(3)\nsquare = n * n").notes)
    assert not any(advice in note for note in ip("%%parallel threads=2 --once -q for n in range(3)\nprint(n)").notes)
    assert not any(advice in note for note in ip("%%parallel threads=2 --once -q for n in range(3)\nsquare = n * n\nsquare").notes)


def test_names_expand_in_options_only(ip):
    """{name} expands before the clause; f-strings and sets in the clause stay as they are."""
    ip("count = 2")
    run = ip("%parallel threads={count} -q --once f'{n}' for n in {1, 2};")
    assert run.results == ["1", "2"]
    assert run.summary.index.tolist() == ["threads=2"]


def test_config(ip):
    """%config ParallelMagics switches the baseline off."""
    ip("%config ParallelMagics.baseline = False")
    assert ip("%parallel threads=2 -q n for n in range(3)").summary["baseline"].tolist() == ["estimated"]


def test_estimated_when_asked(ip):
    """--once runs no baseline: the speedup is estimated and says so."""
    run = ip("%parallel threads=2 --once -q sum(range(100000)) for n in range(300)")
    assert run.summary["baseline"].tolist() == ["estimated"]
    assert not math.isnan(run.summary["speedup"].iloc[0])
    assert any("estimated" in note for note in run.notes)
