"""Memory that the notebook and its workers share: nobody can take it away from the others, or the notebook survives that."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys

import pytest

from parmagic.errors import WorkerDied
from parmagic.record.board import NOTHING, STOP, blank_board, board_size, item_slot
from parmagic.system.files import anonymous_file, keep_size, keeps_size
from parmagic.workers.processes import hub
from parmagic.workers.processes.board import BoardFile, ByCalls

pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")
seals = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory to seal here")

WAYS = {
    "ftruncate": "os.ftruncate(fd, 0)",
    "truncate": "os.truncate(f'/proc/self/fd/{fd}', 0)",
    "open": "os.close(os.open(f'/proc/self/fd/{fd}', os.O_RDWR | os.O_TRUNC))",
    "longer": "os.ftruncate(fd, 0), os.ftruncate(fd, 1 << 20)",
}

SCRIPT = """
import contextlib, os, signal, stat, sys
{before}
import parmagic
from parmagic.workers.processes.orders import LARGE

large = bytearray(2 * LARGE)

def work(n):
    if n == 3:
        for fd in range(3, 1000):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    {way}
        {then}
    return n + len(large) - 2 * LARGE

if __name__ == "__main__":
    try:
        run = parmagic.run(work, range(40), "procs=2", once=True, chunk=1, trace="off", keep_going={keep_going}, start_method={method!r})
    except parmagic.WorkerDied as error:
        print("died:", error)
    else:
        print("results:", run.results)
"""


def _alone(tmp_path, *, way, then="pass", before="", keep_going=True, method="forkserver"):
    """Run the script in a notebook of its own; return what it printed. It fails where that was killed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(way=way, then=then, before=before, keep_going=keep_going, method=method))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


@seals
@pytest.mark.parametrize(("way", "method"), [*((way, "forkserver") for way in WAYS), ("ftruncate", "fork")])
def test_a_worker_cannot_truncate_what_it_shares(tmp_path, way, method):
    """Whatever a body does to the length of all descriptors, the notebook lives, and every item has its result."""
    assert _alone(tmp_path, way=WAYS[way], method=method) == f"results: {list(range(40))}\n"


@seals
@pytest.mark.parametrize("way", ["ftruncate", "longer"])
def test_a_worker_dies_and_has_truncated_what_it_shares(tmp_path, way):
    """What a killed worker leaves can be read, also where it has tried to cut it short: one item is lost by it, and told."""
    assert _alone(tmp_path, way=WAYS[way], then="os.kill(os.getpid(), 9)") == f"results: {[n if n != 3 else None for n in range(40)]}\n"


NO_SEALS = "del os.memfd_create"


@pytest.mark.parametrize("then", ["pass", "os.kill(os.getpid(), 9)"])
@pytest.mark.parametrize("keep_going", [True, False])
def test_where_nothing_can_be_sealed(tmp_path, then, keep_going):
    """Without sealed memory the notebook survives as well, and the error names a worker."""
    told = _alone(tmp_path, way=WAYS["ftruncate"], then=then, before=NO_SEALS, keep_going=keep_going, method="fork")
    assert re.search(r"^died: .*[Ww]orker [01]", told)


def test_without_seals_all_is_well_otherwise(tmp_path):
    """Where memory has no seals, a run of which nobody is hostile is like any other, deaths included."""
    told = _alone(tmp_path, way="pass", then="os.kill(os.getpid(), 9)", before=NO_SEALS, method="fork")
    assert told == f"results: {[n if n != 3 else None for n in range(40)]}\n"


@seals
def test_a_file_that_keeps_its_size():
    """From the moment on that it is told to, a file gets neither shorter nor longer, and can be written to still."""
    file = anonymous_file()
    os.ftruncate(file, 100)
    assert not keeps_size(file)
    assert keep_size(file)
    assert keeps_size(file)
    for size in (0, 99, 101):
        with pytest.raises(PermissionError):
            os.ftruncate(file, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.pwrite(file, b"x", 99) == 1
    assert not os.get_inheritable(file)
    os.close(file)


def test_a_plain_file_cannot_keep_its_size(tmp_path):
    """A file on disk says that it cannot."""
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    assert not keep_size(file)
    assert not keeps_size(file)
    os.close(file)


def test_a_board_by_calls(tmp_path):
    """A board that is not mapped reads and writes the same places; where they are gone, the error names the worker and the likely cause."""
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    size = board_size(2)
    os.ftruncate(file, 8 * size)
    board = ByCalls(file)
    board[item_slot(1)], board[STOP] = NOTHING, 1
    assert [board[place] for place in range(size)] == [1, *[0] * (size // 2), NOTHING, *[0] * (size // 2 - 1)]
    os.ftruncate(file, 8 * item_slot(1))
    assert board[item_slot(0)] == 0
    with pytest.raises(WorkerDied, match=r"worker 1 .*cut short the memory that they share"):
        assert board[item_slot(1)]
    os.close(file)


def test_a_board_is_blank_before_and_after(monkeypatch):
    """A board that is not open, or not any more, has no claims and no file; both kinds of files begin blank."""
    for sealed in (True, False):
        if not sealed:
            monkeypatch.setattr("parmagic.workers.processes.board.keep_size", lambda _: False)
        board = BoardFile(2)
        board.open()
        assert isinstance(board.places, ByCalls) == (not sealed or not hasattr(os, "memfd_create"))
        assert [board.places[place] for place in range(board_size(2))] == list(blank_board(2))
        board.places[item_slot(1) + 2] = 5
        board.close()
        board.close()
        assert (board.file, board.places[item_slot(1) + 2]) == (-1, 0)
