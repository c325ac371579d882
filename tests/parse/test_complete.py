"""What the tab key offers in a magic line: what the grammar takes there, and nothing that it refuses."""

from __future__ import annotations

import random

import pytest
from fuzz import Lines

from parmagic.errors import LineError
from parmagic.parse.complete import completions
from parmagic.parse.line import parse
from parmagic.parse.options import FLAGS, VALUES

NAMES = ["paths", "pairs", "squares", "_private", "not a name"]
OPTIONS = [*FLAGS, *VALUES]
NEEDED = {"-o": "kept", "--trace": "off", "--timeout": "3", "--item-timeout": "3", "--retry": "1", "--chunk": "2", "--start-method": "spawn", "--seed": "0"}


def offered(line, *, cell=True):
    """Return what is offered at the place of the bar, as the whole words that there are then."""
    before, _, after = line.partition("|")
    start, words = completions(before, after, cell=cell, names=lambda: NAMES, expand=lambda word: word.replace("$n", "3"))
    assert all(word.startswith(before[start:]) for word in words)
    return words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("|", ["serial", "threads=", "procs=", *OPTIONS, "for"]),
        ("th|", ["threads="]),
        ("p|", ["procs="]),
        ("proce|", ["processes="]),
        ("serial s|", []),
        ("serial |", ["threads=", "procs=", *OPTIONS, "for"]),
        ("threads=|", ["auto"]),
        ("threads=auto threads=|", []),
        ("threads=7777,a|", ["auto"]),
        ("serial=|", []),
        ("-|", OPTIONS),
        ("--t|", ["--trace", "--timeout"]),
        ("--once --o|", []),
        ("--o| --once for x in xs", []),
        ("--onc|e for x in xs", ["--once"]),
        ("--trace |", ["auto", "full", "off"]),
        ("--trace=|", ["auto", "full", "off"]),
        ("--trace o|", ["off"]),
        ("--trace=off --trace=|", []),
        ("--trace off --trace |", []),
        ("--start-method | --once", ["fork", "forkserver", "spawn"]),
        ("--timeout |", []),
        ("--timeout $n --on|", ["--once"]),
        ("threads=$n --on|", ["--once"]),
        ("threads=$missing --on|", []),
        ("thread=4 --on|", []),
        ("f|", ["for"]),
        ("| for x in xs", ["serial", "threads=", "procs=", *OPTIONS]),
        ("threads=2 for |", []),
        ("for pa|", []),
        ("for x |", ["in"]),
        ("for x, |", []),
        ("for (x, y) i|", ["in"]),
        ("for x in |", ["pairs", "paths", "squares"]),
        ("for x in pa|", ["pairs", "paths"]),
        ("for x in _|", ["_private"]),
        ("for x in ra|", ["range"]),
        ("for x in range(len(pa|", ["pairs", "paths"]),
        ("for x in 2 * pa|", ["pairs", "paths"]),
        ("for x in paths |", ["if", "for"]),
        ("for x in paths if not |", ["pairs", "paths", "squares"]),
        ("for x in paths for y |", ["in"]),
        ("for x in paths for y in sq|", ["squares"]),
        ("for x in paths.|", []),
        ("for x in 'pa|", []),
        ("for x in ['a b', \"pa|", []),
        ("for x in ['a', pa|", ["pairs", "paths"]),
        ("for x in paths  # pa|", []),
        ("for x in paths --o|", []),
        ("for x in paths --|", []),
        ("async for x in pa|", []),
    ],
)
def test_offered_in_a_cell(line, words):
    """Models, options that are not there yet, their values, and the clause, by what stands before the place and behind it."""
    assert offered(line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("|", ["serial", "threads=", "procs=", *OPTIONS, "pairs", "paths", "squares"]),
        ("procs=2 sq|", ["squares"]),
        ("procs=2 squares[pa|", ["pairs", "paths"]),
        ("procs=2 squares[n] f|", ["for"]),
        ("-- -pa|", ["pairs", "paths"]),
        ("-- --on|", []),
        ("n * n for n |", ["in"]),
        ("n * n for n in pa|", ["pairs", "paths"]),
    ],
)
def test_offered_in_a_line(line, words):
    """Before the ``for`` there is an expression."""
    assert offered(line, cell=False) == words


@pytest.mark.parametrize("front", ["", "threads=2 ", "serial ", "--once -q ", "procs=1,2 --trace off ", "-o kept --seed 3 --keep-going "])
def test_what_is_offered_can_be_read(front):
    """Each word that begins or ends there makes a line that the grammar takes."""
    for word in offered(f"{front}|"):
        rest = f"{word} {NEEDED[word]}" if word in NEEDED else f"{word}7" if word.endswith("=") else word
        assert parse(f"{front}{'' if word == 'for' else rest} for x in xs", cell=True).arms
    for option in ("--trace", "--start-method"):
        for value in offered(f"{front}{option} |"):
            assert parse(f"{front}{option} {value}", cell=True).arms


def test_odd_lines():
    """Whatever stands there, nothing is raised; what cannot be read gets no options."""
    lines = Lines(random.Random(5))
    for _ in range(1500):
        line = lines.line()
        place = lines.rng.randrange(len(line) + 1)
        for cell in (True, False):
            start, words = completions(line[:place], line[place:], cell=cell, names=lambda: NAMES)
            assert all(word.startswith(line[start:place]) for word in words)
            if set(words) & set(OPTIONS):
                _read_up_to(line[:start], cell=cell)
    assert completions("--trace " * 3000, "", cell=True, names=lambda: NAMES)[1] == []
    assert completions("for x in " + "y" * 300_000 + " " * 300_000, "", cell=True, names=lambda: NAMES)[1] == ["if", "for"]


def _read_up_to(front, *, cell):
    """Read models and options, with the rest of a line behind them."""
    try:
        parse(f"{front} {'' if cell else 'x '}for x in xs", cell=cell)
    except LineError as error:
        raise AssertionError(f"options are offered behind {front!r}, which is refused") from error
