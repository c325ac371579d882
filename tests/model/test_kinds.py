"""The table of states and kinds, and that nothing else lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import parmagic
from parmagic.analyze import measured, tables
from parmagic.model.kinds import INFERRED, KIND, KINDS, LOCKS, MEASURED, OWN, REST, SAMPLED, SEEN, SPANS, STATES, WAIT_KINDS, WORKER_STATES
from parmagic.model.waits import WAIT_LAYOUT, Wait
from parmagic.record import sampler
from parmagic.render.figures import LOOKS

HOUSE = Path(parmagic.__file__).parent
NAMES = {*WORKER_STATES, *KIND}
CHOICES = {
    "model/kinds.py": "the table",
    "record/sampler.py": "which system call each of the sampled kinds is",
    "analyze/tables.py": "which states have a column in the table of arms",
    "analyze/verdict.py": "which states are worth a sentence",
    "analyze/bottlenecks.py": "what who is slow does meanwhile, in words",
    "analyze/factors.py": "which states take of an arm's efficiency, and in which order",
    "analyze/replay/work.py": "which steps of an item need a core",
    "analyze/locks.py": "what to do about a kind of lock",
}
"""Where several are named side by side, and why that follows from no row."""


def test_every_row_is_whole():
    """No two states share a name, words, a colour or a layer; each kind counts as a state that hooks measure."""
    for field in ("name", "words", "color", "glyph", "ascii", "layer"):
        assert len({getattr(state, field) for state in STATES}) == len(STATES), field
    assert sorted(state.layer for state in STATES) == list(range(len(STATES)))
    assert all(re.fullmatch("#[0-9a-f]{6}([0-9a-f]{2})?", state.color) for state in STATES)
    assert len(KIND) == len(KINDS)
    assert {kind.state for kind in KINDS} <= set(MEASURED)


def test_every_state_is_in_the_sets_of_its_kind():
    """Each state is measured, noted by the worker, or what is left; what is inferred elsewhere is measured, and what samples tell is inferred.

    A worker's idle time is what is left; a pool's within a body is measured.
    """
    assert {*SPANS, *MEASURED, *REST} == {*WORKER_STATES}
    assert {*MEASURED} & {*SPANS, *REST} == {"idle"}
    assert not {*SPANS} & {*REST}
    assert set(SAMPLED.values()) < INFERRED < set(MEASURED)
    assert set(OWN) < set(MEASURED)
    assert set(LOOKS) == set(WORKER_STATES)
    assert next(iter(LOOKS)) == "running"  # at the bottom of the stack
    assert [f"{state}_s" for state in WORKER_STATES] == tables.STATE_COLUMNS


def test_every_kind_is_in_the_sets_of_its_kind():
    """Hooks or samples tell a kind, or it is a lock that gets its name later; a kind's place is that among what hooks tell."""
    assert [kind.name for kind in KINDS][: len(WAIT_KINDS)] == list(WAIT_KINDS)
    assert set(KIND) - set(WAIT_KINDS) - set(SAMPLED) == {"object", "interpreter", "helpers"} < LOCKS
    assert {kind.state for kind in KINDS if kind.lock} == {"lock_wait"}
    assert {kind.name for kind in KINDS if kind.object == "address"} == LOCKS
    assert [SEEN[place] for place in (sampler.RUNNING, sampler.GIL, sampler.LOCK, sampler.SLEEP, sampler.IO)] == list(SEEN)


def test_an_event_is_read_as_it_is_written():
    """NumPy and struct read the same fields at the same places."""
    wait = Wait(1 << 40, 1 << 41, (1 << 64) - 1, len(WAIT_KINDS) - 1, -1, 7, 1, 2)
    packed = WAIT_LAYOUT.pack(*wait)
    assert Wait._make(WAIT_LAYOUT.unpack(packed)) == wait
    assert np.frombuffer(packed, measured.EVENT)[0].tolist() == wait


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_other_list_of_kinds(path):
    """No tuple, list, set or dict outside of the table names several states or kinds, but for choices that have their reasons."""
    found = [names for node in ast.walk(ast.parse(path.read_text())) if len(names := _names_in(node)) > 1]
    assert not found or str(path.relative_to(HOUSE)) in CHOICES


def _names_in(node: ast.AST) -> set[str]:
    parts = node.keys if isinstance(node, ast.Dict) else node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else []
    texts = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return {text.removesuffix("_s") for text in texts if text.removesuffix("_s") in NAMES}


def test_every_choice_is_still_made():
    """What is listed as an exception is one."""
    for name in CHOICES:
        assert any(len(_names_in(node)) > 1 for node in ast.walk(ast.parse((HOUSE / name).read_text()))) or name == "model/kinds.py"


def test_the_page_lists_none():
    """The script gets names, words and colours of states from the run's data."""
    script = (HOUSE / "render" / "page.js").read_text()
    assert not [state.name for state in STATES if f'"{state.name}"' in script or state.color in script or f'"{state.words}"' in script]


def test_the_readme_tells_of_every_state():
    """Each column has its row in the tables of how figures are obtained."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert not [state.name for state in STATES if f"`{state.name}`" not in readme]
