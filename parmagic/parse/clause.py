"""The ``for`` clause of a magic line, read by Python's own grammar.

The clause is parsed as the tail of a list comprehension, so tuple targets,
conditions and several ``for`` mean what they mean in Python.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from parmagic.errors import LineError
from parmagic.model.plan import Loop
from parmagic.parse.options import FLAGS, VALUES

__all__ = ["read_clause", "words_of"]

GRAMMAR = "`for TARGET in ITERABLE [if CONDITION]`"
CLOSERS = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class _Outline:
    """Where the clause's own words stand: offsets into the text, outside brackets.

    ``open`` is the innermost bracket that is never closed.
    """

    for_at: int | None = None
    in_at: int | None = None
    words: list[tuple[str, int, int]] = field(default_factory=list)
    open: tuple[str, int] | None = None


def read_clause(line: str, start: int, *, expression: bool, known: Callable[[str], bool]) -> tuple[str | None, Loop]:
    """Read ``line`` from ``start`` on: ``[EXPRESSION] for TARGET in ITERABLE ...``.

    Returns the expression's source (None unless ``expression``) and the loop.
    Raises LineError at the place that cannot be read, and at an option, which Python could
    read as an expression, where the notebook has no name that is ``known`` as it is.
    """
    try:
        return _read(line, start, expression=expression, known=known)
    except UnicodeEncodeError as error:  # its place counts from the clause's start, or from a bracket of ours
        at = next((at for at in range(start, len(line)) if line[at] == error.object[error.start]), start)
        message = "the clause cannot be read: half of a surrogate pair stands here, which is no character"
        raise LineError(message, line, at) from None
    except ValueError as error:  # a null byte, on Python 3.11.3 and before
        raise LineError(f"the clause cannot be read: {error}", line, max(start, line.find("\0", start))) from None
    except (RecursionError, MemoryError, OverflowError):
        raise LineError("the clause is nested too deeply: give parts of it names, in a cell above", line, start) from None


def _read(line: str, start: int, *, expression: bool, known: Callable[[str], bool]) -> tuple[str | None, Loop]:
    text = line[start:]
    prefix = "[" if expression else "[_ "
    outline = _outline(text)
    _refuse_option(line, start, outline, known)
    try:
        # The newline keeps a comment at the line's end from hiding the bracket.
        tree = ast.parse(f"{prefix}{text}\n]", mode="eval").body
    except SyntaxError as error:
        raise _explain(error, line, start, len(prefix), outline) from None
    if not isinstance(tree, ast.ListComp):
        raise _no_comprehension(line, start, outline)
    _check(tree, line, start, outline)
    assert outline.for_at is not None
    return text[: outline.for_at].strip() if expression else None, _fold(tree, text, outline)


def _refuse_option(line: str, start: int, outline: _Outline, known: Callable[[str], bool]) -> None:
    """Refuse an option behind ``in``, outside brackets: ``for i in range(3) --once``."""
    for word, begin in _of_the_iterable(outline):
        option = _OPTION.match(line, start + begin) if word == "-" else None
        if option is None or option[0] not in {**FLAGS, **VALUES} or not line[option.start() - 1].isspace():
            continue
        if not all(known(name) for name in option[0].strip("-").split("-")):
            raise LineError(f"`{option[0]}` stands behind the clause: options come before the `for`", line, option.start())


_OPTION = re.compile(r"--?[a-z][a-z-]*(?=[\s=]|$)")


def _check(tree: ast.ListComp, line: str, start: int, outline: _Outline) -> None:
    """Refuse what Python accepts in a comprehension, but a parallel loop cannot do."""
    column = start + (outline.for_at or 0)
    for generator in tree.generators:
        if generator.is_async:
            raise LineError(
                "`async for` cannot feed workers: list the items first, then write a plain `for`",
                line,
                line.index("async", start),
            )
        for node in ast.walk(generator.target):
            if isinstance(node, ast.Attribute | ast.Subscript):
                raise LineError(
                    f"`{ast.unparse(node)}` cannot be a target, as all workers would share it:"
                    " expected a name, or names in a tuple",
                    line,
                    column,
                )
    try:
        # The expression is the cell reader's business: only the clause is compiled here.
        clause = ast.ListComp(elt=ast.Constant(value=0), generators=tree.generators)
        compile(ast.fix_missing_locations(ast.Expression(ast.copy_location(clause, tree))), "", "eval")
    except SyntaxError as error:
        raise LineError(f"the clause cannot be read: {error.msg}", line, column) from None


def _fold(tree: ast.ListComp, text: str, outline: _Outline) -> Loop:
    """One target and one iterable, whatever the clause has."""
    assert outline.for_at is not None
    assert outline.in_at is not None
    end = outline.words[-1][2]
    if len(tree.generators) == 1 and not tree.generators[0].ifs:
        target = text[outline.for_at + len("for") : outline.in_at].strip()
        return Loop(target, text[outline.in_at + len("in") : end].strip())
    names = list(dict.fromkeys(name for generator in tree.generators for name in _bound(generator)))
    target = names[0] if len(names) == 1 else f"({', '.join(names)})"
    return Loop(target, f"[{target} {text[outline.for_at : end]}]")


def _bound(generator: ast.comprehension) -> Iterator[str]:
    """Names that one ``for`` of the clause gives to the body.

    A walrus in a condition belongs to its item, as it does in a comprehension.
    """
    names = [node for node in ast.walk(generator.target) if isinstance(node, ast.Name)]
    yield from (node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset)))
    pending: list[ast.AST] = list(generator.ifs)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.NamedExpr):
            yield node.target.id
        if not isinstance(node, ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def _outline(text: str) -> _Outline:
    """Find ``for``, ``in`` and brackets; stops where Python's tokenizer gives up."""
    outline = _Outline()
    stack: list[tuple[str, int]] = []
    for word, begin, end in _tokens(text):
        if word in CLOSERS:
            stack.append((word, begin))
        elif stack and word == CLOSERS[stack[-1][0]]:
            stack.pop()
        elif not stack and word == "for" and outline.for_at is None:
            outline.for_at = begin
        elif not stack and word == "in" and outline.for_at is not None and outline.in_at is None:
            outline.in_at = begin
        outline.words.append((word, begin, end))
    outline.open = stack[-1] if stack else None
    return outline


def words_of(text: str) -> list[str]:
    """Return the words of a text that may be unfinished, as far as it can be read."""
    return [word for word, _, _ in _tokens(text)]


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Words of the text with their offsets; comments and line ends left out."""
    starts = [0]
    for row in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in silent and token.string.strip():
                (row0, column0), (row1, column1) = token.start, token.end
                yield token.string, starts[row0 - 1] + column0, starts[row1 - 1] + column1
    except (tokenize.TokenError, SyntaxError, ValueError):  # the last, on Python 3.12, for a carriage return
        return  # what stands before the unreadable place is enough for a message


def _no_comprehension(line: str, start: int, outline: _Outline) -> LineError:
    """Brackets of the text closed ours, or there is no ``for``."""
    if outline.for_at is None:
        return LineError(
            f"the `for` is missing: expected {GRAMMAR} after the expression", line, len(line.rstrip())
        )
    end = len(line.rstrip())
    return _stray(line, start) or LineError(f"expected {GRAMMAR} and nothing after it", line, end)


def _stray(line: str, start: int) -> LineError | None:
    """Find a bracket that closes nothing: Python does, when no bracket of ours is around."""
    try:
        ast.parse(line[start:])
    except SyntaxError as error:
        if "unmatched" in error.msg or "does not match" in error.msg:
            return LineError(
                f"this bracket closes nothing: expected {GRAMMAR}", line, _place(error, line, start, prefix=0)
            )
    return None


def _explain(error: SyntaxError, line: str, start: int, prefix: int, outline: _Outline) -> LineError:
    """Say what is missing in the user's terms, else Python's own message at its place."""
    end = len(line.rstrip())
    words = outline.words
    if "unterminated" in error.msg or "f-string" in error.msg:
        return LineError(f"the clause cannot be read: {error.msg}", line, _place(error, line, start, prefix))
    if stray := _stray(line, start):
        return stray
    if outline.open:
        bracket, at = outline.open
        return LineError(f"`{bracket}` is never closed: expected `{CLOSERS[bracket]}`", line, start + at)
    if outline.for_at is None:
        return _missing_for(error, line, start, prefix)
    after_for = [word for word in words if word[1] > outline.for_at]
    if not after_for:
        return LineError(f"the target is missing after `for`: expected {GRAMMAR}", line, end)
    if outline.in_at == after_for[0][1]:
        return LineError(
            f"the target is missing between `for` and `in`: expected {GRAMMAR}", line, start + outline.in_at
        )
    if outline.in_at is None:
        column = start + after_for[1][1] if len(after_for) > 1 else end
        return LineError(f"`in` is missing after the target: expected {GRAMMAR}", line, column)
    if words[-1][1] == outline.in_at:
        return LineError(f"the iterable is missing after `in`: expected {GRAMMAR}", line, end)
    if words[-1][0] == ":":
        return LineError("a colon cannot stand here: the clause ends without one", line, start + words[-1][1])
    column = _place(error, line, start, prefix)
    if (comma := _comma(outline)) is not None:
        return LineError(
            "the iterable has a comma outside brackets: expected brackets around it, as in `for x in (1, 2)`",
            line,
            start + comma,
        )
    part = "expression" if column < start + outline.for_at else "clause"
    return LineError(f"the {part} cannot be read: {error.msg}; expected {GRAMMAR}", line, column)


def _missing_for(error: SyntaxError, line: str, start: int, prefix: int) -> LineError:
    """No ``for``, and the rest is no expression either: the first wrong place counts."""
    message = f"the expression cannot be read: {error.msg}; expected `EXPRESSION for TARGET in ITERABLE`"
    return LineError(message, line, _place(error, line, start, prefix))


def _comma(outline: _Outline) -> int | None:
    """Offset of a comma outside brackets after ``in``: `for` statements allow it, comprehensions do not."""
    return next((begin for word, begin in _of_the_iterable(outline) if word == ","), None)


def _of_the_iterable(outline: _Outline) -> Iterator[tuple[str, int]]:
    """Yield the words after ``in`` that stand outside brackets, with their offsets."""
    depth = 0
    for word, begin, _ in outline.words:
        depth += (word in CLOSERS) - (word in CLOSERS.values())
        if not depth and outline.in_at is not None and begin > outline.in_at:
            yield word, begin


def _place(error: SyntaxError, line: str, start: int, prefix: int) -> int:
    """Column in the magic line of a place that Python names in the wrapped text."""
    end = len(line.rstrip())
    if error.lineno != 1 or error.offset is None:
        return end
    return min(max(start + error.offset - 1 - prefix, start), end)
