"""``worker.item`` and ``worker.rng``: an item's number and random numbers are its own, whoever runs it, and in which order."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from arms import MODELS, spread
from numpy.random import SeedSequence, default_rng

import parmagic
from parmagic import current_worker
from parmagic.errors import LineError

DRAW = "worker.item, worker.rng.random(), worker.rng.integers(1000)"


def expected(seed, count):
    """Return what ``DRAW`` gives for each of so many items, by the definition in the documentation."""
    each = [default_rng(SeedSequence(seed, spawn_key=(item,))) for item in range(count)]
    return [(item, rng.random(), rng.integers(1000)) for item, rng in enumerate(each)]


@pytest.mark.parametrize(("model", "seed"), spread([*MODELS, "threads=5", "procs=3 --chunk 4", "serial threads=2 procs=2"], [0, 7, 2**70], 2**70))
def test_the_same_numbers_everywhere(ip, model, seed):
    """By model, count, chunk and start method nothing differs; each item's are those that the documentation defines."""
    run = ip(f"%%parallel {model} --seed {seed} -q --once for x in 'abcdefghij'\n{DRAW}")
    for timeline in run._study.timelines:
        assert timeline.results == expected(seed, 10)
    assert not any("seed" in note for note in run.notes)


@pytest.mark.parametrize("model", ["threads=3", "procs=3", "procs=3 --start-method fork"])
def test_by_rank_without_a_loop(ip, model):
    """In SPMD the rank takes the item's place, also where ranks run in turn: in the baseline, which gives the same."""
    run = ip(f"%%parallel {model} --seed 3 -q\n{DRAW}")
    assert run.results == expected(3, 3)
    assert run.summary["baseline"].tolist() == ["measured"]
    assert not any("disagree" in note for note in run.notes)


@pytest.mark.parametrize("model", MODELS)
def test_a_fresh_seed_is_told(ip, model):
    """Without --seed each run has its own, which the notes tell once: with it, the numbers come again, in the baseline as well."""
    one = ip(f"%%parallel {model} -q for x in range(6)\n{DRAW}")
    (note,) = [note for note in one.notes if "seed" in note]
    seed = int(re.search(r"--seed (\d+)", note)[1])
    assert one.results == expected(seed, 6)
    assert not any("disagree" in note for note in one.notes)
    other = ip(f"%%parallel {model} -q --once for x in range(6)\n{DRAW}")
    assert other.results != one.results


def test_who_draws_nothing_is_told_nothing(ip):
    """The note is about a generator that was asked for."""
    run = ip("%%parallel threads=2 procs=2 -q --once for x in range(6)\nworker.item")
    assert not any("seed" in note for note in run.notes)


@pytest.mark.parametrize("wrong", ["-1", "1.5", "x", "None", ""])
def test_no_seed(ip, wrong):
    """A seed is a whole number, 0 or more."""
    error = ip.fails(f"%%parallel threads=2 --seed {wrong} for x in range(3)\nx")
    assert "--seed" in str(error)


@pytest.mark.parametrize("wrong", [-1, 1.5, "x", True])
def test_no_seed_as_a_keyword(wrong):
    """As on the line."""
    with pytest.raises(LineError, match="`seed`"):
        parmagic.run(abs, [1], "threads=2", seed=wrong)


def test_as_a_keyword():
    """``parmagic.run`` takes the seed, and a function finds its worker by ``current_worker()``."""
    run = parmagic.run(lambda _: (current_worker().item, current_worker().rng.random()), range(4), "threads=2", seed=0, once=True)
    assert run.results == [each[:2] for each in expected(0, 4)]


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "procs=2 --start-method fork"])
def test_a_worker_in_a_process_of_the_bodys(ip, model):
    """What the body sends to a pool of its own knows the item that ran when it was sent."""
    ip("def ask(worker): return worker.item, worker.rank < 2, worker.model, worker.rng.random()")
    body = "import multiprocessing as mp\nwith mp.get_context('fork').Pool(1) as pool: found = pool.apply(ask, (worker,))\nfound"
    run = ip(f"%%parallel {model} --seed 5 -q --once for x in range(3)\n{body}")
    assert run.results == [(item, True, model.split("=")[0], draw) for item, draw, _ in expected(5, 3)]


def test_without_numpy():
    """Who has no NumPy is told what is missing."""
    script = (
        "import sys; sys.modules['numpy'] = None\nfrom parmagic.record.items import Worker\nfrom parmagic.model.plan import Plan\n"
        "worker = Worker(0, 1, 'serial', Plan(())); worker.watch([5], 0)\n"
        "try: worker.rng\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "worker.rng is a generator of NumPy's, which is not installed: pip install numpy\n"


def test_items_are_independent():
    """Neighbours' numbers do not go together: of 2,000 items, as little as of any two samples."""
    run = parmagic.run(lambda _: current_worker().rng.random(), range(2001), "threads=2", seed=11, once=True)
    draws = np.array(run.results)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.1  # 4.5 standard errors
    assert abs(draws.mean() - 0.5) < 0.03
