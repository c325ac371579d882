"""Text made of the user's objects, whose own code may raise, exit, lie, or never return.

Plain values, and exceptions that hold nothing else, are read at once. All others are
asked in a helper thread, which gets 0.1 s for each of them: then an exception is raised
in it, and where not even that ends it (it is blocked in C, or swallows everything), it
is left behind, and the text says so. What only looks at objects runs no code of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter
from types import GetSetDescriptorType, NotImplementedType, TracebackType
from typing import Any, Self

from parmagic.system.interrupts import Latch, calm, raise_in
from parmagic.system.real import Lock, start_new_thread

SECONDS = 0.1
"""What the code of one object gets to describe it."""

MOST = 10_000
"""Characters of what it says that are kept."""

_TO_START, _LAST_CHANCE, _PATIENCE = 5.0, 0.05, 5


# ---------------------------------------------------------------------------------------------------------------------------------
# asking


class _Enough(BaseException):
    """Raised in a helper thread whose time is up."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What comes of a call that raised, or did not end."""

    why: str


def ask(calls: Sequence[Callable[[], Any]], seconds: float = SECONDS) -> list[Any]:
    """Call all of them, each for at most ``seconds``; return what they return, or :class:`NoAnswer`.

    After five that do not end, none is called.
    """
    answers: list[Any] = []
    patience = _PATIENCE
    while len(answers) < len(calls) and patience:
        helper = _Helper(calls[len(answers) :], seconds, patience)
        answers += helper.wait()
        patience = helper.patience
    return answers + [NoAnswer("was not called, as others before did not end")] * (len(calls) - len(answers))


class _Helper:
    """A thread that calls one thing after another, until one of them does not end.

    It is none of ``threading``'s: no tracer or profiler that waits for new threads sees it.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]], seconds: float, patience: int) -> None:
        self._calls = calls
        self._seconds = seconds
        self.patience = patience
        self._answers: list[Any] = []
        self._since = perf_counter() + _TO_START
        self._over = False
        self._ending = Lock()
        self._ended = Latch()

    def wait(self) -> list[Any]:
        """Return the answers, up to the first call that does not end."""
        try:
            self._ident = start_new_thread(copy_context().run, (self._run,))
        except RuntimeError as error:
            return [NoAnswer(f"could not be called: {error}")] * len(self._calls)
        try:
            return self._watch()
        finally:
            self._strike()  # where an interrupt has ended the wait

    def _run(self) -> None:
        while not self._over:
            try:
                self._answer()
                with self._ending:
                    self._over = True  # from here on nothing is raised in this thread; what was, comes at the next turn
                for _ in range(2):
                    pass
            except _Enough:
                pass
        self._ended.set()

    def _answer(self) -> None:
        while not self._over and self.patience and len(self._answers) < len(self._calls):
            self._since = perf_counter()
            answer: Any = NoAnswer(f"did not end in {self._seconds:g} s")
            try:
                answer = self._calls[len(self._answers)]()
            except _Enough:
                self.patience -= 1
            except BaseException as error:  # noqa: BLE001  (the user's own code may raise anything)
                answer = NoAnswer(f"raised {type_name(error)}")
            self._answers.append(answer)

    def _watch(self) -> list[Any]:
        """Wait until all is answered; interrupt a call that takes too long, and give up on one that goes on all the same."""
        while not self._ended.wait(self._seconds / 4):
            place, since = len(self._answers), self._since
            if perf_counter() - since < self._seconds:
                continue
            for _ in range(3):
                self._strike()
                if self._ended.wait(_LAST_CHANCE) or len(self._answers) > place:
                    break
            else:
                self._over = True
                self.patience -= 1
                calm()
                return [*self._answers[:place], NoAnswer(f"did not end in {self._seconds:g} s, and was left behind")]
        return self._answers

    def _strike(self) -> None:
        with self._ending:
            if not self._over:
                raise_in(self._ident, _Enough)


# ---------------------------------------------------------------------------------------------------------------------------------
# looking: no code of the user's runs


_NAME, _QUALNAME, _MODULE, _MRO, _SPACE = (vars(type)[name] for name in ("__name__", "__qualname__", "__module__", "__mro__", "__dict__"))
_LONGEST_NAME = 200


def type_name(value: object) -> str:
    """Return the name of a value's type, whatever its class says of itself."""
    return str.__str__(_NAME.__get__(type(value)))[:_LONGEST_NAME]


def module_of(kind: type) -> str:
    """Return the name of a type's module; empty where it has none."""
    try:
        module = _MODULE.__get__(kind)
    except AttributeError:
        return ""
    return str.__str__(module) if isinstance(module, str) else ""


def space_of(kind: type) -> Any:
    """Return what a class has of its own, by name."""
    return _SPACE.__get__(kind)


def long_type_name(value: object, kind: type | None = None) -> str:
    """Return the name of a value's type, or of ``kind``, with its module, but for what is built in or the notebook's."""
    kind = kind or type(value)
    name, module = str.__str__(_QUALNAME.__get__(kind))[:_LONGEST_NAME], module_of(kind)
    return name if module in {"", "builtins", "__main__"} else f"{module}.{name}"


def _of_exceptions(name: str) -> Callable[[BaseException], Any]:
    get: Callable[[BaseException], Any] = vars(BaseException)[name].__get__
    return get


cause_of, context_of, traceback_of = map(_of_exceptions, ("__cause__", "__context__", "__traceback__"))
_args_of, _dict_of = map(_of_exceptions, ("args", "__dict__"))
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
    reader = _definer(type(error), "__getattribute__")
    if _definer(type(error), "__notes__") or reader is None or module_of(reader) != "builtins":
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


def attributes_of(value: object) -> Any:
    """Return a value's own attributes, a dict, where it has them as most objects do; else None."""
    get = next((_SPACE.__get__(base)["__dict__"] for base in _MRO.__get__(type(value)) if "__dict__" in _SPACE.__get__(base)), None)
    return get.__get__(value) if type(get) is GetSetDescriptorType else None


def _definer(kind: type, name: str) -> type | None:
    """Return the class that a type has an attribute from."""
    return next((base for base in _MRO.__get__(kind) if name in _SPACE.__get__(base)), None)


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
        known[kind] = _definer(type(error), "__str__")
    definer, fields = known[kind], _args_of(error)
    if definer is OSError:
        fields += tuple(vars(OSError)[name].__get__(error) for name in ("errno", "strerror", "filename", "filename2"))
    ours = definer is BaseException or definer is KeyError or definer is OSError
    return ours and len(fields) < 10 and all(map(is_plain, fields))  # noqa: PLR2004  (a few)
