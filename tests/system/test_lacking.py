"""Where the system lacks what is usual: no /proc, little shared memory, nothing to write to, system calls that are refused."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from parmagic.record import hooks

SYSCALLS = {  # memfd_create, pidfd_open, sched_getaffinity
    "x86_64": {"memfd_create": 319, "pidfd_open": 434, "sched_getaffinity": 204},
    "aarch64": {"memfd_create": 279, "pidfd_open": 434, "sched_getaffinity": 123},
}.get(platform.machine(), {})

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux") or not SYSCALLS, reason="Linux, on a machine whose system calls are known")
root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may hide a part of the file system")

_HEAD = """
import ctypes, errno, json, math, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def do(call, *arguments):
    if call(*arguments):
        print(json.dumps({"skip": f"{call.__name__}: {os.strerror(ctypes.get_errno())}"}))
        sys.exit()

def alone():  # a view of the file system of our own
    do(libc.unshare, 0x20000)
    do(libc.mount, b"none", b"/", None, 0x44000, None)

def empty(place, options=b""):
    do(libc.mount, b"tmpfs", place, b"tmpfs", 0, options)

def read_only(place):
    do(libc.mount, place, place, None, 0x1000, None)
    do(libc.mount, place, place, None, 0x1021, None)

def refuse(error, *numbers):  # a seccomp filter: load the call's number, answer these with the error, allow all others
    code = struct.pack("HBBI", 0x20, 0, 0, 0)
    for number in numbers:
        code += struct.pack("HBBI", 0x15, 0, 1, number) + struct.pack("HBBI", 0x06, 0, 0, 0x50000 | error)
    code += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    do(libc.prctl, 38, 1, 0, 0, 0)
    do(libc.prctl, 22, 2, program, 0, 0)
"""

_RUNS = """
import numpy, parmagic
array = numpy.ones(300_000)

def body(item):
    return array * item

def told(line):
    try:
        run = parmagic.run(body, range(4), line)
    except parmagic.ParmagicError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    rows = run.workers.fillna(math.nan)
    tiles = rows.filter(regex="_s$").drop(columns=["cpu_s", "wall_s"]).fillna(0).sum(axis=1) / rows.wall_s
    return {
        "sums": [float(each.mean()) for each in run.results], "notes": list(run.notes), "tiles": [float(tiles.min()), float(tiles.max())],
        "measured": bool(run.workers.measured.all()), "unknown": bool(run.workers.rss_mb.isna().all()), "calls": len(run._study.timelines[0].traces),
        "baseline": run.summary.baseline.iloc[0],
    }

print(json.dumps([told("threads=2"), told("procs=2")]))
"""


def _told(lack: str, folder: Path) -> list[dict]:
    """Run threads and processes where that is lacking; return what came of each."""
    done = subprocess.run([sys.executable, "-c", _HEAD + lack + _RUNS], capture_output=True, text=True, timeout=100, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, dict):
        pytest.skip(f"not allowed here, {found['skip']}")
    return found


NO_PROC = "alone(); empty(b'/proc')"
LITTLE_SHARED_MEMORY = "alone(); empty(b'/dev/shm', b'size=64k'); read_only(b'/tmp'); read_only(b'/var/tmp')"
NO_MEMFD = f"refuse(errno.EPERM, {SYSCALLS.get('memfd_create')})"
OLD_CONTAINER = f"refuse(errno.ENOSYS, *{list(SYSCALLS.values())})"


@pytest.mark.parametrize(
    "lack",
    [
        pytest.param(NO_PROC, marks=root, id="no /proc"),
        pytest.param(LITTLE_SHARED_MEMORY, marks=root, id="little shared memory, read-only /tmp"),
        pytest.param(NO_MEMFD, id="no memfd"),
        pytest.param(f"{NO_PROC}; {OLD_CONTAINER}", marks=root, id="old container"),
    ],
)
def test_it_works_without(lack, tmp_path):
    """Threads and processes have the right results, the rows tile the wall time, and what cannot be known is NaN or said."""
    for found in _told(lack, tmp_path):
        assert "error" not in found, found["error"]
        assert found["sums"] == [0, 1, 2, 3]
        assert found["tiles"] == pytest.approx([1, 1], abs=1e-6)
        assert found["baseline"] == "measured"
        assert found["calls"], found["notes"]
        hidden = "/proc" in lack
        assert found["unknown"] == hidden
        assert found["measured"] == (not hidden and not hooks.why_inferred())


@root
def test_nothing_to_write_to(tmp_path):
    """Without memory files and without a temporary folder, threads work, and processes say what is missing."""
    lack = f"alone(); read_only(b'/tmp'); read_only(b'/var/tmp'); read_only({os.fsencode(tmp_path)!r}); {NO_MEMFD}; os.chdir({str(tmp_path)!r})"
    threads, processes = _told(lack, tmp_path)
    assert threads["sums"] == [0, 1, 2, 3]
    assert "No usable temporary directory" in processes["error"]
    assert "let TMPDIR name a folder" in processes["error"]


def test_calls_that_are_refused_are_not_missed():
    """The filter of these tests does refuse: what it stands for would have been used."""
    script = _HEAD + NO_MEMFD + "\ntry: os.memfd_create('x')\nexcept PermissionError: print('refused')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "refused" or "skip" in done.stdout
