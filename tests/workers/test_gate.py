"""The gate that threads stand at until all of them are there."""

from __future__ import annotations

import threading

import pytest

from parmagic.errors import Ended
from parmagic.workers.gate import Gate


def through(gate, rank, passed):
    """Go through the gate, and say how that went."""
    try:
        gate.wait(rank)
        passed.append(rank)
    except Ended:
        passed.append(Ended)


def at_the_gate(gate, ranks):
    """Return threads of these ranks, on their way to the gate, and what they say."""
    passed = []
    threads = [threading.Thread(target=through, args=(gate, rank, passed)) for rank in ranks]
    for thread in threads:
        thread.start()
    return threads, passed


def test_nobody_passes_before_the_last_is_there():
    """It opens for the last one, once and for all."""
    gate = Gate(8)
    threads, passed = at_the_gate(gate, range(7))
    threads[0].join(0.05)
    assert gate.opened is None
    assert not passed
    gate.wait(7)
    assert gate.opened is not None
    for thread in threads:
        thread.join()
    assert sorted(passed) == list(range(7))


def test_where_the_run_is_over():
    """Who waits, and who comes later, is told so; afterwards as before."""
    gate = Gate(3)
    (thread,), passed = at_the_gate(gate, [0])
    gate.abort()
    gate.abort()
    thread.join()
    assert passed == [Ended]
    for rank in (1, 2):
        with pytest.raises(Ended):
            gate.wait(rank)


def test_where_it_is_open_its_end_is_nothing():
    """A run that ends behind the gate ends its workers by other means."""
    gate = Gate(2)
    (thread,), passed = at_the_gate(gate, [0])
    gate.wait(1)
    gate.abort()
    thread.join()
    assert passed == [0]
