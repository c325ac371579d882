"""The magic line becomes a Plan.

::

    %%parallel [MODEL[=COUNTS]]... [OPTIONS] [for TARGET in ITERABLE [if CONDITION]]
    %parallel  [MODEL[=COUNTS]]... [OPTIONS] [--] EXPRESSION for TARGET in ITERABLE [if CONDITION]

Words before the clause or the expression are expanded and read one at a time;
what follows is never altered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parmagic.errors import LineError
from parmagic.model import traits
from parmagic.model.plan import Arm, Loop, Plan
from parmagic.parse.clause import read_clause
from parmagic.parse.options import COUNTS, FLAGS, VALUES, check, check_keywords, either, expected, model_hint, unknown_option
from parmagic.system.cpus import available_cpus

__all__ = ["available_cpus", "parse", "parse_models"]

RESERVED = ("auto", "history", "async", "interpreters", "dask")
MAX_COUNT = 10_000  # a range is listed arm by arm: a slip of the finger must not fill the memory

WORD = re.compile(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|\S)+")
ASSIGNMENT = re.compile(r"(?:[A-Za-z_]\w*|\{.*\})=(?!=)")
FOR = re.compile(r"for\b")


@dataclass(frozen=True, slots=True)
class _Word:
    """A word before the clause; ``exact`` when it stands in the line as it is (nothing was expanded)."""

    text: str
    column: int
    exact: bool = True


def parse(
    line: str,
    *,
    cell: bool,
    expand: Callable[[str], str] | None = None,
    cpus: Callable[[], int] = available_cpus,
    known: Callable[[str], bool] = lambda _: False,
) -> Plan:
    """Read what follows ``%%parallel`` (``cell``) or ``%parallel``.

    ``expand`` replaces ``{name}`` and ``$name`` in one word before the clause;
    ``cpus`` is asked once for what ``auto`` means, and only when it is used;
    ``known`` tells whether the notebook has a name.
    Raises LineError with the place in ``line`` and what was expected there.
    """
    front = Front(line, cell, expand or str, cpus)
    start = front.read()
    expression: str | None = None
    loop: Loop | None = None
    if not cell:
        expression, loop = _read_expression(line, start, front, known)
    elif start < len(line.rstrip()):
        _, loop = read_clause(line, start, expression=False, known=known)
    return Plan(arms=front.all_arms(), loop=loop, expression=expression, **front.options)


def parse_models(text: str, **options: object) -> Plan:
    """Read the models of ``parmagic.run(func, items, "threads=4 procs=4", **options)``.

    ``options`` are ``name``, ``quiet``, ``once``, ``trace``, ``timeout`` (s), ``item_timeout`` (s),
    ``retry``, ``keep_going``, ``chunk``, ``start_method`` and ``seed``, as in the magic line.
    Raises LineError, also for an option.
    """
    checked = check_keywords(options)
    front = Front(text, cell=True, expand=str, cpus=available_cpus, clause=False)
    front.read()
    return Plan(arms=front.all_arms(), **{**front.options, **checked})


def _read_expression(line: str, start: int, front: Front, known: Callable[[str], bool]) -> tuple[str | None, Loop]:
    """Read the rest of a ``%parallel`` line; a word that was meant as a model gets that message."""
    end = len(line.rstrip())
    shape = "expected `EXPRESSION for TARGET in ITERABLE`"
    if start >= end:
        raise LineError(f"the expression is missing: {shape}", line, end)
    if FOR.match(line, start):
        hint = "for a whole cell, write `%%parallel` on its first line"
        raise LineError(f"the expression before `for` is missing: {shape}; {hint}", line, start)
    try:
        return read_clause(line, start, expression=True, known=known)
    except LineError as error:
        match = WORD.match(line, start)
        assert match is not None
        hint = "" if front.after_dashes else model_hint(match[0])
        if hint and match.end() < end:
            raise LineError(f"`{match[0]}` is no model{hint}", line, start) from None
        raise error from None


class Front:
    """The models and options at the front of a line."""

    def __init__(
        self,
        line: str,
        cell: bool,
        expand: Callable[[str], str],
        cpus: Callable[[], int],
        clause: bool = True,
    ) -> None:
        self.line = line
        self.cell = cell
        self.expand = expand
        self.cpus = cpus
        self.clause = clause  # False: there are models only, as in parse_models
        self.position = 0
        self.expanded: list[_Word] = []  # words that one written word expanded to
        self.arms: dict[Arm, None] = {}  # in written order; a range may have thousands
        self.models = traits.by_word()
        self.options: dict[str, Any] = {}
        self.bare = ""  # the model just read, when it had no counts
        self.after_dashes = False
        self._auto = 0

    def read(self) -> int:
        """Read all models and options; returns the offset at which the rest of the line begins."""
        while word := self.take():
            bare, self.bare = self.bare, ""
            name = word.text.partition("=")[0]
            if name in self.models:
                self.add_model(word)
            elif name in RESERVED:
                escape = "" if self.cell else "; an expression that begins so goes after `--`"
                wanted = either([model.name for model in traits.known()])
                raise self.error(f"`{name}` is reserved for later: expected {wanted}{escape}", word)
            elif word.text.startswith("-") and word.text != "-" and self.clause:
                self.add_option(word)
            else:
                raise self.unknown(word, bare)
        return self.position

    def take(self) -> _Word | None:
        """Take the next word, expanded; None where the clause, the expression or the line's end begins."""
        if not self.expanded:
            match = self.written()
            if match is None or self.ends_front(match):
                return None
        return self.next_word()

    def next_word(self) -> _Word | None:
        """Take the next word, whatever it is, expanded; None at the line's end."""
        if self.expanded:
            return self.expanded.pop(0)
        match = self.written()
        if match is None:
            return None
        self.position = match.end()
        text = self.expand(match[0])
        if text == match[0]:
            return _Word(text, match.start())
        self.expanded = [_Word(part, match.start(), exact=False) for part in text.split()]
        return self.take()

    def written(self) -> re.Match[str] | None:
        """Find the next word as it is written, with the spaces before it skipped."""
        space = re.compile(r"\s*").match(self.line, self.position)
        assert space is not None
        self.position = space.end()
        return WORD.match(self.line, self.position)

    def ends_front(self, match: re.Match[str]) -> bool:
        """Whether the clause or the expression begins at this word."""
        text = match[0]
        rest = self.line[match.end() :].lstrip()
        if text == "async" and FOR.match(rest):
            raise LineError(
                "`async for` cannot feed workers: list the items first, then write a plain `for`",
                self.line,
                match.start(),
            )
        if self.cell:
            return self.clause and bool(FOR.match(text))
        if text == "--":
            self.position = match.end()
            self.written()
            self.after_dashes = True
            return True
        if self.bare and COUNTS.fullmatch(text):
            return False  # `threads 4 f(x) for ...`: to be refused as a count, not read as an expression
        return not (text[0] in "-$=" or text in self.models or text in RESERVED or ASSIGNMENT.match(text))

    def add_model(self, word: _Word) -> None:
        """``threads``, ``threads=auto``, ``procs=1,2,4``, ``procs=1-8``."""
        name, equals, counts = word.text.partition("=")
        model = self.models[name]
        if model.one_at_a_time:
            if equals:
                raise self.error(f"`{name}` is one worker: expected `{name}` without a count", word, len(name))
            self.add_arm(Arm(model), word)
            return
        if not equals:
            self.bare = name
        offset = len(name) + 1
        for part in (counts if equals else "auto").split(","):
            for count in self.counts(part, word, offset):
                self.add_arm(Arm(model, count), word, offset if equals else 0)
            offset += len(part) + 1

    def add_arm(self, arm: Arm, word: _Word, offset: int = 0) -> None:
        """Refuse a second arm of the same label."""
        if arm in self.arms:
            is_auto = not arm.model.one_at_a_time and arm.count == self._auto
            auto = f" (`auto` is {self._auto} here)" if is_auto else ""
            raise self.error(f"`{arm.label}` is there twice{auto}: expected each arm once", word, offset)
        self.arms[arm] = None

    def all_arms(self) -> tuple[Arm, ...]:
        """Return the arms in written order; a line without models compares our own."""
        if self.arms:
            return tuple(self.arms)
        return tuple(Arm(model, 1 if model.one_at_a_time else self.auto()) for model in traits.COMPARED)

    def auto(self) -> int:
        """Ask once what ``auto`` means here."""
        self._auto = self._auto or self.cpus()
        return self._auto

    def counts(self, part: str, word: _Word, offset: int) -> list[int]:
        """One part of COUNTS: ``4``, ``1-8`` or ``auto``."""
        name = word.text.partition("=")[0]
        wanted = f"expected 1 or more, as in `{name}=4`, `{name}=1,2,4`, `{name}=1-8` or `{name}=auto`"
        if part == "auto":
            return [self.auto()]
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if match is None:
            problem = f"`{part}` is no count" if part else "a count is missing"
            hint = f"; did you mean `{name}=auto`?" if part == "-1" else ""
            raise self.error(f"{problem}: {wanted}{hint}", word, offset)
        first, last = int(match[1]), int(match[2] or match[1])
        if first < 1 or last > MAX_COUNT:
            limit = f" and at most {MAX_COUNT}" if last > MAX_COUNT else ""
            raise self.error(f"`{part}` is no count: {wanted}{limit}", word, offset)
        if first > last:
            raise self.error(f"`{part}` counts backwards: did you mean `{last}-{first}`?", word, offset)
        return list(range(first, last + 1))

    def add_option(self, word: _Word) -> None:
        """``-q``, ``-o NAME``, ``-oNAME``, ``--trace off``, ``--trace=off``."""
        option, equals, text = word.text.partition("=")
        if word.text.startswith("-o") and word.text != "-o":
            option, equals, text = "-o", "o", word.text[2:]
        if option not in FLAGS and option not in VALUES:
            following = self.written()
            escape = "" if self.cell else "; an expression that begins with a minus goes after `--`"
            raise self.error(unknown_option(option, text, following[0] if following else "") + escape, word)
        field = FLAGS.get(option) or VALUES[option]
        if field in self.options:
            raise self.error(f"`{option}` is there twice: expected it once", word)
        if option in FLAGS:
            if equals:
                raise self.error(f"`{option}` takes no value: expected `{option}` alone", word, len(option))
            self.options[field] = True
            return
        value, offset = word, len(word.text) - len(text)
        if not equals:
            value, offset = self.value_of(option, field), 0
            text = value.text
        try:
            self.options[field] = check(field, text, option)
        except ValueError as error:
            raise self.error(str(error), value, offset) from None

    def value_of(self, option: str, field: str) -> _Word:
        """Take the word after an option."""
        value = None if not self.expanded and self.at_clause() else self.next_word()
        if value is None:
            message = f"`{option}` needs a value: expected {expected(field)}"
            raise LineError(message, self.line, self.position)
        return value

    def at_clause(self) -> bool:
        """Whether a cell's clause comes next, so that an option has no value."""
        match = self.written()
        return match is not None and self.cell and bool(FOR.match(match[0]))

    def unknown(self, word: _Word, bare: str) -> LineError:
        """Refuse a word; ``bare`` is the model right before it, when that has no counts."""
        counts = word.text.lstrip("=")
        if word.text == "=" and (following := self.written()):
            counts = following[0]
        if bare and COUNTS.fullmatch(counts):
            escape = "" if self.cell else f" (an expression goes after `--`: `{bare} -- {counts} ...`)"
            hint = f"; did you mean `{bare}={counts}`?{escape}"
        else:
            hint = model_hint(word.text)
        wanted = f"a model ({', '.join(f'`{model.with_count(4)}`' for model in traits.known())})"
        if self.clause:
            wanted += ", an option or `for TARGET in ITERABLE`"
        elif word.text.startswith("-"):
            wanted += "; options are keyword arguments here, as in `trace='off'`"
        return self.error(f"`{word.text}` is no model: expected {wanted}{hint}", word)

    def error(self, message: str, word: _Word, offset: int = 0) -> LineError:
        """Make an error at ``offset`` in the word, or at its start where it was expanded."""
        return LineError(message, self.line, word.column + (offset if word.exact else 0))
