"""Processes that the fork server prepares ahead of the next run."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import pytest

from parmagic.system.cpus import available_cpus
from parmagic.workers.processes import hub, server

pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")


def spares() -> set[int]:
    """Return the process ids of the spares."""
    found = set()
    for child in psutil.Process(hub.get().pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == "parmagic spare":
                found.add(child.pid)
    return found


def wait_for_spares(count: int, others: set[int] = frozenset()) -> set[int]:
    """Wait until there are so many spares, none of them among ``others``; return them."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if len(found := spares()) == count and not found & others:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{len(spares())} spares, not {count}")


@pytest.fixture
def warm(ip):
    """Return a shell after a run of processes, and the spares that are there for the next one."""
    ip("import os, random, time")
    ip("%%parallel procs=2 --once -q\nos.getpid()")
    return ip, wait_for_spares(2)


def test_a_run_uses_them_and_each_only_once(warm):
    """Two runs one after the other never have a process in common, and the first one's were there before it."""
    ip, before = warm
    first = set(ip("%%parallel procs=2 --once -q\nos.getpid()").results)
    assert first == before
    second = set(ip("%%parallel procs=2 --once -q\nos.getpid()").results)
    assert not first & second


def test_more_workers_than_spares(warm):
    """What is missing is forked."""
    ip, before = warm
    assert set(ip("%%parallel procs=4 --once -q\nos.getpid()").results) > before
    wait_for_spares(4)


def test_never_more_than_a_few(warm):
    """Not every worker of a large run leaves a process behind it."""
    ip, _ = warm
    ip("%%parallel procs=12 --once -q\nos.getpid()")
    wait_for_spares(min(12, max(hub.MOST_SPARES, available_cpus())))


def test_a_dead_spare_harms_nobody(warm):
    """Somebody may kill processes that do nothing."""
    ip, before = warm
    spares = [psutil.Process(pid) for pid in before]
    for spare in spares:
        spare.kill()
    psutil.wait_procs(spares, timeout=5)
    results = ip("%%parallel procs=2 --once -q\nos.getpid()").results
    assert len(set(results) - before) == 2


def test_what_is_imported_makes_new_ones(warm, tmp_path, monkeypatch):
    """Spares know what the notebook has imported: an import later than they are makes others of them."""
    ip, before = warm
    hub.borrow(["wave"])[0].users -= 1
    wait_for_spares(2, others=before)
    assert ip("%%parallel procs=2 --once -q\n'wave' in __import__('sys').modules").results == [True, True]


def test_they_draw_numbers_of_their_own(warm):
    """What was prepared together is not alike."""
    ip, _ = warm
    drawn = ip("%%parallel procs=2 --once -q\nrandom.random()").results
    wait_for_spares(2)
    drawn += ip("%%parallel procs=2 --once -q\nrandom.random()").results
    assert len(set(drawn)) == 4


def test_they_know_folder_and_variables_of_the_run(warm, tmp_path):
    """What is set after they were made is there as well."""
    ip, before = warm
    (tmp_path / "below").mkdir()
    ip(f"os.chdir({str(tmp_path / 'below')!r}); os.environ['PARMAGIC_TEST'] = 'later'")
    run = ip("%%parallel procs=2 --once -q\nos.getpid(), os.getcwd(), os.environ['PARMAGIC_TEST']")
    assert {pid for pid, _, _ in run.results} == before
    assert {tuple(rest) for _, *rest in run.results} == {(str(tmp_path / "below"), "later")}


def test_none_is_made_while_something_is_measured(warm, monkeypatch):
    """A server that is told to hold makes none until it hears that the run is over; every run tells it so."""
    ip, before = warm
    hub.spare(4)
    hub.hold(starts=False)
    time.sleep(6 * server.QUIET)
    assert spares() == before
    hub.spare(None)
    wait_for_spares(4)
    heard, send = [], hub.Hub._send
    monkeypatch.setattr(hub.Hub, "_send", lambda self, message, *rest: heard.append(message[0]) or send(self, message, *rest))
    ip("%%parallel threads=1 --once -q\nheard_before = 1")
    assert (heard[0], heard[-1]) == ("hold", "spare")


def test_they_end_with_the_server(warm):
    """Nothing is left where the extension is unloaded."""
    _, before = warm
    found = [psutil.Process(pid) for pid in before]
    hub.close()
    _, alive = psutil.wait_procs(found, timeout=5)
    assert not alive
