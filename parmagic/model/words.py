"""Text made of the user's objects, whose own code may raise, exit, lie, or never return.

Plain values, and exceptions that hold nothing else, are read at once. All others are
asked in a helper thread, which gets 0.1 s for each of them: then an exception is raised
in it, and where not even that ends it (it is blocked in C, or swallows everything), it
is left behind, and the text says so. What only looks at objects runs no code of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from types import NotImplementedType, TracebackType
from typing import Any, Self

from parmagic.model.asking import ask
from parmagic.model.classes import definer, module_of, type_name

MOST = 10_000
"""Characters of what it says that are kept."""

# ---------------------------------------------------------------------------------------------------------------------------------
# looking: no code of the user's runs


def _of_exceptions(name: str) -> Callable[[BaseException], Any]:
    get: Callable[[BaseException], Any] = vars(BaseException)[name].__get__
    return get


cause_of, context_of, traceback_of = map(_of_exceptions, ("__cause__", "__context__", "__traceback__"))
args_of, _dict_of = map(_of_exceptions, ("args", "__dict__"))
_exceptions_of: Callable[[BaseException], tuple[BaseException, ...]] = vars(BaseExceptionGroup)["exceptions"].__get__


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """Return what a group of exceptions holds; nothing for any other."""
    return _exceptions_of(error) if issubclass(type(error), BaseExceptionGroup) else ()


def linked(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it hangs together with, by causes, contexts and groups; each once, the nearest first."""
    found, seen = [error], {id(error)}
    for each in found:
        yield each
        for other in (cause_of(each), context_of(each), *members_of(each)):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                found.append(other)


def with_traceback(error: BaseException, trace: TracebackType | None) -> BaseException:
    """Return the exception, with that traceback."""
    return BaseException.with_traceback(error, trace)


class Origin(str):
    """A note on where an exception was raised; ``at`` is when that was noted (seconds on our clock), which the next run asks for.

    For all others it is a text, and is pickled as one.
    """

    __slots__ = ("at",)
    at: float

    def __new__(cls, text: str, at: float) -> Self:
        """Make a note of that time."""
        made = super().__new__(cls, text)
        made.at = at
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Be a text where an exception is kept or sent elsewhere."""
        return str, (str(self),)


def as_origin(value: object) -> tuple[Any, ...] | NotImplementedType:
    """Have a pickler between our own processes keep the time of a note; NotImplemented for anything else."""
    return (Origin, (str(value), value.at)) if type(value) is Origin else NotImplemented


def add_note(error: BaseException, note: str) -> bool:
    """Add a note to an exception that has it not yet; tell whether it can be read there."""
    notes = _notes_to_write(error)
    if notes is not None and not any(type(each) is str and each == note for each in notes):
        notes.append(note)
    return notes is not None


def add_origin(error: BaseException, text: str, since: float) -> bool:
    """Note on an exception where a run that began at ``since`` raised it; tell whether it can be read there.

    What earlier runs noted is of no use any more. What was noted since is by runs within this one, and stays.
    """
    notes = _notes_to_write(error)
    if notes is not None:
        notes[:] = [each for each in notes if type(each) is not Origin or each.at >= since]
        notes.append(Origin(text, perf_counter()))
    return notes is not None


def _notes_to_write(error: BaseException) -> list[Any] | None:
    """Return the list of an exception's notes; None where what is in it could not be read by all."""
    reader = definer(type(error), "__getattribute__")
    if definer(type(error), "__notes__") or reader is None or module_of(reader) != "builtins":
        return None
    notes = dict.setdefault(_dict_of(error), "__notes__", [])
    return notes if type(notes) is list else None


def notes_of(error: BaseException) -> list[str]:
    """Return the notes of an exception that are texts."""
    notes = dict.get(_dict_of(error), "__notes__")
    return [each for each in notes if type(each) is str or type(each) is Origin] if type(notes) is list else []


def show_as(error: BaseException, lines: Callable[[], list[str]]) -> None:
    """Have IPython show an exception by these lines."""
    dict.__setitem__(_dict_of(error), "_render_traceback_", lines)


# ---------------------------------------------------------------------------------------------------------------------------------
# describing


def describe(error: BaseException, limit: int = 80) -> str:
    """Return ``Type: message`` on one line, cut to ``limit`` characters."""
    return describe_all([error], limit)[0]


def describe_all(errors: Sequence[BaseException], limit: int = 80) -> list[str]:
    """Return ``Type: message`` of each, on one line, cut to ``limit`` characters."""
    return [_one_line(f"{type_name(error)}: {text}", limit).removesuffix(":") for error, text in zip(errors, messages(errors), strict=True)]


def message(error: BaseException) -> str:
    """Return what an exception says; where it cannot be read, why."""
    return messages([error])[0]


def is_readable(error: BaseException) -> bool:
    """Tell whether an exception's message can be read."""
    return _says_plainly(error, {}) or isinstance(ask([_Reading(str, error)])[0], str)


def messages(errors: Sequence[BaseException]) -> list[str]:
    """Return what each exception says; where it cannot be read, why."""
    known: dict[int, type | None] = {}  # by whom each type's __str__ is
    return _read(errors, str, lambda error: _says_plainly(error, known), "(no message: its __str__ {why})")


def shown(value: object, limit: int = 80) -> str:
    """Return a value's repr on one line, cut to ``limit`` characters; where it has none, its type and why."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        value = value[: 2 * limit]  # type: ignore[index]
    (text,) = _read([value], repr, is_plain, f"a {type_name(value)} (its repr {{why}})")
    return _one_line(text, limit)


def _one_line(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _read(values: Sequence[Any], make: Callable[[Any], str], is_plain: Callable[[Any], bool], otherwise: str) -> list[str]:
    """Make a text of every value."""
    texts: dict[int, Any] = {place: make(value)[:MOST] for place, value in enumerate(values) if is_plain(value)}
    asked = [place for place in range(len(values)) if place not in texts]
    for place, answer in zip(asked, ask([_Reading(make, values[place]) for place in asked]), strict=True):
        texts[place] = answer if isinstance(answer, str) else otherwise.format(why=answer.why)
    return [texts[place] for place in range(len(values))]


class _Reading:
    """The text of one value, to be asked for."""

    def __init__(self, make: Callable[[Any], str], value: object) -> None:
        self._make = make
        self._value = value

    def __call__(self) -> str:
        return str.__str__(self._make(self._value))[:MOST]


def is_plain(value: object) -> bool:
    """Tell whether a value's text is made by Python alone, and at once; so is a comparison of two such values."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return len(value) <= MOST  # type: ignore[arg-type]
    return value is None or kind is bool or kind is float or (kind is int and -(2**63) < value < 2**63)  # type: ignore[operator]


def _says_plainly(error: BaseException, known: dict[int, type | None]) -> bool:
    """Tell whether an exception's message is made by Python alone, and at once."""
    kind = id(type(error))
    if kind not in known:
        known[kind] = definer(type(error), "__str__")
    owner, fields = known[kind], args_of(error)
    if owner is OSError:
        fields += tuple(vars(OSError)[name].__get__(error) for name in ("errno", "strerror", "filename", "filename2"))
    ours = owner is BaseException or owner is KeyError or owner is OSError
    return ours and len(fields) < 10 and all(map(is_plain, fields))  # noqa: PLR2004  (a few)
