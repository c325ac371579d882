"""Folders that are gone, or that nobody may enter: a run works without what it cannot have, and says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

SCRIPT = """
import json, os, shutil, sys
import parmagic

def where(n):
    try:
        return os.getcwd(), os.stat('.').st_ino
    except OSError as error:
        return type(error).__name__, os.stat('.').st_ino

def main(what, line, options):
    if what == 'early':
        parmagic.run(abs, range(2), line, **options)
    shutil.rmtree(os.getcwd())
    if what == 'replaced':
        os.mkdir(sys.argv[4])
    sys.path.append('src')
    here = where(0)
    run = parmagic.run(where, range(4), line, **options)
    assert run.results == [here] * 4, (run.results, here)
    print(json.dumps([run.notes, run.summary['baseline'].tolist(), run.verdict, len(run.items)]))

main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
"""


@pytest.fixture
def gone(tmp_path: Path) -> Iterator[Path]:
    """Be in a folder that can be removed."""
    path = tmp_path / "gone"
    path.mkdir()
    resource_tracker.ensure_running()  # which is called with -c
    os.chdir(path)
    yield path
    os.chdir(tmp_path)


@pytest.mark.parametrize(
    ("what", "line", "options"),
    [
        *((what, "serial threads=2 procs=2", {}) for what in ("deleted", "replaced", "early")),
        ("deleted", "procs=2", {"trace": "full", "start_method": "spawn"}),
    ],
)
def test_a_working_directory_that_is_gone(gone, tmp_path, what, line, options):
    """A script runs all the same, in whichever folder of that name there is now, with what its server was started in or not: notes say what it does without."""
    script = tmp_path / "script.py"  # Python 3.13.0 imports nothing in such a folder, where it is called with -c
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), what, line, json.dumps(options), str(gone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    notes, baselines, verdict, n_items = json.loads(done.stdout)
    assert [note for note in notes if note.startswith("The working directory is gone")]
    assert what == "early" or [note for note in notes if note.startswith("Functions were not traced")]
    assert set(baselines) == {"measured"}
    assert verdict
    assert n_items == 4 * (line.count(" ") + 1)


def test_a_notebook_whose_folder_is_gone(ip, gone):
    """Cells run, the report is shown, and saving there is refused in plain words; elsewhere it works."""
    gone.rmdir()
    ip("def called(n): return n")
    run = ip("%parallel threads=2 procs=2 --trace full sum(called(k) for k in range(3000)) for n in range(4)")
    assert run.results == [4498500] * 4
    assert [note for note in run.notes if note.startswith("The working directory is gone")]
    with pytest.raises(FileNotFoundError, match=r"there is no folder '\.' to save 'report.html' to"):
        run.save("report.html")
    assert Path(run.save(gone.parent / "report.html")).stat().st_size > 10_000


def test_a_folder_that_goes_while_a_run_goes_on(ip, gone, tmp_path):
    """What was to be written there goes to the temporary directory."""
    ip("import os, pathlib; from pathlib import Path")
    ip("def called(n): return n")
    ip.space["gone"] = str(gone)
    run = ip("%parallel threads=1 -q --once --trace full (n or os.rmdir(gone), sum(called(k) for k in range(9000)))[1] for n in range(2)")
    [trace] = run._study.timelines[0].traces
    assert Path(trace.path).parents[1] == Path(tempfile.gettempdir()) / f"parmagic-{os.getuid()}"
    assert [note for note in run.notes if "No such file or directory" in note]


def test_processes_are_where_the_notebook_is(ip, gone):
    """They enter its folder itself, however it is called by now, and each run's anew."""
    ip("import os")
    gone.rename(gone.parent / "moved")
    assert ip("%parallel procs=2 -q --once os.getcwd() for n in range(2)").results == [str(gone.parent / "moved")] * 2
    ip(f"os.chdir({str(gone.parent)!r})")
    assert ip("%parallel procs=2 -q --once os.getcwd() for n in range(2)").results == [str(gone.parent)] * 2


def test_a_folder_that_cannot_be_entered(tmp_path):
    """A process that may not enter the notebook's folder is in none: what it writes by a relative path lands nowhere."""
    script = (
        "import os; from parmagic.workers.processes import cwd\n"
        "print(cwd.enter(os.open('/dev/null', os.O_RDONLY)))\n"
        "try: open('here', 'w')\n"
        "except FileNotFoundError: print('nowhere')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "cannot enter the working directory (Not a directory)" in done.stdout
    assert done.stdout.splitlines()[-1] == "nowhere"
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_directory_that_is_gone(gone):
    """Processes start without one."""
    script = "import os, parmagic, tempfile; tempfile.gettempdir(); os.rmdir(os.environ['TMPDIR']); print(parmagic.run(abs, range(4), 'threads=2 procs=2', trace='full').results)"
    (gone / "temporary").mkdir()
    variables = {**os.environ, "TMPDIR": str(gone / "temporary")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=variables)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")
