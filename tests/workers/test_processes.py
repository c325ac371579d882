"""What a notebook can trust of its processes: shipping, starts, random numbers, output, deaths, standing still."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import parmagic
from parmagic.errors import RunTimeout, WorkerDied
from parmagic.model.kinds import WORKER_STATES
from parmagic.workers.processes import forked, hub, launched, link, preload

np = pytest.importorskip("numpy")


class TestShipping:
    """Names travel once, large ones without a copy."""

    def test_large_arrays_are_shared(self, ip):
        """Four workers read an array of 100 MB in memory that they share: of what is as large, nothing is their own, as a copy would be.

        Their whole private memory says less: what the server writes after a
        fork leaves the old page to the child alone, 1 or 2 MB at times.
        """
        ip("""
import numpy as np, psutil, time
big = np.ones(12_500_000)
def large():
    maps = [m for m in psutil.Process().memory_maps(grouped=False) if m.size > 50e6]
    return sum(m.rss for m in maps) / 1e6, sum(m.private_dirty for m in maps) / 1e6
""")
        run = ip("%%parallel procs=4 --once -q --trace off for n in range(4)\ntime.sleep(0.1); total = float(big[n::4].sum()); (total, large())")
        assert [total for total, _ in run.results] == [3_125_000.0] * 4
        assert all(resident > 99 and own < 1 for _, (resident, own) in run.results)
        copied = ip("%%parallel procs=1 --once -q --trace off for n in range(1)\nmine = big.copy(); large()").results
        assert copied[0][1] > 99
        assert any("big: 100 MB" in note for note in run.notes)
        table = run.transfers.loc["procs=4"]
        assert (table["packed_mb"] > 100).all()
        assert table["unpacked_mb"].max() > 100
        assert run.transfers.index.names == ["arm", "rank"]

    def test_writing_to_a_shared_array_says_what_to_do(self, ip):
        """All workers have the same memory: who writes to it gets an error that tells how to copy."""
        ip("import numpy as np; big = np.ones(1_000_000); small = np.ones(10)")
        error = ip.fails("%%parallel procs=2 --once -q for n in range(2)\nbig[0] = n")
        assert isinstance(error, ValueError)
        assert any("'big'" in note and "copy()" in note for note in error.__notes__)
        assert ip("%%parallel procs=2 --once -q for n in range(2)\nsmall[0] = n; small[0]").results == [0.0, 1.0]

    def test_items_are_the_bodys_own(self, ip):
        """A body may write to the array that is its item, large or small."""
        ip("import numpy as np; parts = [np.full(size, float(size)) for size in (10, 1_000_000)]")
        run = ip("%%parallel procs=2 --once -q for part in parts\npart[0] = 1\nfloat(part.sum())")
        assert run.results == [91.0, 1e12 - 1e6 + 1]
        assert ip("parts[0][0], parts[1][0]") == (10.0, 1e6)

    def test_what_two_names_share_is_shared_in_the_worker(self, ip):
        """Names are packed one by one, and still one object stays one object."""
        ip("import numpy as np; inner = np.ones(500_000); outer = {'inner': inner}; text = ['x']; other = text")
        run = ip("%%parallel procs=2 --once -q for n in range(2)\n(outer['inner'] is inner, text is other)")
        assert run.results == [(True, True)] * 2

    def test_large_results_come_back_and_can_be_written_to(self, ip):
        """Results above a megabyte come by a file; the notebook may change them, and their descriptors do not add up."""
        ip("import numpy as np, pandas as pd")
        before = psutil.Process().num_fds()
        run = ip("%%parallel procs=2 --once -q for n in range(6)\npd.DataFrame({'a': np.full(300_000, n), 'b': np.arange(300_000) * 1.5})")
        assert [int(frame["a"].iloc[-1]) for frame in run.results] == list(range(6))
        run.results[0].loc[0, "a"] = 99
        assert run.results[0].loc[0, "a"] == 99
        assert run.transfers["returned_mb"].sum() > 6 * 4.8
        assert psutil.Process().num_fds() <= before + 2


class TestRandomNumbers:
    """Forks of one server must not draw the same."""

    def test_every_worker_draws_its_own(self, ip):
        """NumPy's and Python's global generators differ between four workers, and between two runs."""
        ip("import numpy as np, random")
        cell = "%%parallel procs=4 --once -q\nnp.random.rand(), random.random()"
        drawn = [each for pair in (*ip(cell).results, *ip(cell).results) for each in pair]
        assert len(set(drawn)) == 16

    def test_a_shipped_generator_gets_a_note(self, ip):
        """A generator that is a name of the notebook's has one state in all workers: the notes say so, and what to do."""
        ip("import numpy as np; rng = np.random.default_rng(1)")
        run = ip("%%parallel procs=2 --once -q\nrng.random()")
        assert run.results[0] == run.results[1]
        assert any(note.startswith("rng:") and "spawn(worker.count)" in note for note in run.notes)
        run = ip("%%parallel procs=2 --once -q\nrng.spawn(worker.count)[worker.rank].random()")
        assert run.results[0] != run.results[1]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a folder that counts as one where packages are installed; what was imported from it is forgotten in the end."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(preload, "_roots", lambda: (str(folder) + os.sep,))
    preload._is_installed.cache_clear()
    before = set(sys.modules)
    hub.close()
    yield folder
    hub.close()
    preload._is_installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    hub._refused.clear()


@pytest.fixture
def searched(packages, monkeypatch):
    """Let the server find that folder, as it would find one where packages are installed."""
    found = launched._search_path
    monkeypatch.setattr(launched, "_search_path", lambda: [str(packages), *found()])
    return packages


LEFT_BEHIND = """
import os, threading, time
if os.environ.get('PARMAGIC_SERVER'):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


class TestFastStarts:
    """The server imports ahead what the notebook has imported."""

    def test_installed_modules_are_there_already(self, ip, searched):
        """A package that the notebook uses is imported once, by the server, and not by its workers."""
        (searched / "ahead.py").write_text("import os\npid = os.getpid()\n")
        ip("import ahead, os")
        run = ip("%%parallel procs=2 --once -q\nahead.pid, os.getpid()")
        assert len({pid for pid, _ in run.results}) == 1
        assert all(pid != own for pid, own in run.results)

    def test_an_edited_module_is_imported_afresh(self, ip, searched):
        """When a module that was imported ahead is edited, the next run has the new one."""
        (searched / "edited.py").write_text("value = 1\n")
        ip("import edited")
        assert ip("%%parallel procs=2 --once -q\nedited.value").results == [1, 1]
        (searched / "edited.py").write_text("value = 2  # a longer file\n")
        os.utime(searched / "edited.py", (time.time() + 10, time.time() + 10))
        assert ip("%%parallel procs=2 --once -q\nedited.value").results == [2, 2]

    def test_modules_beside_the_notebook_are_the_workers_own(self, ip, tmp_path):
        """What lies in the working directory is found by the workers, and imported by each of them."""
        Path("beside.py").write_text("import os\npid = os.getpid()\n")
        ip("import sys, os; sys.path.insert(0, ''); os.environ['PARMAGIC_TEST'] = 'set'")
        try:
            run = ip("%%parallel procs=2 --once -q\nimport beside\nbeside.pid == os.getpid(), os.environ['PARMAGIC_TEST'], os.getcwd()")
        finally:
            ip("sys.path.remove(''); del os.environ['PARMAGIC_TEST']")
        assert run.results == [(True, "set", str(tmp_path))] * 2

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("import os\nif os.environ.get('PARMAGIC_SERVER'): raise RuntimeError('not here')", "RuntimeError: not here"),
            ("import os\nif os.environ.get('PARMAGIC_SERVER'): os._exit(3)", "ended the process"),
            (LEFT_BEHIND, "left threads behind"),
            ("import os, time\nif os.environ.get('PARMAGIC_SERVER'): time.sleep(60)", "has not ended within"),
        ],
    )
    def test_a_bad_import_is_dropped_with_a_note(self, ip, searched, monkeypatch, source, words):
        """What fails, ends the server, leaves threads or takes too long is left to the workers, and the run goes on."""
        monkeypatch.setattr(hub, "WAIT_FOR_IMPORTS", 1.0)
        monkeypatch.setattr(link, "_variables", lambda: {**os.environ, "PARMAGIC_SERVER": "1"})
        (searched / "bad.py").write_text(source + "\nvalue = 3\n")
        ip("import bad")
        run = ip("%%parallel procs=2 --once -q\nbad.value")
        assert run.results == [3, 3]
        assert any("import bad by themselves" in note and words in note for note in run.notes)
        public = [note for note in run._study.saved.notes if "import bad by themselves" in note]  # an error's message is not for files
        assert [words.removesuffix(": not here") in note and "not here" not in note for note in public] == [True]
        assert not any("import bad" in note for note in ip("%%parallel procs=2 --once -q\nbad.value").notes)


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_a_flood_is_cut(ip, model, capsys):
    """Of 20 MB of prints, a megabyte of each worker's is shown, with its marks; the notes say how much there was."""
    run = ip(f"%%parallel {model}=2 --once -q --trace off\nfor _ in range(100_000):\n    print('x' * 99)")
    shown = capsys.readouterr().out
    assert 1_850_000 < len(shown) < 2_000_200
    assert shown.count("cut here") == 2
    assert sum(bool(re.search(r"printed 9\.1 MB more", note)) for note in run.notes) == 2


def test_logging_and_warnings_arrive(ip, capsys):
    """What a body logs and warns of comes to stderr, marked with its worker."""
    ip("import logging, warnings\nbefore = logging.root.handlers[:]\nlogging.root.handlers.clear()\nwarnings.simplefilter('default')")
    try:
        ip("%%parallel procs=2 --once -q\nlogging.warning('logged')\nwarnings.warn('warned', UserWarning)")
    finally:
        ip("logging.root.handlers[:] = before")
    lines = capsys.readouterr().err.splitlines()
    assert sum("logged" in line and line.startswith("[procs ") for line in lines) == 2
    assert sum("UserWarning: warned" in line for line in lines) == 2


def test_logging_as_it_was_set_up(ip, capsys):
    """A level and a format that the notebook has set hold in processes as well."""
    ip("import logging\nbefore = logging.root.handlers[:], logging.root.level\nlogging.basicConfig(level='INFO', format='%(levelname)s/%(message)s', force=True)")
    try:
        ip("%%parallel procs=2 --once -q\nlogging.info('told')\nlogging.debug('not told')")
    finally:
        ip("logging.root.handlers[:], logging.root.level = before[0], before[1]")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines() if line.startswith("[procs ")]
    assert lines == ["INFO/told"] * 2


DEATHS = {
    "SIGKILL": ("os.kill(os.getpid(), 9)", "WorkerDied", "killed by SIGKILL in item 2; most often the system ran out of memory"),
    "SIGSEGV": ("ctypes.string_at(0)", "WorkerDied", "killed by SIGSEGV in item 2; a C extension crashed"),
    "SIGABRT": ("os.abort()", "WorkerDied", "killed by SIGABRT in item 2; a C library gave up"),
    "os._exit": ("os._exit(3)", "WorkerDied", "ended with exit code 3"),
    "closed pipes": ("os.closerange(3, 1 << 16)", "WorkerDied", "its way to the notebook was closed"),
    "sys.exit": ("sys.exit('enough')", "SystemExit", "enough"),
    "out of memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n    bytearray(1 << 34)", "MemoryError", "",
    ),
    "an exception with a lock": ("raise Odd('so odd', threading.Lock())", "NotShippable", "raised Odd: ('so odd', <unlocked"),
    "a lock as the result": ("_ = threading.Lock()", "NotShippable", "(a _thread.lock) cannot be sent back"),
}  # fmt: skip


@pytest.mark.parametrize("death", DEATHS)
def test_ways_to_die(ip, death):
    """However an item ends its worker: the right item is told, with the likely cause, soon, and all other results are kept."""
    deadly, kind, words = DEATHS[death]
    ip("import os, sys, ctypes, resource, threading\nclass Odd(Exception):\n    pass")
    begin = time.perf_counter()
    run = ip(f"%%parallel procs=2 --once -q --keep-going --chunk 1 for n in range(40)\nif n == 7:\n    {deadly}\n_ if n == 7 and '_' in dir() else n")
    assert run.results == [None if n == 7 else n for n in range(40)]
    error = run.items["error"].iloc[7]
    assert error.startswith(kind)
    assert run.items["error"].notna().sum() == 1
    assert time.perf_counter() - begin < 5  # 0.1 s on an idle machine
    raised = ip.fails(f"%%parallel procs=2 --once -q --chunk 1 for n in range(4)\nif n == 2:\n    {deadly}\n_ if n == 2 and '_' in dir() else n")
    assert type(raised).__name__ == kind
    assert words in str(raised)
    assert "item 2" in str(raised) + str(raised.__notes__)


@pytest.mark.parametrize("keep_going", ["", "--keep-going"])
@pytest.mark.parametrize("clause", ["", "for n in range(2)"])
def test_a_death_behind_the_last_item(ip, clause, keep_going):
    """What a worker has reported is kept where it dies later, of its own finalizer; a note tells how."""
    ip("import multiprocessing.util, os")
    run = ip(f"%%parallel procs=2 --once -q --trace off {keep_going} {clause}\nmultiprocessing.util.Finalize(None, os._exit, args=(7,), exitpriority=1)\n5")
    assert run.results == [5, 5]
    assert run.error is None
    assert run.items["error"].isna().all()
    assert any("ended with exit code 7 after its last item" in note for note in run.notes)


def test_a_crash_tells_where(ip):
    """The error of a worker that crashed names the function and the line of the cell that it was in."""
    ip("import ctypes\ndef crash():\n    ctypes.string_at(0)")
    error = ip.fails("%%parallel procs=2 --once -q for n in range(2)\nif n:\n    crash()")
    assert isinstance(error, WorkerDied)
    assert "SIGSEGV" in str(error)
    assert any("string_at" in note and "line 3 of the body" in note for note in error.__notes__)


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_a_timeline_that_cannot_be_written_takes_no_result(ip, model):
    """Where the timeline cannot be written, the results are there, and a note says what is missing."""
    ip("def outer(n):\n    return [inner() for _ in range(n)]\ndef inner():\n    return 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda _: "occupied")
        for rank in range(2):
            Path(f".parmagic/run-occupied/0-{rank}.json").mkdir(parents=True)  # nothing can be written where a folder is
        run = ip(f"%parallel {model}=2 --once -q --trace full sum(outer(5000)) for n in range(4)")
    assert run.results == [5000] * 4
    assert any("could not be written" in note for note in run.notes)


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_standing_still_is_told(ip, model, monkeypatch, capsys):
    """While no item ends, the display says what every unfinished worker is doing, and on which line."""
    monkeypatch.setattr("parmagic.workers.PATIENCE", 0.6)
    ip("import time, threading; lock = threading.Lock(); lock.acquire()")
    shell = ip.shell
    wait = "lock.acquire(timeout=1.5)" if model == "threads" else "__import__('threading').Event().wait(1.5)"
    shell.run_cell(f"%%parallel {model}=2 --once --trace off\nif worker.rank:\n    time.sleep(1.5)\nelse:\n    {wait}")
    shown = capsys.readouterr().out
    assert "item 1" in shown
    assert "no item has ended" in shown
    if not parmagic.record.hooks.why_inferred():
        assert "waits for a lock" in shown
        assert "sleeps" in shown
    if model == "threads":
        assert "line 3: " in shown
        assert "line 5: " in shown


def test_helper_threads_that_compete_get_a_note(ip):
    """Where the threads of NumPy's BLAS ask for more cores than there are, the notes name the setting."""
    if not sys.platform.startswith("linux"):
        pytest.skip("tasks are seen in /proc")
    ip("import numpy as np, os, time")
    body = "a = np.ones((500, 500))\nend = time.perf_counter() + 0.6\nwhile time.perf_counter() < end:\n    a = a @ a / 500\nlen(os.listdir('/proc/self/task'))"
    run = ip(f"%%parallel procs=4 --once -q --trace off\n{body}")
    if max(run.results) < 3:
        pytest.skip("this BLAS has no threads of its own here")
    assert any("OPENBLAS_NUM_THREADS" in note for note in run.notes)


NESTED = {
    "a pool of forks": "with mp.get_context('fork').Pool(2) as pool:\n    got = pool.map(abs, [-1, -2])\ngot",
    "an executor": "with cf.ProcessPoolExecutor(2) as pool:\n    got = list(pool.map(abs, [-1, -2]))\ngot",
    "threads": "with cf.ThreadPoolExecutor(2) as pool:\n    got = list(pool.map(abs, [-1, -2]))\ngot",
    "a subprocess": "[int(each) for each in subprocess.run(['echo', '1 2'], capture_output=True, text=True).stdout.split()]",
    "a run of threads": "parmagic.run(abs, [-1, -2], 'threads=2', once=True).results",
    "a run of processes": "parmagic.run(abs, [-1, -2], 'procs=2', once=True).results",
}


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads", "procs"])
@pytest.mark.parametrize("nested", NESTED)
def test_nested_use(ip, nested, model):
    """Pools, threads, subprocesses and runs work within a body, from two workers at once."""
    ip("import multiprocessing as mp, concurrent.futures as cf, subprocess, parmagic")
    run = ip(f"%%parallel {model}=2 --once -q --timeout 60\n{NESTED[nested]}")
    assert run.results == [[1, 2], [1, 2]]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads", "procs"])
@pytest.mark.parametrize(("ending", "code"), [("sys.exit(4)", 4), ("raise ValueError('in the child')", 1), ("pass", 0)])
def test_a_forked_child_that_comes_back_is_no_worker(ip, model, ending, code, tmp_path):
    """A child that a body forks and that leaves the body ends there: it runs no item, and reports none."""
    ip(f"import os, sys; log = {str(tmp_path / 'log')!r}")
    run = ip(
        f"%%parallel {model}=2 --once -q --chunk 3 for n in range(6)\nwith open(log, 'a') as file:\n    file.write('x')\n"
        f"pid = os.fork() if n == 1 else None\nif pid == 0:\n    {ending}\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else n"
    )
    assert run.results == [0, code, 2, 3, 4, 5]
    assert (tmp_path / "log").read_text() == "x" * 6


def test_a_timeout_while_an_ended_worker_is_heard(ip):
    """--timeout ends the run also in the moment in which a worker that has ended is still being heard out."""
    ip("import time\nclass Slow:\n    def __reduce__(self):\n        return time.sleep, (0.3,)")
    error = ip.fails("%%parallel procs=1 --once -q --trace off --chunk 1 --timeout 1 for i in range(8)\nSlow()")
    assert isinstance(error, RunTimeout)


def test_what_nobody_counted_is_unknown(ip):
    """Between a dead worker's last reading and its successor's first one, the states add up all the same."""
    run = ip("%%parallel procs=1 --keep-going -q --once --trace off for i in range(1)\n__import__('os')._exit(3)")
    row = run.workers.iloc[0]
    assert row[[f"{state}_s" for state in WORKER_STATES]].sum() == pytest.approx(row["wall_s"])
    assert (run.items[["start_s", "wall_s"]] >= 0).all(axis=None)


def test_a_death_keeps_no_other_rank_from_its_turn(ip):
    """With --keep-going, ranks that have just come through the gate run, though another one dies."""
    for _ in range(5):
        run = ip("%%parallel procs=4 -q --once --keep-going --trace off\nif worker.rank == 0:\n    __import__('os')._exit(3)\nworker.rank")
        assert run.results == [None, 1, 2, 3]


def test_deaths_before_an_account_has_an_item(ip):
    """However early a run is ended, no item began before it, or ended before it began."""
    for timeout in np.linspace(0.005, 0.08, 20):
        with suppress(RunTimeout):
            parmagic.run(lambda _: b"x" * 1_000_000, range(8), "procs=4", once=True, trace="off", timeout=float(timeout))
        items = parmagic.last().items.dropna(subset=["start_s"])
        assert (items[["start_s", "wall_s"]] >= 0).all(axis=None)


def test_a_ctrl_c_just_before_a_fork_is_the_notebooks(ip, monkeypatch, tmp_path):
    """A Ctrl-C that is held back while the notebook is forked is raised there, never in its copy, which would go on as a second one."""
    mine, fork = os.getpid(), forked.fork_process

    def struck():
        os.kill(mine, signal.SIGINT)
        return fork()

    monkeypatch.setattr(forked, "fork_process", struck)
    error = ip.fails("%%parallel threads=2 -q for n in range(4)\nn")
    if os.getpid() != mine:
        (tmp_path / "escaped").touch()
        os._exit(99)
    monkeypatch.undo()
    assert isinstance(error, KeyboardInterrupt)
    assert not (tmp_path / "escaped").exists()


def test_what_a_second_death_leaves_undone(ip, tmp_path):
    """Where the worker in a dead one's place dies as well, everything that both of them had is done all the same."""
    ip(f"import os; again = {str(tmp_path / 'again')!r}")
    run = ip(
        "%%parallel procs=1 --chunk 18 --keep-going --once -q for n in range(7)\n"
        "if n == 4:\n    open(again, 'x').close()\n    os._exit(3)\nif n == 2 and os.path.exists(again):\n    os._exit(3)\nn"
    )
    assert run.results == [0, 1, None, 3, None, 5, 6]
    assert set(run.items.index[run.items["error"].notna()].get_level_values("item")) == {2, 4}
