"""What child processes print that a body starts: it arrives, as the worker's, also where that is a thread of the notebook's."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter

import pytest
from arms import MODELS, spread

from parmagic.workers import forks
from parmagic.workers.lines import MOST

CHILDREN = {
    "a Process": "p = fork.Process(target=say, args=(n,))\np.start()\np.join()",
    "a Pool": "with fork.Pool(2) as pool:\n    pool.map(say, [n], chunksize=1)",
    "ProcessPoolExecutor": "with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:\n    pool.submit(say, n).result()",
    "os.fork": "pid = os.fork()\nif not pid:\n    say(n)\n    os._exit(0)\n_ = os.waitpid(pid, 0)",
    "a thread of a child's": "pid = os.fork()\nif not pid:\n    t = threading.Thread(target=say, args=(n,))\n    t.start()\n    t.join()\n"
    "    os._exit(0)\n_ = os.waitpid(pid, 0)",
    "a child's child": "pid = os.fork()\nif not pid:\n    if not os.fork():\n        say(n)\n        os._exit(0)\n    os.wait()\n    os._exit(0)\n_ = os.waitpid(pid, 0)",
}
SETUP = (
    "import concurrent.futures, multiprocessing, os, sys, threading, time\nfork = multiprocessing.get_context('fork')\n"
    "def say(n):\n    print('said', n)\n    print('warned', n, file=sys.stderr)\n    sys.stdout.buffer.write(b'bytes\\n')\n    sys.stdout.flush()"
)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("model", "child"), spread(MODELS, CHILDREN, "a Process", "a thread of a child's"))
def test_what_children_print_arrives(ip, capsys, model, child):
    """Every line comes once, whole, and marked as the worker's whose body has started the child."""
    ip(SETUP)
    ip(f"%%parallel {model} --once -q --trace off for n in range(3)\n{CHILDREN[child]}")
    out, err = capsys.readouterr()
    name = model.partition("=")[0]
    assert all(re.match(rf"\[{name} [01]\] ", line) for line in (out + err).splitlines()), out + err
    assert Counter(line.partition("] ")[2] for line in out.splitlines()) == {"said 0": 1, "said 1": 1, "said 2": 1, "bytes": 3}
    assert Counter(line.partition("] ")[2] for line in err.splitlines()) == {"warned 0": 1, "warned 1": 1, "warned 2": 1}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_that_print_at_once(ip, capsys):
    """Lines of many children of one thread are whole, also long ones and such as come in parts; text that is no ASCII survives its pieces."""
    ip(SETUP)
    ip("def chat(k):\n    for line in range(100):\n        print(k, end=' ')\n        print('é' * 3_000, end='')\n        print()")
    ip("%%parallel threads=2 --once -q --trace off for n in range(2)\nwith fork.Pool(3) as pool:\n    pool.map(chat, range(3), chunksize=1)")
    lines = Counter(re.sub(r"^\[threads [01]\] ", "", line) for line in capsys.readouterr().out.splitlines())
    assert sum(lines.values()) in range(50, 601)  # of a megabyte from each worker, the rest is counted
    whole = [f"{k} {'é' * 3_000}" for k in range(3)]
    cut = [line.rstrip("\ufffd").partition("…")[0] for line in lines if line not in whole]  # where a worker's megabyte ends, in a line
    assert len(cut) <= 4
    assert all(any(each.startswith(line) for each in whole) for line in cut)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_flood_of_children(ip, capsys):
    """Of what children print, a megabyte is shown of each worker, and the rest is told in a note."""
    ip(SETUP)
    run = ip("%%parallel threads=1 --once -q --trace off for n in range(3)\np = fork.Process(target=print, args=('.' * 3_000_000,))\np.start()\np.join()")
    assert len(capsys.readouterr().out) < 2 * MOST
    assert any("MB more than is shown" in note for note in run.notes), run.notes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at descriptors in /proc")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_outlives_its_run(ip, capfd):
    """What it prints later goes where the notebook prints, and nothing waits for it: no descriptor of ours stays."""
    ip(SETUP)
    begun, goes_on = os.pipe(), os.pipe()
    ip.space.update(begun=begun[1], goes_on=goes_on[0])
    with capfd.disabled():
        before = len(os.listdir("/proc/self/fd"))
    ip(
        "%%parallel threads=1 --once -q --trace off for n in range(1)\nchild = os.fork()\nif not child:\n    os.write(begun, b'x')\n"
        "    os.read(goes_on, 1)\n    print('late')\n    sys.stdout.flush()\n    os._exit(0)\nos.read(begun - 1, 1)\nchildren = child"
    )
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not forks._open
    os.write(goes_on[1], b"x")
    os.wait()
    assert "late" in capfd.readouterr().out
    for end in (*begun, *goes_on):
        os.close(end)


@pytest.mark.parametrize("model", ["procs=2", "procs=2 --start-method fork"])
def test_a_child_of_a_process_that_displays(ip, capsys, model):
    """It is printed: a child and its worker do not write to one socket, which would end the worker."""
    ip("import os")
    run = ip(f"%%parallel {model} --once -q --trace off for n in range(8)\npid = os.fork()\nif not pid:\n    display('shown')\n    os._exit(0)\n_ = os.waitpid(pid, 0)\ndisplay(n)\nn")
    assert run.results == [*range(8)]
    assert len(re.findall(r"\[procs [01]\] 'shown'", capsys.readouterr().out)) == 8
