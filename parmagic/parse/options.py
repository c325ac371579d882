"""Words of the magic line: hints on models, and the options of a run with their checks.

Options are checked alike for the line and for ``parmagic.run(...)``.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from parmagic.errors import LineError
from parmagic.model import traits

__all__ = [
    "COUNTS",
    "FLAGS",
    "VALUES",
    "check",
    "check_keywords",
    "either",
    "expected",
    "model_hint",
    "unknown_option",
]

COUNTS = re.compile(r"[0-9]+(?:[-,][0-9]+)*")
_COUNT = re.compile(r"0*[1-9][0-9]{0,8}")  # one that a hint can have: Python refuses to read a number of thousands of digits

# Option of the line -> field of the Plan.
FLAGS = {"-q": "quiet", "--once": "once", "--keep-going": "keep_going"}
VALUES = {
    "-o": "name",
    "--trace": "trace",
    "--timeout": "timeout",
    "--item-timeout": "item_timeout",
    "--retry": "retry",
    "--chunk": "chunk",
    "--start-method": "start_method",
    "--seed": "seed",
}
CHOICES = {"trace": ("auto", "full", "off"), "start_method": ("fork", "forkserver", "spawn")}
# What people write for a number of workers: make -j, joblib's n_jobs, xdist's -n ...
WORKER_WORDS = frozenset(
    {"j", "n", "w", "jobs", "n_jobs", "njobs", "num_workers", "workers", "n_workers", "max_workers"}
    | {"nprocs", "nthreads", "cores", "n_cores", "cpus", "n_cpus", "count"}
)


def check(field: str, value: Any, shown: str) -> Any:
    """Return the value of an option, as the Plan has it.

    ``value`` is text from the line or any object from Python; ``shown`` is how
    the user spells the option. Raises ValueError that says what was expected.
    """
    reader, wanted = _CHECKS[field]
    try:
        return reader(value)
    except (ValueError, TypeError, OverflowError):
        near = suggest(str(value), CHOICES.get(field, ()))
        text = value if isinstance(value, str) else repr(value)
        raise ValueError(f"`{text}` does not suit `{shown}`: expected {wanted}{near}") from None


def check_keywords(options: Mapping[str, object]) -> dict[str, Any]:
    """Options given as keyword arguments; None stands for the default. Raises LineError."""
    checked: dict[str, Any] = {}
    for field, value in options.items():
        if field not in _CHECKS:
            known = ", ".join(f"`{name}`" for name in _CHECKS)
            raise LineError(f"there is no option `{field}`: expected {known}{suggest(field, _CHECKS)}")
        if value is None and field not in FLAGS.values():
            continue
        try:
            checked[field] = check(field, value, field)
        except ValueError as error:
            raise LineError(str(error)) from None
    return checked


def expected(field: str) -> str:
    """Say what an option's value must be."""
    return _CHECKS[field][1]


def suggest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """``; did you mean ...?`` when something known is near, else nothing."""
    near = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def unknown_option(option: str, text: str, following: str) -> str:
    """Say what is wrong with an option that does not exist.

    ``text`` is what stands after its ``=``, ``following`` the next word.
    """
    name = option.lstrip("-").replace("-", "_")
    letters = name.rstrip("0123456789")
    if letters in WORKER_WORDS:
        count = name[len(letters) :] or text or following
        count = count if _COUNT.fullmatch(count) else "auto"
        return f"there is no option `{option}`{_did_you_mean(count)}"
    if name in {"h", "help", "?"}:
        return f"there is no option `{option}`: run `%parallel?` to see all of them with examples"
    if get_close_matches(name, traits.by_word(), n=1, cutoff=0.8):
        return f"there is no option `{option}`{model_hint(f'{name}={text or following}')}"
    known = {**FLAGS, **VALUES}
    names = ", ".join(f"`{each}`" for each in known)
    return f"there is no option `{option}`: expected {names}{suggest(option.replace('_', '-'), known)}"


def model_hint(word: str) -> str:
    """Return ``; did you mean ...?`` for a word that stands where a model could, else nothing."""
    name, equals, counts = word.partition("=")
    plain = name.strip("-").lower().replace("-", "_")
    if COUNTS.fullmatch(word):
        return _did_you_mean(word)
    counts = equals and (counts if COUNTS.fullmatch(counts) and int(counts[0]) else "auto")
    if plain in WORKER_WORDS:
        return _did_you_mean(counts)
    if meant := traits.by_meaning().get(plain):
        return f"; did you mean `{meant.with_count(counts)}`?"
    known = traits.by_word()
    near = get_close_matches(plain, known, n=1, cutoff=0.7)
    return f"; did you mean `{known[near[0]].with_count(counts, near[0])}`?" if near else ""


def _did_you_mean(counts: str) -> str:
    """Suggest all models that take a count."""
    return f"; did you mean {either([model.with_count(counts) for model in traits.known() if not model.one_at_a_time])}?"


def either(words: Sequence[str]) -> str:
    """Return ```a`, `b` or `c```."""
    quoted = [f"`{word}`" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier() or keyword.iskeyword(value):
        raise ValueError(value)
    return value


def _seconds(value: Any) -> float:
    seconds = float(value)
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(value)
    return seconds


def _whole_from(least: int) -> Callable[[Any], int]:
    def whole(value: Any) -> int:
        number = int(value) if isinstance(value, str) else operator.index(value)
        if isinstance(value, bool) or number < least:
            raise ValueError(value)
        return number

    return whole


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _one_of(field: str) -> Callable[[Any], Any]:
    def choice(value: Any) -> Any:
        if value not in CHOICES[field]:
            raise ValueError(value)
        return value

    return choice


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": (_name, "a name that Python allows for a variable"),
    "quiet": (_switch, "True or False"),
    "once": (_switch, "True or False"),
    "trace": (_one_of("trace"), "`auto`, `full` or `off`"),
    "timeout": (_seconds, "seconds, as a number above 0"),
    "item_timeout": (_seconds, "seconds, as a number above 0"),
    "retry": (_whole_from(0), "how many further tries a failed item gets, 0 or more"),
    "keep_going": (_switch, "True or False"),
    "chunk": (_whole_from(1), "a number of items, 1 or more"),
    "start_method": (_one_of("start_method"), "`fork`, `forkserver` or `spawn`"),
    "seed": (_whole_from(0), "a whole number, 0 or more"),
}
