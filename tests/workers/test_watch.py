"""The notebook's end of the sampler."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parmagic.model.recording import WorkerId
from parmagic.record import sampler
from parmagic.workers.processes import hub
from parmagic.workers.processes.watch import Watch

pytestmark = pytest.mark.skipif(not sampler.supported(), reason="nothing is sampled here")


@pytest.fixture
def watch():
    """Return a watch of its own, whose sampler is there, and end that."""
    one = Watch()
    one.wait_until_ready()
    yield one
    one._drop()


def test_arms_at_the_same_time_have_samples_of_their_own(watch):
    """Runs in two threads share the sampler: each takes what it asked for, and neither waits for the other's answer."""
    together = threading.Barrier(2)

    def runs(rank: int) -> list[set[int]]:
        found = []
        for _ in range(100):
            arm = watch.arm()
            watch.add(arm, WorkerId(rank, os.getpid(), threading.get_native_id(), 1))
            together.wait(30)
            found.append(set(watch.take(arm)))
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(runs, range(2))) == [[{0}] * 100, [{1}] * 100]


def test_an_arm_that_nobody_watched_has_no_samples(watch):
    """Also where the sampler is a new one, which knows nothing of the arm."""
    assert watch.take(watch.arm()) == {}
    arm = watch.arm()
    watch.add(arm, WorkerId(0, os.getpid(), threading.get_native_id(), 1))
    watch._drop()
    assert watch.take(arm) == {}
    assert hub.get().alive()
