"""Beside gevent's and eventlet's patches: our own threads, locks, polls, sockets and forks are the system's, whenever they were made."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from alongside import cells, tool

for library in ("gevent", "eventlet", "grequests"):
    if find_spec(library) is None:  # not imported here: one of them patches at once
        pytest.skip(f"{library} is not installed", allow_module_level=True)

ALL = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
SOME = {
    "grequests": "import grequests",
    "gevent but threads": "import gevent.monkey; gevent.monkey.patch_all(thread=False)",
    "eventlet but threads": "import eventlet; eventlet.monkey_patch(thread=False)",
}
SCRIPT = """\
import sys, warnings
warnings.simplefilter("ignore")
order, patch, lines, body, after = sys.argv[1:]
if order == "before":
    exec(patch)
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext parmagic").raise_error()
if order == "between":
    for line in lines.split("|"):
        shell.run_cell(f"%%parallel {line} -q for n in range(2)\\nn").raise_error()
if order != "before":
    shell.run_cell(patch).raise_error()
for line in lines.split("|"):
    shell.run_cell(f"%%parallel {line} -o run for n in range(6)\\n{body}").raise_error()
    run = shell.user_ns["run"]
    assert run.results == [0, 1, 4, 9, 16, 25], run.results
    assert run.error is None
    notes = [note for note in run.notes if " times; " not in note and "functions" not in note]
    assert not notes, notes
    exec(after)
print("THE END")
"""
BODY = """\
import socket, threading, time
time.sleep(0.005)
one, other = socket.socketpair()
one.sendall(b"x")
assert other.recv(1) == b"x"
one.close(), other.close()
done = []
thread = threading.Thread(target=done.append, args=(n,))
thread.start()
thread.join(5)
print("item", n)
done[0] ** 2
"""
ORDERS = ["before", "between", "after"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return a folder with what runs lines before, between or after a patch."""
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


@pytest.mark.parametrize("waits", ["", "off"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", [*ALL.values(), *SOME.values()], ids=[*ALL, *SOME])
def test_processes_and_serial_runs(script, patch, order, waits):
    """Whatever is patched, and whenever: results, prints and a measured baseline are there, and everything ends."""
    text = tool("script.py", order, patch, "procs=2|serial", BODY, "pass", into=script, PARMAGIC_WAITS=waits)
    assert text.count("[procs") == 6
    assert text.count("[serial") == 6
    assert text.endswith("THE END\n") or "THE END\n" in text  # IPython's own history thread may complain about a patch behind it


@pytest.mark.parametrize("start", ["spawn", "fork"])
@pytest.mark.parametrize("patch", [*ALL.values(), SOME["grequests"]], ids=[*ALL, "grequests"])
def test_other_ways_to_start_processes(script, patch, start):
    """Forked from the patched notebook, or in new interpreters, workers run a body that waits, talks and starts threads and programs."""
    body = f"import subprocess, sys\nassert subprocess.check_output([sys.executable, '-S', '-c', 'print(1)']) == b'1\\n'\n{BODY}"
    assert "THE END" in tool("script.py", "before", patch, f"procs=2 --start-method {start}", body, "pass", into=script)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", SOME.values(), ids=SOME)
def test_threads_beside_partial_patches(script, patch, order):
    """Where threads are not patched, they run, with a serial baseline that was forked from the notebook."""
    assert "THE END" in tool("script.py", order, patch, "threads=2", BODY, "assert run.summary.baseline.iloc[0] == 'measured'", into=script)


REFUSED = """\
import warnings, sys
warnings.simplefilter("ignore")
exec(sys.argv[1])
import parmagic
ran = []
for line in ("threads=2", "serial threads=2 procs=2"):
    try:
        parmagic.run(ran.append, range(4), line)
    except parmagic.ParmagicError as error:
        print(error)
assert not ran
"""


@pytest.mark.parametrize("library", ALL)
def test_greenlets_are_refused_as_threads(script, library):
    """Threads that are greenlets are refused before anything has run, with what to write."""
    (script / "refused.py").write_text(REFUSED)
    text = tool("refused.py", ALL[library], into=script)
    assert text.count(f"{library} has patched threading: its threads are greenlets of one thread, which take turns. Use procs=N") == 2
    assert "monkey" in text
    assert "thread=False" in text


@pytest.mark.parametrize("line", ["procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork"])
@pytest.mark.parametrize("patch", [*ALL.values(), SOME["grequests"]], ids=[*ALL, "grequests"])
def test_a_body_that_patches(script, patch, line):
    """A body that patches, or imports what does, changes its own process only: what is ours in there goes on."""
    assert "THE END" in tool("script.py", "after", "pass", f"{line} --trace off|{line}", f"{patch}\n{BODY}", "pass", into=script)


ENDINGS = """\
import os, signal, sys, warnings
warnings.simplefilter("ignore")
exec(sys.argv[1])
import parmagic, time
from time import perf_counter
me = os.getpid()

def fails(n):
    return 1 // (n - 2)

def interrupts(n):
    if not n:
        os.kill(me, signal.SIGINT)
    time.sleep(30)

for line in sys.argv[2].split("|"):
    try:
        parmagic.run(fails, range(4), line)
    except ZeroDivisionError as error:
        print("failed", error.__notes__)
    begin = perf_counter()
    try:
        parmagic.run(interrupts, range(4), line, once=True)
    except KeyboardInterrupt:
        print("interrupted")
    assert perf_counter() - begin < 15
    assert parmagic.run(abs, range(4), line).results == [0, 1, 2, 3]
"""


@pytest.mark.parametrize("patch", [*ALL.values(), SOME["grequests"]], ids=[*ALL, "grequests"])
def test_errors_and_ctrl_c(script, patch):
    """An error comes with its item, a Ctrl-C ends a run at once, and the next run finds everything in order."""
    (script / "endings.py").write_text(ENDINGS)
    text = tool("endings.py", patch, "procs=2", into=script)
    assert text.count("failed ['in item 2 (2)") == 1
    assert text.count("interrupted") == 1


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("patch", SOME.values(), ids=SOME)
def test_a_kernel(tmp_path, patch, early):
    """In a real kernel, patched before or after a first run, lines run with their prints under their own cells.

    A kernel of ipykernel 7 whose threads are patched while it runs does not run plain cells either.
    """
    quiet = f"import warnings; warnings.simplefilter('ignore'); {patch}"
    line = "%%parallel {} -q -o run for n in range(6)\nprint('item', n)\nn"
    sources = [line.format("procs=2"), line.format("serial"), "print(run.results)"]
    shown = cells(*([quiet, *sources] if early else [sources[0], quiet, *sources]), into=tmp_path)
    assert shown[-1] == "[0, 1, 2, 3, 4, 5]\n"
    assert [shown[-3].count("[procs"), shown[-2].count("[serial")] == [6, 6]


PAGE = """\
import sys, warnings
warnings.simplefilter("ignore")
order, patch = sys.argv[1:]
if order == "before":
    exec(patch)
import parmagic
from parmagic.render import serve
run = parmagic.run(abs, range(4), "procs=2")
if order == "between":
    serve.link(parmagic.result.study(run))
if order != "before":
    exec(patch)
url = serve.link(parmagic.result.study(run))
import subprocess
get = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1], timeout=20).read()))"
process = subprocess.Popen([sys.executable, "-c", get, url], stdout=subprocess.PIPE)
assert int(process.communicate(timeout=30)[0]) > 1000
serve.close()
print("THE END")
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", [*ALL.values(), SOME["grequests"]], ids=[*ALL, "grequests"])
def test_the_page_is_served(tmp_path, patch, order):
    """The timeline is served while the notebook itself is busy, by a thread that takes no turns with greenlets."""
    (tmp_path / "page.py").write_text(PAGE)
    assert "THE END" in tool("page.py", order, patch, into=tmp_path)
