"""How processes share out items: every order in which it can happen, and kills and delays at every line of the real thing."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import Counter

import claim_model
import pytest
from claim_model import Model, Wrong, explore

from parmagic.record.board import STOP, blank_board, item_slot
from parmagic.workers.dispatch import claimed
from parmagic.workers.processes import claims, hub
from parmagic.workers.processes.claims import BoardDeck, FileLock

pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")


@pytest.mark.parametrize(
    "model",
    [
        Model(2, 3, 1, 2), Model(2, 3, 1, 2, keep_going=False), Model(2, 4, 2, 2), Model(3, 3, 1, 1, reduced=True), Model(3, 2, 2, 2, reduced=True),
    ],
    ids=lambda model: f"{model.n_workers} workers, {model.n_items} by {model.chunk}, {model.kills} kills{', all stop' * (not model.keep_going)}",
)  # fmt: skip
def test_every_order_of_steps(model):
    """However slow workers are, and wherever they are killed, every item runs and is told of once, but for the one a dead worker was on."""
    assert explore(model) > 10_000


LOOK, BEGIN, COMMIT = claims.STEPS


@pytest.mark.parametrize(
    "mistake", [{"exclusive": False}, {"steps": (LOOK, COMMIT, BEGIN)}, {"steps": (LOOK, COMMIT)}], ids=["no lock", "commit first", "no begin"]
)
def test_the_model_sees_mistakes(mistake):
    """Without the lock, or with the steps in another order, an item runs twice, and the model says how that comes."""
    with pytest.raises(Wrong, match=r"item \d ran 2 times, not 1\n(.*\n)*1: lock"):
        explore(Model(2, 3, 1, 1, **mistake))


def test_the_model_sees_what_an_heir_did_not_claim(monkeypatch):
    """A claim that is still on the board of a dead worker is not its heir's: that it is told apart matters."""
    monkeypatch.setattr(claim_model, "claimed", lambda board, rank, _: claimed(board, rank, 0))
    with pytest.raises(Wrong, match="ran 2 times"):
        explore(Model(1, 4, 3, 2))


class Alone:
    """A lock that only counts."""

    def __init__(self) -> None:
        self.held = self.taken = 0

    def acquire(self) -> None:
        """Take it."""
        self.held += 1
        self.taken += 1

    def release(self) -> None:
        """Give it back."""
        self.held -= 1


def test_processes_claim_in_turn():
    """Each claim starts where the last one on the board ends, whoever made that."""
    board, lock = blank_board(2), Alone()
    one, two = (BoardDeck(lock, 10, 2, 3, board, rank) for rank in (0, 1))
    assert [one.take(), two.take(), one.take(), two.take(), one.take()] == [range(3), range(3, 6), range(6, 9), range(9, 10), None]
    assert [list(board[item_slot(rank) + 1 : item_slot(rank) + 3]) for rank in (0, 1)] == [[10, 10], [9, 10]]
    assert (lock.held, lock.taken) == (0, 5)


def test_stop_claims_nothing():
    """A worker that is told to stop does not even wait for its turn."""
    board, lock = blank_board(1), Alone()
    board[STOP] = 1
    assert BoardDeck(lock, 10, 1, None, board, 0).take() is None
    assert lock.taken == 0


@pytest.fixture
def file():
    """Return a file to lock."""
    descriptor = os.memfd_create("lock") if hasattr(os, "memfd_create") else os.open("lock", os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def _child(work):
    """Fork a process that does this and then waits; return its id when it has done it."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            work()
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    return pid


def _is_free(file):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.lockf(file, fcntl.LOCK_UN)
    return True


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_the_kernel_frees_the_lock_of_who_is_killed(file):
    """Nobody else has the lock while a holder is stopped, however long, and it is free as soon as that one is killed."""
    pid = _child(FileLock(file).acquire)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    assert not _is_free(file)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert _is_free(file)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_the_lock_is_not_handed_down(file):
    """A process that a holder forks does not have its lock, and does not free it when it ends."""
    lock = FileLock(file)
    lock.acquire()
    pid = _child(lambda: os.write(2, b"") if not _is_free(file) else os._exit(1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    other = _child(lambda: None if not _is_free(file) else os._exit(1))
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    lock.release()
    assert _is_free(file)


def test_a_file_that_is_not_ours_is_not_locked(file):
    """Where the body has closed the descriptor, or another file has got its number, nothing is claimed, and the error says why."""
    other, mine = os.open(os.devnull, os.O_RDWR), os.dup(file)
    lock = FileLock(mine)
    lock.acquire()
    lock.release()
    os.close(mine)
    with pytest.raises(OSError, match="closed by somebody else"):
        lock.acquire()
    os.dup2(other, mine)
    with pytest.raises(OSError, match="closed by somebody else"):
        lock.acquire()
    os.close(other)
    os.close(mine)


AT_A_LINE = '''
import os, sys, time

def is_there(name):
    return os.path.exists(os.path.join(FOLDER, name))

def put(name):
    open(os.path.join(FOLDER, name), "a").close()

def wait_for(name):
    until = time.monotonic() + 20
    while not is_there(name) and time.monotonic() < until:
        time.sleep(0.0005)

def note(n):
    file = os.open(os.path.join(FOLDER, "log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, b"%d\\n" % n)
    os.close(file)

PARTS = ("parmagic/workers/dispatch.py", "parmagic/workers/processes/claims.py", "parmagic/workers/loop.py")

def at_line(count, do):
    """Do something before the count-th line from here on of what shares out the items, and runs and reports them."""
    left = count
    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.endswith(PARTS):
            return None
        if event == "line":
            left -= 1
            if not left:
                do()
        return trace
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_filename.endswith(PARTS):
            frame.f_trace = trace
    sys.settrace(trace)

def enough():
    sys.settrace(None)
    put("over")

def die():
    put("over")
    put("struck")
    os.kill(os.getpid(), 9)

def be_slow():
    put("struck")
    put("over")
    wait_for("heir")
'''


def _runs(folder):
    return Counter(map(int, (folder / "log").read_text().split()))


def _rounds(ip, tmp_path, cell):
    """Run a cell again and again, each time with what it does one line later, until that line is not reached; yield run and folder."""
    for line in range(1, 100):
        folder = tmp_path / str(line)
        folder.mkdir()
        ip.shell.user_ns.update(FOLDER=str(folder), LINE=line)
        run = ip(cell)
        yield run, folder
        if not (folder / "struck").exists():
            assert line > 15
            return


def test_killed_at_every_line(ip, tmp_path):
    """Wherever in its round a worker is killed, every item runs exactly once; only an item that it was on may have no result."""
    ip(AT_A_LINE)
    cell = (
        "%%parallel procs=2 --once -q --trace off --keep-going --chunk 1 for n in range(6)\nnote(n)\n"
        "if worker.rank:\n    wait_for('over')\nelif not is_there('armed'):\n    put('armed')\n    at_line(LINE, die)\nelse:\n    enough()\nn"
    )
    failed = []
    for run, folder in _rounds(ip, tmp_path, cell):
        runs = _runs(folder)
        lost = [n for n, result in enumerate(run.results) if result is None]
        failed.append(len(lost))
        assert len(lost) <= 1
        assert all(runs[n] == 1 for n in range(6) if n not in lost), (folder.name, runs)
        assert all(runs[n] <= 1 for n in lost), (folder.name, runs)
        assert [error is not None for error in run.items["error"].where(run.items["error"].notna(), None)] == [n in lost for n in range(6)]
    assert 0 in failed[:-1]  # between two items nothing is lost
    assert 1 in failed


def test_slow_at_every_line_while_another_one_dies(ip, tmp_path):
    """Wherever in its round a worker is slow, the death of another one makes nobody run an item twice."""
    ip(AT_A_LINE)
    cell = (
        "%%parallel procs=2 --once -q --trace off --keep-going --chunk 2 for n in range(12)\nnote(n)\n"
        "if n == 0:\n    put('first')\n    wait_for('over')\n    os.kill(os.getpid(), 9)\n"
        "wait_for('first')\n"
        "if n == 1:\n    put('heir')\n"
        "elif not is_there('armed'):\n    put('armed')\n    put('mine%d' % os.getpid())\n    at_line(LINE, be_slow)\n"
        "elif is_there('mine%d' % os.getpid()) and n % 2 == 0:\n    enough()\nn"
    )
    for run, folder in _rounds(ip, tmp_path, cell):
        assert _runs(folder) == dict.fromkeys(range(12), 1), folder.name
        assert run.results == [None, *range(1, 12)]
