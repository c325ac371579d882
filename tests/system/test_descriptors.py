"""Bodies that close, or replace, descriptors that they did not open: the user's files hold what the user wrote, and runs go on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from parmagic.system.descriptors import CEILING, ROOM, Descriptor, Lost, OwnConnection, OwnSocket, high, readable

_HEAD = """
import ctypes, os, sys, time
from pathlib import Path
import parmagic
from parmagic.workers import stack
kept = []

def open_many():
    # files that get the lowest numbers that are free
    for _ in range(200):
        path = f"mine-{os.getpid()}-{len(kept)}"
        kept.append(os.open(path, os.O_CREAT | os.O_RDWR))
        os.write(kept[-1], b"mine")

def check():
    # what is kept open in this process is still the user's, and so is all that was written
    for descriptor in kept:
        assert os.pread(descriptor, 100, 0) == b"mine", descriptor
    found = [path for path in Path().glob("mine-*") if path.read_bytes() != b"mine"]
    assert not found, (found[0], found[0].read_bytes())
    assert any(Path().glob("mine-*"))
    assert parmagic.run(abs, range(4), "procs=2", once=True).results == [0, 1, 2, 3]
    for descriptor in kept:
        assert os.pread(descriptor, 100, 0) == b"mine", descriptor
"""

CLOSE = "os.closerange(3, 256)"
REPLACE = "null = os.open(os.devnull, os.O_RDWR); [os.dup2(null, n) for n in range(5, 51)]"
CLOSE_ALL = "os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


def _in_a_script(text):
    """Run a script of its own: what it closes is not this process's."""
    done = subprocess.run([sys.executable, "-c", _HEAD + text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["threads=2", "procs=2", "threads=2 procs=2"])
@pytest.mark.parametrize("deed", [CLOSE, REPLACE], ids=["closed", "replaced"])
def test_low_numbers(line, deed):
    """Where a body closes or replaces low numbers, all results are right, and files that get these numbers are the user's alone."""
    _in_a_script(f"""
def body(item):
    if item == 0:
        {deed}
        open_many()
    return item
assert parmagic.run(body, range(8), {line!r}).results == list(range(8))
check()
""")


def test_all_numbers_in_threads():
    """Where a thread closes everything, the results are there, what is lost is made again, and the user's files are left alone."""
    _in_a_script(f"""
import resource
parmagic.run(abs, range(4), "procs=2", once=True)  # there is a server, and a resource tracker, to lose
def body(item):
    if item == 0:
        {CLOSE_ALL}
        open_many()
    return item
assert parmagic.run(body, range(8), "threads=2").results == list(range(8))
check()
""")


def test_all_numbers_between_arms():
    """Where the notebook loses what the next arm needs, the error says why, and the next run works."""
    _in_a_script(f"""
import resource
def body(item):
    if item == 0:
        {CLOSE_ALL}
        open_many()
    return item
try:
    parmagic.run(body, range(8), "threads=2 procs=2")
except parmagic.ParmagicError as error:
    assert "closed" in str(error) or "ended" in str(error), error
else:
    raise AssertionError
check()
""")


def test_all_numbers_in_processes():
    """A worker that cannot report any more ends at once, and the error says why; another takes its place with --keep-going."""
    _in_a_script(f"""
import resource
def body(item):
    if item == 5:
        {CLOSE_ALL}
        open_many()
    return item
run = parmagic.run(body, range(8), "procs=2", chunk=1, keep_going=True, once=True)
assert run.results == [None if item == 5 else item for item in range(8)], run.results
assert "its way to the notebook" in run.items.error.iloc[5], run.items.error.iloc[5]
check()
""")


@pytest.mark.parametrize("deed", [CLOSE, REPLACE, CLOSE_ALL], ids=["closed", "replaced", "all closed"])
@pytest.mark.parametrize("crash", [True, False])
def test_no_traceback_in_the_users_file(deed, crash):
    """What faulthandler writes, of a crash or while an item takes long, is never in a file of the user's."""
    _in_a_script(f"""
import resource
stack.EVERY = 0.05  # seconds between two looks, in forks of this process
def body(item):
    if item == 2:
        {deed}
        open_many()
        time.sleep(0.3)
        {crash} and ctypes.string_at(0)
    return item
run = parmagic.run(body, range(4), "procs=1", chunk=1, keep_going=True, once=True, start_method="fork")
assert [run.results[n] for n in (0, 1, 3)] == [0, 1, 3]
check()
""")


@pytest.mark.parametrize("deed", ["os.close(1)", "os.close(2)", "sys.stdout.close()", "sys.stdout = None", "os.close(0)"])
def test_closed_streams(deed):
    """A worker process whose body closes its own streams ends well."""
    _in_a_script(f"""
def body(item):
    sys.stdout and sys.stdout.write("no newline")
    {deed}
    return item
run = parmagic.run(body, [7], "procs=1", once=True)
assert run.results == [7]
assert not any("Worker" in note for note in run.notes), run.notes
""")


@pytest.fixture
def limit():
    """Return a function that sets how many descriptors are allowed, for this test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("allowed", "base"), [(1024, 1024 - ROOM), (CEILING, CEILING - ROOM), (256, 192)])
def test_numbers_are_high(limit, allowed, base):
    """A descriptor moves to the numbers below the limit, is not inherited by programs, and its old number is free."""
    limit(allowed)
    low = os.open(os.devnull, os.O_RDONLY)
    moved = high(low)
    assert base <= moved < allowed
    assert not os.get_inheritable(moved)
    assert os.dup(moved) == low
    os.close(low)
    os.close(moved)


def test_where_nothing_is_free_up_there(limit):
    """Below a limit that is full, a descriptor stays where it is."""
    held = [os.open(os.devnull, os.O_RDONLY)]
    limit(held[0] + 20)
    with suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    assert high(held[0]) == held[0]
    for each in held:
        os.close(each)


@pytest.mark.parametrize("make", [Descriptor, OwnConnection, lambda fd: OwnSocket(socket.socket(fileno=fd))])
def test_another_files_number(make, tmp_path):
    """A number that is another file's by now is not used, and not closed."""
    ours, theirs = socket.socketpair()
    mine = make(ours.detach())
    number = mine.fileno()
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    os.dup2(other, number)
    with pytest.raises(Lost):
        (mine.must_be_ours if isinstance(mine, OwnSocket) else mine.fileno)()
    if isinstance(mine, OwnConnection):
        with pytest.raises(Lost):
            mine.send("text")
    mine.close()
    assert os.path.sameopenfile(other, number)
    assert os.fstat(other).st_size == 0
    os.close(number)
    os.close(other)
    theirs.close()


@pytest.mark.parametrize(
    "figure",
    ["usage.peak_rss_mb()", "usage.cpu_seconds(os.getpid())", "meter.state_of(os.getpid(), os.getpid())", "meter.InferringMeter(None).close()"],
)
def test_read_beside_a_thread_that_closes_all(figure):
    """What is read of the system while bodies run never closes a number that has become a file of theirs."""
    _in_a_script(f"""
import threading
from parmagic.record import meter, usage
go_on = True
def read():
    while go_on:
        {figure}
reader = threading.Thread(target=read)
reader.start()
try:
    for _ in range(3000):
        os.closerange(3, 256)
        kept[:] = [os.open("mine", os.O_CREAT | os.O_RDWR) for _ in range(3)]
        time.sleep(0)
        for descriptor in kept:
            os.pwrite(descriptor, b"mine", 0)
finally:
    go_on = False
    reader.join()
""")


def test_an_error_that_holds_itself_crashes_nothing():
    """What sending raises may end in a circle of references; multiprocessing's own crashes Python 3.12's garbage collection then."""
    _in_a_script("""
import gc, socket
from parmagic.system.descriptors import OwnConnection
for _ in range(50):
    ours, theirs = socket.socketpair()
    connection = OwnConnection(ours.detach())
    theirs.close()
    try:
        connection.send("x" * 100_000)
    except OSError as error:
        error.itself = error
    connection.close()
    del connection
    gc.collect()
ours, theirs = socket.socketpair()
ends = OwnConnection(ours.detach()), OwnConnection(theirs.detach())
ends[0].send({"k": [1, 2]})
assert ends[1].recv() == {"k": [1, 2]}
ends[0].close()
try:
    ends[1].recv()
except EOFError:
    pass
else:
    raise AssertionError
""")


def test_high_numbers_can_be_waited_for():
    """Waiting works for numbers that select refuses."""
    read, write = os.pipe()
    read = high(read)
    assert read > 1023 or resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= CEILING
    assert not readable(read)
    os.write(write, b"x")
    assert readable(read, 10)
    os.close(read)
    os.close(write)
