"""In a real kernel: what processes print that a body starts, and what a body leaves behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import kernels
import pytest
from kernels import printed

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[str], list[Any]]]:
    """Return a function that runs a cell in one real kernel and returns its outputs."""
    with kernels.kernel() as run:
        run("import concurrent.futures, multiprocessing, os, queue, sys\nfork = multiprocessing.get_context('fork')")
        yield run


@pytest.mark.parametrize("model", ["threads=2", "serial", "procs=2", "procs=2 --start-method fork"])
@pytest.mark.parametrize(
    "child",
    [
        "p = fork.Process(target=say, args=(n,))\np.start()\np.join()",
        "with fork.Pool(2) as pool:\n    pool.map(say, [n])",
        "with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:\n    pool.submit(say, n).result()",
    ],
    ids=["Process", "Pool", "ProcessPoolExecutor"],
)
def test_children_print_under_the_cell(kernel, model, child):
    """What child processes print arrives under the cell, marked as the worker's that has started them; a plain cell prints as ever."""
    kernel("def say(n):\n    print('said', n)\n    print('warned', n, file=sys.stderr)")
    outputs = kernel(f"%%parallel {model} --once -q for n in range(2)\n{child}")
    name = model.partition("=")[0]
    for stream, word in (("stdout", "said"), ("stderr", "warned")):
        lines = sorted(re.sub(r" [01]\]", "]", line) for line in printed(outputs, stream).splitlines())
        assert lines == [f"[{name}] {word} 0", f"[{name}] {word} 1"]
    plain = printed(kernel("p = fork.Process(target=print, args=('said 5',))\np.start()\np.join()"))
    assert plain.strip() == "said 5"  # in one piece: ipykernel of old sends each by a socket of its own, the newline too


def test_other_children_of_processes(kernel):
    """Programs, and children in new interpreters, print as the worker's process that has started them."""
    outputs = kernel("%%parallel procs=1 --once -q for n in range(1)\n_ = os.system('echo from a program')")
    assert printed(outputs) == "[procs 0] from a program\n"
    outputs = kernel("%%parallel procs=1 --once -q for n in range(1)\nwith multiprocessing.get_context('spawn').Pool(1) as pool:\n    pool.map(print, [n])")
    assert printed(outputs) == "[procs 0] 0\n"


def test_what_a_body_leaves_behind(kernel):
    """Threads and pools come to their end, and directories go; what goes on is named under the cell, and the next cell works."""
    kernel("import atexit, tempfile, threading, time\nfrom pathlib import Path\nfolder = tempfile.mkdtemp()")
    kernel(
        "%%parallel procs=2 --once -q for n in range(2)\nsys.kept = tempfile.TemporaryDirectory(dir=folder)\n"
        "pool = concurrent.futures.ThreadPoolExecutor(1)\n_ = pool.submit(lambda: (time.sleep(0.2), Path(folder, f'done{n}').touch()))"
    )
    assert printed(kernel("print(sorted(os.listdir(folder)))")) == "['done0', 'done1']\n"
    kernel("run = get_ipython().run_cell_magic('parallel', 'procs=1 --once for n in range(1)', 'threading.Timer(60, print).start()')")
    kernel("import parmagic")
    assert "left behind" in printed(kernel("print(parmagic.last().notes)"))


def test_a_queue_that_nobody_reads(kernel):
    """It is said under the cell what is waited for, also under -q; a timeout ends it, and the queue takes and gives again."""
    kernel("q = multiprocessing.get_context('forkserver').Queue()")
    outputs = kernel("%%parallel procs=1 --once -q --timeout 4 for n in range(1)\nq.put(bytes(10_000_000))")
    assert "[procs 0] has done its items: its feeder thread still writes to `q`" in printed(outputs)
    assert any(output.output_type == "error" and output.ename == "RunTimeout" for output in outputs)
    assert printed(kernel("try:\n    q.get(timeout=1)\nexcept queue.Empty:\n    print('empty')\nq.put(5)\nprint(q.get(timeout=10))")) == "empty\n5\n"
