"""Where the notebook cannot be forked: beside threads of libraries, and with a GPU. No run hangs by that, and the reason is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads and devices are found in /proc"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]

POOL = """
#include <pthread.h>
#include <stdlib.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t threads[64];
static int started, jobs, done, stop;
static volatile int spin;
static void *work(void *_) {
    pthread_mutex_lock(&lock);
    while (!stop) {
        if (spin) { pthread_mutex_unlock(&lock); while (spin); pthread_mutex_lock(&lock); continue; }
        if (!jobs) { pthread_cond_wait(&changed, &lock); continue; }
        jobs--; done++; pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}
int use(int count) { /* a pool that begins with its first job, and waits for each to be done, as OpenMP's, polars' and torch's */
    pthread_mutex_lock(&lock);
    for (; started < count; started++) pthread_create(&threads[started], NULL, work, NULL);
    jobs++; done = 0; pthread_cond_broadcast(&changed);
    while (!done) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return started;
}
void busy(int on) { pthread_mutex_lock(&lock); spin = on; pthread_cond_broadcast(&changed); pthread_mutex_unlock(&lock); }
void end(void) {
    pthread_mutex_lock(&lock); stop = 1; pthread_cond_broadcast(&changed); pthread_mutex_unlock(&lock);
    while (started) pthread_join(threads[--started], NULL);
    stop = 0;
}
"""
GPU = """
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
static pid_t owner;
/* as CUDA's driver: it is one process's, opens its device when it is set up, and in a fork says error 3 to everything */
int cuInit(void) {
    if (owner && owner != getpid()) return 3;
    if (!owner && open(getenv("DEVICE"), O_RDWR | O_CLOEXEC) < 0) return 100;
    owner = getpid();
    return 0;
}
"""
MODULE = """
import ctypes, os
library = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libNAME.so"))
"""
BEGIN = """
import multiprocessing, os, sys, threading
import parmagic, NAME
def used(n):
    open(f"ran-{n}", "w").close()
    return NAME.use(2)
def refused(function, models, **options):
    try:
        parmagic.run(function, range(4), models, timeout=30, **options)
    except parmagic.ParmagicError as error:
        assert not [name for name in os.listdir() if name.startswith("ran-")], error
        return str(error)
    raise AssertionError("it was not refused")
if __name__ == "__main__":
"""
REFUSALS = """
lock, handle = multiprocessing.get_context("fork").Lock(), (n for n in range(4))
def locked(n):
    with lock: return used(n)
def unsent(n): return next(handle)
text = refused(used, "procs=2", start_method="fork")
assert "--start-method fork" in text and NAMED in text and "Leave --start-method away" in text, text
text = refused(locked, "procs=2")
assert NAMED in text and "get_context('forkserver')" in text and "--start-method" not in text, text
for options in ({}, {"start_method": "forkserver"}):
    text = refused(unsent, "procs=2", **options)
    assert "'handle'" in text and "fork" not in text, text
run = parmagic.run(used, range(4), "threads=2", timeout=30)  # its baseline is a clean process's
assert run.summary["baseline"].tolist() == ["measured"] and len(run.results) == 4, (run.summary, run.notes)
run = parmagic.run(unsent, range(4), "threads=2", timeout=30)  # and this one's nobody's
assert run.summary["baseline"].tolist() == ["estimated"]
assert [note for note in run.notes if NAMED in note and "cannot be forked" in note], run.notes
assert [note for note in run._study.saved.notes if NAMED in note and "NotShippable" in note], run._study.saved.notes
for name in os.listdir():
    if name.startswith("ran-"): os.remove(name)
"""


def _library(folder: Path, name: str, source: str, module: str) -> None:
    (folder / "lib.c").write_text(source)
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-pthread", "-o", f"lib{name}.so", "lib.c"], cwd=folder, check=True)
    (folder / f"{name}.py").write_text(MODULE.replace("NAME", name) + module)


def _script(folder: Path, name: str, text: str, *around: str, **variables: str) -> None:
    """Run a program in a process of its own; it prints ``fine`` at its end."""
    body = "".join(f"    {line}\n" for line in (text + "\nprint('fine')").strip("\n").splitlines())
    (folder / "script.py").write_text(BEGIN.replace("NAME", name) + body)
    done = subprocess.run(
        [*around, sys.executable, "script.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(TESTS), **variables}, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout.endswith("fine\n"), done.stdout


def _as_if_installed(folder: Path) -> str:
    """Have the process that starts workers find a folder, as it would find one where packages are installed."""
    return f"""
from parmagic.workers.processes import launched, preload
preload._roots = lambda: ({str(folder) + os.sep!r},)
launched._search_path = lambda found=launched._search_path: [{str(folder)!r}, *found()]
"""


@pytest.fixture
def pool(tmp_path):
    """A module whose threads are none of Python's."""
    _library(tmp_path, "pool", POOL, "use, busy, end = library.use, library.busy, library.end\n")
    return tmp_path


def test_a_pool_that_is_not_known(pool):
    """Beside its threads nothing is forked: that is refused before anything has run, no message recommends it, and the baseline is measured."""
    text = "pool.use(2)\n" + REFUSALS.replace("NAMED", "'libpool (2)'") + "pool.end()\n"
    _script(pool, "pool", text + "assert parmagic.run(used, range(4), 'procs=2', start_method='fork', once=True).results == [2] * 4")


def test_a_pool_that_is_busy(pool):
    """Threads that compute are seen, too."""
    text = "pool.use(2)\npool.busy(1)\ntext = refused(used, 'procs=2', start_method='fork')\npool.busy(0)\npool.end()\n"
    _script(pool, "pool", text + "assert '(2)' in text, text")


def test_a_thread_of_no_library(pool):
    """One that only the system's library runs is known by its own name."""
    text = """
import ctypes
libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
def nothing(n): return n
assert parmagic.run(nothing, range(4), "procs=2", start_method="fork", once=True).results == [*range(4)]
assert libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None) == 0
libc.pthread_setname_np(thread, b"nobody's")
assert "nobody's (1)" in refused(nothing, "procs=2", start_method="fork")
"""
    _script(pool, "pool", text)


def test_pools_that_a_fork_makes_anew(pool):
    """OpenBLAS' threads, Python's, whoever started them, and those of Jupyter's sockets keep nobody from forking."""
    text = """
import _thread, select, numpy as np, zmq
context = zmq.Context()
socket = context.socket(zmq.PUB)
socket.bind_to_random_port("tcp://127.0.0.1")
end = _thread.allocate_lock()
end.acquire()
_thread.start_new_thread(end.acquire, ())
reads, writes = os.pipe()
_thread.start_new_thread(select.select, ([reads], [], []))  # in the code of another library, but begun by Python
def product(n): return float((np.ones((400, 400)) @ np.ones((400, 400)))[0, n])
product(0)
assert len(os.listdir("/proc/self/task")) > 3
assert parmagic.run(product, range(4), "procs=2", start_method="fork").results == [400.0] * 4
assert parmagic.run(product, range(4), "threads=2").summary["baseline"].tolist() == ["measured"]
end.release()
os.write(writes, b"x")
context.destroy()
"""
    _script(pool, "pool", text)


def test_an_import_that_starts_a_pool(pool, tmp_path):
    """What starts one when it is imported is imported by no process that forks, but by each worker."""
    site = tmp_path / "installed"
    site.mkdir()
    for name in ("pool.py", "libpool.so"):
        (tmp_path / name).rename(site / name)
    with (site / "pool.py").open("a") as module:
        module.write("use(2)\n")
    text = f"""
{_as_if_installed(site)}
run = parmagic.run(used, range(4), "procs=2", once=True, timeout=30)
assert run.results == [2] * 4
assert [note for note in run.notes if "import pool by themselves" in note and "left threads behind" in note], run.notes
"""
    _script(tmp_path, "pool", text, PYTHONPATH=str(site))


NAMESPACE = """
mkdir dev dev/dri
for each in null zero random urandom tty; do touch dev/$each && mount --bind /dev/$each dev/$each || exit 9; done
touch "dev/${DEVICE#/dev/}" && mount --bind /dev/null "dev/${DEVICE#/dev/}" || exit 9
mkdir dev/shm && mount --bind /dev/shm dev/shm && ln -s /proc/self/fd dev/fd && mount --rbind dev /dev || exit 9
exec "$@"
"""


def _with_a_device(folder: Path, text: str, device: str) -> None:
    """Run a program that has a device of that name, in a namespace of its own: no real one, which needs its driver in the kernel."""
    around = ["unshare", "-Urm", "sh", "-c", NAMESPACE, "sh"]
    (folder / "probe").mkdir()
    probe = subprocess.run([*around, "true"], cwd=folder / "probe", env={**os.environ, "DEVICE": device}, check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"needs a mount namespace: {probe.stderr!r}")
    _script(folder, "gpu", text, *around, DEVICE=device)


SET_UP = """
def use(_):
    code = library.cuInit()
    if code: raise RuntimeError(f"Cannot re-initialize the GPU in forked subprocess ({code})")
    return code
"""


@pytest.fixture
def gpu(tmp_path):
    """A module that sets a GPU up when it is first used, and cannot do so in a fork of a process that has."""
    _library(tmp_path, "gpu", GPU, SET_UP)
    return tmp_path


@pytest.mark.parametrize("device", ["/dev/nvidia-uvm", "/dev/kfd", "/dev/dri/renderD128", "/dev/accel0"])
def test_a_gpu_that_the_notebook_holds(gpu, device):
    """It is not forked: the baseline is a clean process's, and ``--start-method fork`` is refused with the reason."""
    _with_a_device(gpu, f"assert gpu.use(0) == 0\n{REFUSALS.replace('NAMED', repr(device))}", device)


@pytest.mark.parametrize("device", ["/dev/nvidiactl", "/dev/nvidia0"])
def test_a_gpu_that_is_only_watched(gpu, device):
    """What NVML opens to tell how warm a GPU is keeps nobody from forking."""
    text = "watched = open(os.environ['DEVICE'])\nassert parmagic.run(abs, [-1, -2], 'procs=2', start_method='fork', once=True).results == [1, 2]"
    _with_a_device(gpu, text, device)


def test_an_import_that_takes_a_gpu(gpu):
    """A process that forks imports nothing that sets one up; each worker does so for itself, and can use it."""
    with (gpu / "gpu.py").open("a") as module:
        module.write("use(0)\n")
    text = f"""
{_as_if_installed(gpu)}
run = parmagic.run(used, range(4), "procs=2", once=True, timeout=30)
assert run.results == [0] * 4
assert [note for note in run.notes if "import gpu by themselves" in note and "holds a GPU" in note], run.notes
"""
    _with_a_device(gpu, text, "/dev/nvidia-uvm")


KERNEL = """
from alongside import cells
from pathlib import Path
refuse = "try: get_ipython().run_line_magic('parallel', 'procs=2 -q --start-method fork gpu.use(n) for n in range(4)')\\n"
refuse += "except Exception as error: print(type(error).__name__, 'nvidia-uvm' in str(error))"
*_, measured, refused = cells(
    "import gpu", "gpu.use(0)",
    "%%parallel threads=2 -q -o run for n in range(4)\\ngpu.use(n)", "print(run.results, run.summary['baseline'].tolist(), run.error)",
    refuse, into=Path.cwd(),
)
assert measured == "[0, 0, 0, 0] ['measured'] None\\n", measured
assert refused == "NotShippable True\\n", refused
"""


def test_a_gpu_in_a_kernel(gpu):
    """So in a real kernel, whose own threads keep nobody from forking."""
    _with_a_device(gpu, KERNEL, "/dev/nvidia-uvm")
