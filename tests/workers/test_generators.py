"""Random generators that all processes get in one state: each is named, wherever the body reaches it from."""

from __future__ import annotations

import pytest

DEFINED = """
import functools, random
import numpy as np
rng, old, plain, real = np.random.default_rng(0), np.random.RandomState(0), random.Random(0), random.SystemRandom()
def draw(): return rng.random()
def deeper(): return draw()
def default(source=rng): return source.random()
def closes():
    mine = np.random.default_rng(1)
    return lambda: mine.random()
hidden, bound, part = closes(), rng.random, functools.partial(draw)
class Model:
    noise = plain
    def __init__(self): self.source = old
    def step(self): return self.source.rand()
model, pair = Model(), {"k": [rng]}
def innocent(): return np.random.random() + random.random()
"""


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("rng.random()", ["rng"]),
        ("draw()", ["rng (by way of draw)"]),
        ("deeper()", ["rng (by way of deeper)"]),
        ("default()", ["rng (by way of default)"]),
        ("hidden()", ["a random generator (by way of hidden)"]),
        ("bound()", ["rng (by way of bound)"]),
        ("part()", ["rng (by way of part)"]),
        ("model.step()", ["old (by way of model)", "plain (by way of model)"]),
        ("pair['k'][0].random()", ["rng (by way of pair)"]),
        ("draw() + rng.random() + plain.random()", ["plain", "rng"]),
        ("innocent()", []),
    ],
)
def test_what_draws_the_same_numbers_is_named(ip, expression, told):
    """By its name where the body reads it, else with the name that leads to it; what is seeded anew is not."""
    ip(DEFINED)
    ip(f"%parallel procs=2 --chunk 1 -q --once -o there {expression} for n in range(4)")
    run = ip.space["there"]
    notes = [note for note in run.notes if "draw the same numbers" in note]
    assert [note.partition(": shipped")[0] for note in notes] == ([", ".join(told)] if told else [])
    if told:
        assert len(set(run.results)) < 4 or len({*run.items["rank"]}) == 1  # and so they do
    else:
        assert len(set(run.results)) == 4


def test_threads_share_one(ip):
    """In threads one generator is drawn from by all: nothing to be told."""
    ip(DEFINED)
    ip("%parallel threads=2 --chunk 1 -q --once -o there draw() for n in range(4)")
    run = ip.space["there"]
    assert len(set(run.results)) == 4
    assert not [note for note in run.notes if "same numbers" in note]
