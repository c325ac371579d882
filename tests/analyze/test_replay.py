"""The replay on work whose end can be worked out on paper."""

from __future__ import annotations

import pytest

from parmagic.analyze.replay.simulator import replay
from parmagic.analyze.replay.work import Crew, Machine, Work

TWO = Machine(cores=2)
MANY = Machine(cores=64)


def near(seconds):
    """Return what is that many seconds, but for what comes of adding floats."""
    return pytest.approx(seconds, abs=1e-9)


def wall(work, crew, machine=MANY):
    """Return the wall time, of which all seconds of all workers are made up."""
    found = replay(work, crew, machine)
    assert sum(found.seconds.values()) == near(found.wall_s * crew.count)
    assert not found.stuck
    return found.wall_s


def steps(n, *program, **more):
    """Return so many items with the same steps."""
    return Work([0.0] * n, dict.fromkeys(range(n), program), **more)


@pytest.mark.parametrize("crew", [Crew(1), Crew(1, processes=True), Crew(1, gil=False)])
def test_one_worker_does_one_after_another(crew):
    """However it is done: the sum of all."""
    assert wall(Work([0.1, 0.2, 0.3]), crew) == near(0.6)
    assert wall(steps(3, ("running", 0.1), ("sleep", 0.2), ("native", 0.3)), crew) == near(1.8)


def test_threads_share_the_gil_and_nothing_else():
    """Python of two threads takes as long as that of one; native code, sleep and I/O go side by side."""
    assert wall(Work([0.1] * 10), Crew(2)) == near(1.0)
    for what in ("native", "sleep", "io_wait"):
        assert wall(steps(10, (what, 0.1)), Crew(2)) == near(0.5)
    assert wall(Work([0.1] * 10), Crew(2, gil=False)) == near(0.5)
    assert wall(Work([0.1] * 10), Crew(2, processes=True)) == near(0.5)


def test_two_threads_take_turns_of_a_switch_interval():
    """Each of two that compute waits for the GIL for half of the time, and both end together, but for one interval."""
    found = replay(Work([1.0, 1.0]), Crew(2), TWO)
    assert found.wall_s == near(2.0)
    assert found.seconds["running"] == near(2.0)
    assert found.seconds["gil_wait"] == pytest.approx(2.0, abs=0.006)
    assert min(found.ends_s) > 1.99


def test_who_comes_back_waits_for_an_interval():
    """A thread that sleeps for 1 ms beside one that computes has the GIL back 5 ms later, each time: the convoy."""
    alone, beside = (("running", 0.0), ("sleep", 1e-3)) * 100, (("running", 3.0),)
    found = replay(Work([0.0, 0.0], {0: alone, 1: beside}), Crew(2), TWO)
    assert found.ends_s[0] == pytest.approx(100 * 6e-3, rel=0.02)


def test_more_workers_than_cores():
    """Cores are shared out evenly: four that compute on two take twice their time, half of which they wait."""
    found = replay(steps(4, ("native", 1.0)), Crew(4), TWO)
    assert found.wall_s == pytest.approx(2.0, abs=0.01)
    assert found.seconds["native"] == near(4.0)
    assert found.seconds["cpu_wait"] == pytest.approx(4.0, abs=0.05)
    assert min(found.ends_s) > 1.98


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_lock_that_is_held_for_a_known_share(workers, share):
    """Amdahl: no item is done while another one is in the lock's part; the rest goes side by side."""
    n, item = 200, 0.01
    locked = steps(n, ("sleep", item * (1 - share)), ("take", "lock"), ("sleep", item * share), ("give", "lock"), permits={"lock": 1})
    bound = max(n * item * share, n * item / workers)
    assert wall(locked, Crew(workers, chunk=1)) == pytest.approx(bound, rel=0.02)


def test_a_semaphore_lets_so_many_in():
    """Six workers, two permits: a third of the speed that they could have."""
    work = steps(60, ("take", "pool"), ("sleep", 0.1), ("give", "pool"), permits={"pool": 2})
    assert wall(work, Crew(6, chunk=1)) == near(3.0)
    assert replay(work, Crew(6, chunk=1), MANY).seconds["lock_wait"] == pytest.approx(4 * 3.0, rel=0.05)


def test_a_queue_of_three():
    """One puts in 1 ms, one gets in 4: who puts fills the queue, and then waits 3 ms for each."""
    n = 100
    puts = (("sleep", 1e-3), ("take", "places"), ("give", "things")) * n
    gets = (("take", "things"), ("sleep", 4e-3), ("give", "places")) * n
    found = replay(Work([0.0, 0.0], {0: puts, 1: gets}, {"places": 3, "things": 0}), Crew(2), MANY)
    assert found.wall_s == near(1e-3 + n * 4e-3)
    assert found.seconds["lock_wait"] == near(1e-3 + found.ends_s[0] - n * 1e-3)
    assert found.ends_s[0] == near(1e-3 + (n - 3) * 4e-3)


def test_one_long_item():
    """Behind nine short ones it is what all wait for; first, it is not."""
    work = Work([0.1] * 9 + [0.9])
    processes = Crew(2, processes=True, chunk=1)
    assert wall(work, processes) == pytest.approx(0.4 + 0.9)
    assert wall(work, Crew(2, processes=True, chunk=1, order=[9, *range(9)])) == pytest.approx(0.9)


def test_chunks():
    """Ten at a time of twelve are ten for one and two for the other."""
    assert wall(Work([0.1] * 12), Crew(2, processes=True, chunk=10)) == near(1.0)
    assert wall(Work([0.1] * 12), Crew(2, processes=True)) == near(0.6)


def test_what_claims_cost():
    """Each claim costs; of trivial items so many are claimed at a time that it is little."""
    assert wall(Work([0.1] * 10), Crew(1, claim_s=0.01)) == near(1.1)
    assert wall(Work([1e-6] * 100_000), Crew(1, claim_s=100e-6)) == pytest.approx(0.1 * (1 + 100 / 2000), rel=0.05)


def test_processes_that_begin_one_after_another():
    """The first works while the second is not there yet."""
    found = replay(Work([0.1] * 10), Crew(2, processes=True, chunk=1, ready_s=(0.0, 0.4)), MANY)
    assert found.wall_s == near(0.7)
    assert found.seconds["startup"] == near(0.4)
    assert wall(Work([0.1] * 10), Crew(2, processes=True, boot_s=0.25)) == near(0.75)


def test_memory_that_two_cores_share():
    """While both compute, each is slower; alone, it is not."""
    slow = Machine(cores=2, slowdown=1.5)
    assert wall(steps(2, ("native", 1.0)), Crew(2), slow) == near(1.5)
    assert wall(Work([0.0, 0.0], {0: (("native", 1.0),), 1: (("native", 2.0),)}), Crew(2), slow) == near(1.5 + 1.0)


def test_who_waits_for_what_nobody_gives():
    """It is said, and does not go on for ever."""
    found = replay(steps(2, ("take", "lock"), ("sleep", 0.1), permits={"lock": 1}), Crew(2), MANY)
    assert found.stuck == (1,)
    assert found.wall_s == near(0.1)


def test_many_items_take_no_time():
    """A hundred thousand like items are replayed in a moment: their claims are what is counted."""
    found = replay(Work([20e-6] * 100_000), Crew(4), MANY)
    assert found.wall_s == pytest.approx(2.0, rel=0.01)
