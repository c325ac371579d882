"""The cell becomes a Body, a function that runs one item.

The function is made from the cell's tree, never by indenting its text: strings
stay as they are, and every line keeps the number that the margin shows (the
magic line is line 1).
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import CodeType, FunctionType
from typing import Any

from parmagic.model import words
from parmagic.parse.habits import as_returns, tell, whole_loop
from parmagic.parse.names import Names, blocking_names, mutated_names, read_names, tallies_of
from parmagic.parse.refusals import (
    IN_A_LINE_MAGIC,
    OTHER_MAGIC,
    at_line,
    depth_refused,
    go_deeper,
    refuse,
    refuse_input,
    refuse_other_scopes,
    ways_out,
)
from parmagic.parse.strings import named_in_strings
from parmagic.parse.unbound import read_too_early
from parmagic.system.real import RLock

__all__ = ["Body", "magic_help", "read_body", "read_expression", "unbound_help"]

# Parameters that no name of the user's can collide with: they are no identifiers.
ITEM, WORKER = ".item", ".worker"
FUNCTION = "<cell>"
# Other compiler flags are not the body's, such as IPython's for an `await` at the top.
FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)

_deeper = RLock()
"""Whose turn it is to have the interpreter's limit of recursion, which is all threads', higher for a while."""


@dataclass(frozen=True, slots=True)
class Body:
    """A cell that can run once per item.

    ``source`` is what ``linecache`` should show for ``filename``: the margin's
    line 1 is the magic line. ``code`` is module code that defines one function.

    ``reads`` are the names that the body takes from the notebook, in nested
    scopes too; builtins only where the notebook has the name. ``writes`` are
    private to each item: bound in the body or by the target. ``shared`` are
    declared ``global`` and bound. ``mutates`` are those of ``reads`` that the
    body visibly changes, ``tallies`` what it counts in. ``blocking`` are names by which ranks that run one
    after another could wait for each other forever.

    ``has_value`` is False when the last statement is no expression or ends
    with ``;``. ``breaks`` tells whether it may break the loop that it is the body of;
    ``whole_loop`` is a loop of its own that every worker runs all of, as ``for x in xs``, where it has no clause.
    """

    source: str
    filename: str
    code: CodeType
    reads: frozenset[str]
    writes: frozenset[str]
    shared: frozenset[str]
    mutates: frozenset[str]
    blocking: frozenset[str]
    has_value: bool
    breaks: bool = False
    whole_loop: str = ""
    tallies: frozenset[str] = frozenset()

    def function(self, namespace: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """Make the body a function of (item, worker) over ``namespace``, which gets no new name.

        In an SPMD body the item is the worker's rank. A body that breaks its loop returns ``worker._broke``.
        """
        code = next(const for const in self.code.co_consts if isinstance(const, CodeType))
        return FunctionType(code, namespace, FUNCTION)


def read_body(
    text: str,
    *,
    line: str,
    target: str | None,
    namespace: Mapping[str, Any],
    filename: str,
    flags: int = 0,
) -> Body:
    """Read the body of a cell, whose first line is line 2; IPython's transforms are already done.

    ``target`` is what each item is bound to, None for SPMD. ``flags`` are the
    notebook's ``from __future__`` flags. Raises CellError for what a body
    cannot do, and Python's SyntaxError with the margin's line number.
    """
    if text.lstrip().startswith("%%"):
        row = 2 + text[: text.index("%%")].count("\n")
        raise at_line(row, OTHER_MAGIC)
    reader = _Reader(f"{line}\n{text}", line, target, namespace, filename, flags)
    with depth_refused():
        statements = reader.parse("\n" + text)
        if not statements:
            raise at_line(2, "the body is empty: write below the magic line what each item should run")
        return reader.body(statements, has_value=isinstance(statements[-1], ast.Expr) and not _silenced(text, statements[-1]))


def read_expression(
    expression: str,
    *,
    line: str,
    target: str,
    namespace: Mapping[str, Any],
    filename: str,
    flags: int = 0,
) -> Body:
    """Read the expression of a ``%parallel`` line, which is line 1. Raises as :func:`read_body` does."""
    reader = _Reader(line, line, target, namespace, filename, flags)
    found = re.search(rf"(?<!\w){re.escape(expression)}\s*\bfor\b", line)
    # Brackets let a walrus stand alone; the spaces put every column where the line has it.
    padding = " " * (len(line[: found.start()].encode()) - 1) if found else ""
    with depth_refused():
        return reader.body(reader.parse(f"({padding}{expression}\n)", mode="eval"), has_value=True)


def unbound_help(
    error: BaseException, body: Body, namespace: Mapping[str, Any]
) -> str | None:
    """Tell the ways out when ``error``, a NameError, is about a name that the body binds and the notebook has too.

    None for any other error, and for one that happened outside the body's text.
    """
    match = re.search(r"(?:local|free) variable '([^']+)'", words.message(error))
    if match is None or match[1] not in body.writes or not _visible(match[1], namespace):
        return None
    place = words.traceback_of(error)
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is not None and place.tb_frame.f_code.co_filename != body.filename:
        return None
    return f"The body binds `{match[1]}`, so it does not see the notebook's. {ways_out(match[1])}"


def magic_help(error: BaseException, body: Body) -> str | None:
    """Tell what a line magic in the body cannot do when ``error``, a NameError, is about a name that stands in one; else None."""
    match = re.search(r"name '([^']+)' is not defined", words.message(error))
    code = next(const for const in body.code.co_consts if isinstance(const, CodeType))
    if match is None or "run_line_magic" not in code.co_names:
        return None
    lines = [const for const in code.co_consts if isinstance(const, str) and re.search(rf"\b{re.escape(match[1])}\b", const)]
    return f"`{match[1]}` stands in a line magic. {IN_A_LINE_MAGIC}" if lines else None


@dataclass(slots=True)
class _Reader:
    """Makes one Body; the fields are the arguments of :func:`read_body`."""

    source: str
    line: str
    target: str | None
    namespace: Mapping[str, Any]
    filename: str
    flags: int

    def parse(self, text: str, mode: str = "exec") -> list[ast.stmt]:
        """Parse the body; flags of its own ``from __future__`` lines are added to the notebook's."""
        with self.python_errors():
            tree = compile(
                text, self.filename, mode, (self.flags & FUTURE) | ast.PyCF_ONLY_AST, dont_inherit=True
            )
            if isinstance(tree, ast.Expression):
                return [ast.copy_location(ast.Expr(tree.body), tree.body)]
            assert isinstance(tree, ast.Module)
            return self.lift_future(tree.body)

    def lift_future(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Turn ``from __future__`` into compiler flags, for a function cannot hold it."""
        start = 1 if ast.get_docstring(ast.Module(statements, []), clean=False) is not None else 0
        end = start
        while end < len(statements):
            future = statements[end]
            if not (
                isinstance(future, ast.ImportFrom) and future.module == "__future__" and not future.level
            ):
                break
            for alias in future.names:
                if alias.name not in __future__.all_feature_names:
                    where = (self.filename, alias.lineno, alias.col_offset + 1, None)
                    raise SyntaxError(f"future feature {alias.name} is not defined", where)
                self.flags |= getattr(__future__, alias.name).compiler_flag
            end += 1
        return statements[:start] + statements[end:]

    def body(self, statements: list[ast.stmt], *, has_value: bool) -> Body:
        """Check the statements and compile them as a function."""
        binding = self.binding()
        bound = (
            frozenset(node.id for node in ast.walk(binding) if isinstance(node, ast.Name))
            if binding
            else frozenset()
        )
        with _deeper:
            before = sys.getrecursionlimit()
            try:  # no context manager: a Ctrl-C may come at the begin of its __exit__
                go_deeper()
                refuse(statements, bound)
                statements, breaks = as_returns(statements) if binding else (statements, [])
                names = self.checked(statements, binding, bound, has_value)
            finally:
                sys.setrecursionlimit(before)
        taken = "worker" in self.namespace or "worker" in names.writes | names.declared
        worker = WORKER if taken else "worker"
        tell(breaks, worker)
        reads = names.reads if taken else names.reads - {"worker"}
        return Body(
            source=self.source,
            filename=self.filename,
            code=self.compile(statements, binding, worker, has_value),
            reads=reads,
            writes=names.writes,
            shared=names.shared,
            mutates=mutated_names(statements, reads, self.namespace),
            blocking=blocking_names(statements, reads, self.namespace),
            has_value=has_value,
            breaks=bool(breaks),
            whole_loop="" if binding else whole_loop(statements, self.namespace),
            tallies=tallies_of(statements),
        )

    def checked(self, statements: list[ast.stmt], binding: ast.Assign | None, bound: frozenset[str], has_value: bool) -> Names:
        """Classify the names, and refuse what a body cannot do."""
        everything = [binding, *statements] if binding else statements
        try:
            names = read_names(everything, self.namespace)
        except SyntaxError:
            self.compile(statements, binding, WORKER, has_value)  # the same error, at the cell's own line
            raise
        refuse_input(statements, names.bound, self.namespace)
        self.refuse_early_reads(statements, names.writes - bound)
        refuse_other_scopes(statements, names.writes)
        in_strings = {name for name in named_in_strings(everything, self.namespace) - names.bound - bound if name in self.namespace}
        return replace(names, reads=names.reads | in_strings)

    def binding(self) -> ast.Assign | None:
        """``TARGET = ...``, placed where the magic line has the target."""
        if self.target is None:
            return None
        tree = ast.parse(f"{self.target.strip()} = 0").body[0]
        assert isinstance(tree, ast.Assign)
        found = re.search(rf"\bfor\s*({re.escape(self.target)})", self.line)
        begin, end = found.span(1) if found else (0, len(self.line))
        place = {"lineno": 1, "end_lineno": 1, "col_offset": len(self.line[:begin].encode())}
        place["end_col_offset"] = len(self.line[:end].encode())
        for node in ast.walk(tree):
            if isinstance(node, ast.expr | ast.stmt):
                for name, value in place.items():
                    setattr(node, name, value)
        return tree

    def compile(
        self, statements: list[ast.stmt], binding: ast.Assign | None, worker: str, has_value: bool
    ) -> CodeType:
        """Compile module code that defines the function of (item, worker)."""
        *rest, last = statements
        if isinstance(last, ast.Expr) and has_value:
            last = ast.copy_location(ast.Return(last.value), last)
        body = [*rest, last]
        item = ITEM
        if binding and isinstance(binding.targets[0], ast.Name):
            item = binding.targets[0].id
        elif binding:
            value = ast.copy_location(ast.Name(ITEM, ast.Load()), binding.value)
            body.insert(0, ast.copy_location(ast.Assign(binding.targets, value), binding))
        parameters = ast.arguments([ast.arg(item), ast.arg(worker)], [], None, [], [], None, [])
        function = ast.FunctionDef(FUNCTION, parameters, body, [], None, None, lineno=1, col_offset=0)
        if sys.version_info >= (3, 12):
            function.type_params = []
        module = ast.fix_missing_locations(ast.Module([function], []))
        with self.python_errors():
            code: CodeType = compile(module, self.filename, "exec", self.flags & FUTURE, dont_inherit=True)
            return code

    def refuse_early_reads(self, statements: list[ast.stmt], writes: frozenset[str]) -> None:
        """Refuse what worked as a cell and cannot work as a function: ``total += x``."""
        early = read_too_early(
            statements, frozenset(name for name in writes if _visible(name, self.namespace))
        )
        if early is None:
            return
        target = early.target if isinstance(early, ast.AugAssign) else early
        assert isinstance(target, ast.Name)
        message = f"`{target.id}` is read here before the body binds it. {ways_out(target.id)}"
        raise at_line(target.lineno, message)

    @contextmanager
    def python_errors(self) -> Iterator[None]:
        """Give a SyntaxError the text of its line, which Python looks for in a file."""
        try:
            yield
        except SyntaxError as error:
            rows = self.source.splitlines(keepends=True)
            if error.lineno and error.lineno > len(rows):  # at the bracket that we put after the end
                error.lineno, error.offset = len(rows), len(rows[-1]) + 1
                error.end_lineno = error.end_offset = None
            if error.lineno:
                error.text = rows[error.lineno - 1]
            raise


def _visible(name: str, namespace: Mapping[str, Any]) -> bool:
    """Whether a cell could read the name before it binds it."""
    return name in namespace or hasattr(builtins, name)


def _silenced(text: str, last: ast.stmt) -> bool:
    """Whether there is a ``;`` behind the last statement, comments aside, as IPython tells it.

    Python's tokenizer does not read all that its parser does: a carriage return alone stops it since Python 3.12.
    """
    assert last.end_lineno is not None
    first, *rows = re.split("\r\n|\r|\n", text)[last.end_lineno - 2 :]
    behind = first.encode()[last.end_col_offset :].decode()
    return any(";" in row.partition("#")[0] for row in (behind, *rows))
