"""What can come next in a magic line: models, options, their values, ``for``, ``in``, names of the notebook.

The line is read by the reader of :mod:`parmagic.parse.line`, and options come from its table: what is offered is what it takes.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterable, Iterator
from keyword import kwlist

from parmagic.errors import LineError
from parmagic.model import traits
from parmagic.parse.clause import words_of
from parmagic.parse.line import FOR, Front
from parmagic.parse.options import CHOICES, FLAGS, VALUES
from parmagic.system.cpus import available_cpus

__all__ = ["completions"]

_STRING = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_OPERATORS = frozenset(kwlist) - {"None", "True", "False"}
"""Words that something has to follow."""


def completions(
    before: str, after: str, *, cell: bool, names: Callable[[], Iterable[str]], expand: Callable[[str], str] = str
) -> tuple[int, list[str]]:
    """Return what can stand at a place of the line, as ``(start, words)``: each word replaces ``before[start:]``, which it begins with.

    ``before`` and ``after`` are what follows ``%%parallel`` (``cell``) or ``%parallel``, up to the place and behind it; ``names`` are
    the notebook's, ``expand`` is :func:`~parmagic.parse.line.parse`'s. No words where nothing can be said, as in a line that is
    refused already. Raises nothing, whatever the line.
    """
    start = _begin(before, lambda letter: not letter.isspace())
    front, pending = _front(before[:start], cell, expand)
    if front is None:
        return start, []
    if pending:
        return _fitting(before, start, CHOICES.get(pending, ()))
    if front.position < start:
        return _of_clause(before, front.position, names)
    if front.after_dashes:
        return _of_clause(before, start, names)
    word = before[start:].partition("=")[0]
    if word in front.models and word != before[start:]:
        return _counts(before, start, front, expand)
    whole = _read(f"{before[:start]} {after.partition(' ')[2]}", cell, expand) or front
    return _of_front(before, start, whole, names)


def _front(text: str, cell: bool, expand: Callable[[str], str]) -> tuple[Front | None, str]:
    """Read models and options, and return the option (by its field) that waits for its value; None where they are refused."""
    if front := _read(text, cell, expand):
        return front, ""
    last = (text.split() or [""])[-1]
    field = VALUES.get(last, "")
    front = _read(text.rstrip().removesuffix(last), cell, expand) if field else None
    if front is None or field in front.options:
        return None, ""
    return front, field


def _read(text: str, cell: bool, expand: Callable[[str], str]) -> Front | None:
    front = Front(text, cell, expand, available_cpus)
    try:
        front.read()
    except LineError:
        return None
    return front


def _of_front(before: str, start: int, whole: Front, names: Callable[[], Iterable[str]]) -> tuple[int, list[str]]:
    """Offer models and options that the ``whole`` line has not yet, their values, and what begins its rest."""
    fragment = before[start:]
    word, equals, _ = fragment.partition("=")
    if equals and word in VALUES:
        return _fitting(before, start + len(word) + 1, [] if VALUES[word] in whole.options else CHOICES.get(VALUES[word], ()))
    options = [option for option, field in {**FLAGS, **VALUES}.items() if field not in whole.options]
    offered = [*_models(fragment, whole), *options]
    if not whole.cell:
        place, known = _of_clause(before, start, names)
        return (start, _starting(fragment, [*offered, *known])) if place == start else (place, known)
    if not FOR.match(whole.line, whole.position):
        offered.append("for")
    return _fitting(before, start, offered)


def _models(fragment: str, whole: Front) -> Iterator[str]:
    """Yield the models with what follows them; by another word for one only where that is what was begun."""
    there = {arm.model for arm in whole.arms if arm.model.one_at_a_time}
    for model in traits.known():
        words = [word for word in (model.name, *model.also) if word.startswith(fragment)]
        if words and model not in there:
            yield words[0] if model.one_at_a_time else f"{words[0]}="


def _counts(before: str, start: int, front: Front, expand: Callable[[str], str]) -> tuple[int, list[str]]:
    """Offer ``auto``, where there is no such arm yet."""
    place = max(before.rfind("=", start), before.rfind(",", start)) + 1
    return _fitting(before, place, ["auto"] if _read(f"{before[:place]}auto", front.cell, expand) else [])


def _of_clause(before: str, begin: int, names: Callable[[], Iterable[str]]) -> tuple[int, list[str]]:
    """Offer ``for``, ``in`` or ``if`` behind what is complete, and names where one can begin, but for targets, which are new."""
    start = _begin(before, _in_a_name)
    text = before[begin:start]
    quotes = _STRING.sub("", text)
    if text.endswith((".", "--")) or "'" in quotes or '"' in quotes or "#" in quotes:
        return start, []
    complete, words = _is_complete(text), words_of(text)
    if "for" not in words:
        return _fitting(before, start, ["for"] if complete else _names(before[start:], names))
    if "in" not in words[len(words) - words[::-1].index("for") :]:
        return _fitting(before, start, ["in"] if complete else [])
    return _fitting(before, start, ["if", "for"] if complete else _names(before[start:], names))


def _begin(before: str, belongs: Callable[[str], bool]) -> int:
    """Return where the letters begin that belong together at the end of a text."""
    start = len(before)
    while start and belongs(before[start - 1]):
        start -= 1
    return start


def _in_a_name(letter: str) -> bool:
    return letter == "_" or letter.isalnum()


def _is_complete(text: str) -> bool:
    """Tell whether a text ends with something complete and a space behind it."""
    said = text.rstrip()
    if said == text or not said:
        return False
    word = said[_begin(said, _in_a_name) :]
    return word not in _OPERATORS if word else said[-1] in ")]}'\""


def _names(fragment: str, names: Callable[[], Iterable[str]]) -> list[str]:
    """Return the notebook's names, private ones only where one was begun; Python's own behind them, where anything was."""
    own = sorted(name for name in names() if name.isidentifier() and (fragment.startswith("_") or not name.startswith("_")))
    return list(dict.fromkeys([*own, *(name for name in dir(builtins) if fragment and not name.startswith("_"))]))


def _fitting(before: str, start: int, words: Iterable[str]) -> tuple[int, list[str]]:
    return start, _starting(before[start:], words)


def _starting(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]
