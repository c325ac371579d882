"""A cell or a line of the notebook: read it, run it, show it, raise what it raised."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from IPython.core.compilerop import code_name
from IPython.core.error import UsageError
from IPython.utils.text import DollarFormatter

from parmagic.errors import LineError, ParmagicError
from parmagic.execute.story import execute
from parmagic.execute.task import Breaking, Task
from parmagic.model import cells, classes
from parmagic.model.finding import Finding, told
from parmagic.model.plan import Changes, Plan, TraceMode
from parmagic.notebook import syntax
from parmagic.notebook.failures import advise, fail, without_traceback
from parmagic.notebook.hush import hush
from parmagic.notebook.screen import NoBar, WithBar
from parmagic.parse import body as door
from parmagic.parse import line as grammar
from parmagic.parse.helpers import changed_by_helpers
from parmagic.result import Run, let_go, load_tables, remember, study
from parmagic.system.files import KEEP_BYTES, KEEP_RUNS
from parmagic.system.interrupts import forget, noticed, raise_lost
from parmagic.system.limits import explained
from parmagic.system.unwatched import unwatched

MANY = 10_000_000
"""From this many items on a note says what listing them costs."""


_LONG = 60
"""Characters of a loop that a note shows."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``%config ParallelMagics`` sets."""

    baseline: bool = True
    show_items: bool = False
    trace: TraceMode = "auto"
    folder: str = ""
    keep_runs: int = KEEP_RUNS
    keep_bytes: int = KEEP_BYTES


def run_cell(shell: Any, line: str, cell: str | None, settings: Settings) -> Run:
    """Run a cell, or with ``cell`` None a ``%parallel`` line; return its run, or raise what ended it."""
    __tracebackhide__ = True
    syntax.begin(shell)
    return noticed(_run_cell, shell, line, cell, settings)


def _run_cell(shell: Any, line: str, cell: str | None, settings: Settings) -> Run:
    __tracebackhide__ = True
    silent = cell is None and line.rstrip().endswith(";")  # IPython's own way to show nothing
    if silent:
        line = line.rstrip().removesuffix(";")
    plan = _plan(shell, line, cell, settings.trace)
    try:
        run, body = _ran(shell, line, cell, plan, settings)
    except ParmagicError as refused:
        raise without_traceback(refused) from None
    let_go(run)
    study(run).add(_advice(shell, run, body, plan))
    if plan.name:
        shell.user_ns[plan.name] = run
    if run.error is not None:
        fail(run, body, plan)
    if plan.quiet or silent:
        hush(run)
    return run


def _ran(shell: Any, line: str, cell: str | None, plan: Plan, settings: Settings) -> tuple[Run, door.Body]:
    """Read the cell and run it; the items are held by this frame alone, which no error of the body's keeps."""
    body, items, notes = _read(shell, line, cell, plan)
    cells.ask(lambda: getattr(shell.compile, "_filename_map", {}))
    call = body.function(shell.user_ns)
    task = Task(
        Breaking(call) if body.breaks else call, items, plan, title=_title(line, cell), names=body.reads, blocking=body.blocking,
        changes=Changes(body.shared | body.mutates, tallies=body.tallies), notes=tuple(notes), baseline=settings.baseline,
        folder=settings.folder or None, keep_runs=settings.keep_runs, keep_bytes=settings.keep_bytes, show_items=settings.show_items,
    )  # fmt: skip
    with explained():
        run = remember(unwatched(_executed, task, plan))
    advise(run.error, body, _names(shell))
    return run, body


def _executed(task: Task, plan: Plan) -> Run:
    if not (plan.quiet and plan.once):
        load_tables()
    return execute(task, NoBar() if plan.quiet else WithBar())


def _plan(shell: Any, line: str, cell: str | None, trace: TraceMode) -> Plan:
    """Read the line; what is wrong with it is a UsageError, which IPython shows without a traceback."""
    try:
        expand, known = partial(_expanded, shell), lambda name: name in _names(shell)
        plan = grammar.parse(line, cell=cell is not None, expand=expand, known=known)
    except LineError as error:
        raise UsageError(str(error)) from None
    if trace != "auto" and "--trace" not in line:
        return replace(plan, trace=trace)
    return plan


def _expanded(shell: Any, word: str) -> str:
    """Expand ``{name}`` and ``$name`` as IPython does, but from the notebook's names alone.

    The shell's own ``var_expand`` also looks into the frames of its callers, which are ours.
    """
    try:
        return str(DollarFormatter().vformat(word, [], _names(shell)))
    except Exception:  # noqa: BLE001  (as IPython: what cannot be expanded stays, and is refused as a word)
        return word


def _read(shell: Any, line: str, cell: str | None, plan: Plan) -> tuple[door.Body, Sequence[Any] | None, list[str]]:
    """Read the body, then list the items: nothing runs before both are understood."""
    title = _title(line, cell)
    code = _transformed(shell, cell) if cell is not None else ""
    # tracebacks show the cell as the margin counts it: the magic line is line 1, a comment, so that all of it is Python
    text = title if cell is None else f"# {title}\n{code}"
    filename = _remember(shell.compile, text, *_running(shell))
    target = plan.loop.target if plan.loop else None
    flags, names = shell.compile.flags, _names(shell)
    if cell is None:
        assert plan.expression is not None
        assert target is not None
        body = door.read_expression(plan.expression, line=title, target=target, namespace=names, filename=filename, flags=flags)
    else:
        body = door.read_body(code, line=title, target=target, namespace=names, filename=filename, flags=flags)
    if plan.loop is None:
        return body, None, []
    items = _listed(shell, plan.loop.iterable, filename)
    if len(items) < MANY:
        return body, items, []
    return body, items, [f"{len(items):,} items were listed before the first arm; an index range per item is cheaper."]


def _remember(compiler: Any, text: str, number: int, file: str) -> str:
    """Make tracebacks find the source of a body; return the name of its file, which shows as ``Cell In[number]``.

    It is named as in a terminal: in a kernel, sources have paths, and for paths that do not exist
    IPython falls back to a rough traceback, which is wrong for functions that came by pickle. A debugger
    has written the cell to its ``file``, and knows its breakpoints by that name.
    """
    name = file if text.startswith("# %%") and _begins_with_magic(file) else ""
    ours = copy(compiler)  # other threads may compile cells meanwhile; what it knows of them is the same
    ours.get_code_name = lambda raw, _code, cell: name or code_name(raw, cell)
    return str(ours.cache(text, number))


def _begins_with_magic(file: str) -> bool:
    """Tell whether there is such a file, whose lines are those of a body: none stand before the magic line."""
    try:
        with Path(file).open(encoding="utf-8") as opened:
            return opened.readline().startswith("%%parallel")
    except (OSError, ValueError):
        return False


def _transformed(shell: Any, cell: str) -> str:
    """Return the cell as Python, with its lines where they were."""
    blank = re.match(r"(?:[ \t]*\n)*", cell)
    lead = blank.group().count("\n") if blank else 0
    if cell.lstrip().startswith("%%"):
        return cell
    return "\n" * lead + str(shell.transform_cell(cell))


def _listed(shell: Any, iterable: str, filename: str) -> list[Any]:
    """Evaluate the iterable and list it, so that it can be interrupted at any moment."""
    code = compile(iterable, filename, "eval", flags=shell.compile.flags, dont_inherit=True)
    raise_lost()
    source = iter(eval(code, shell.user_global_ns, shell.user_ns))  # noqa: S307  (the user's own clause)
    items: list[Any] = []
    while part := list(islice(source, 10_000)):
        items += part
    forget()
    return items


def _advice(shell: Any, run: Run, body: door.Body, plan: Plan) -> list[Finding]:
    """Return what the body meant to give back, and did not."""
    found = []
    apart = ", ".join(dict.fromkeys(each.arm.model.called for each in study(run).timelines if not each.arm.model.shares_memory))
    if apart and body.shared:
        found.append(f"{_some(body.shared)}: what {apart} assign to a global name does not come back.")
    names = _names(shell)
    private = {name for name in body.mutates if _is_the_notebooks(names.get(name))}
    if apart and private:
        found.append(f"{_some(private)}: changed in the body; what {apart} change stays in them.")
    if apart:
        helped = changed_by_helpers(body.function(names), body.reads, names)
        told_of = {name: by for name, by in helped.items() if name not in private and _is_the_notebooks(names.get(name))}
        if told_of:
            listed = ", ".join(f"{name} (by {by})" for name, by in sorted(told_of.items())[:5])
            found.append(f"{listed}: changed by what the body calls; what {apart} change stays in them.")
    bound = body.writes - {"_"} - _target_names(plan)
    if run.error is None and bound and not body.breaks and run.results and all(result is None for result in run.results):
        found.append("Every result is None: put the name that you want back on the last line of the body.")
    return [*told(found, "not_given_back", severity="warning"), *_shared_out(body, plan)]


def _shared_out(body: door.Body, plan: Plan) -> list[Finding]:
    """Say how a loop is shared out that every worker ran all of."""
    if not body.whole_loop or body.blocking or max(arm.count for arm in plan.arms) == 1:
        return []
    loop = body.whole_loop if len(body.whole_loop) <= _LONG else f"{body.whole_loop[:_LONG]}…"
    text = f"Every worker ran all of `{loop}`: did you mean `%%parallel … {loop}`, which shares it out?"
    return [Finding("whole_loop", text)]


def _is_the_notebooks(value: Any) -> bool:
    """Tell whether what a process changes in a value stays there."""
    return not classes.module_of(type(value)).startswith("multiprocessing")


def _running(shell: Any) -> tuple[int, str]:
    """Return the number of the running cell, and the name of its file.

    Older and newer IPython count the number up at different moments.
    """
    known = getattr(shell.compile, "_filename_map", {})
    frame = sys._getframe()  # noqa: SLF001  (the cell that called us is up there)
    while frame is not None:
        file = frame.f_code.co_filename
        if file in known:
            return int(known[file]), file
        frame = frame.f_back  # type: ignore[assignment]
    return int(shell.execution_count), ""


def _target_names(plan: Plan) -> set[str]:
    """Return the names that the clause binds: the body has not bound them itself."""
    if plan.loop is None:
        return set()
    return {node.id for node in ast.walk(ast.parse(f"for {plan.loop.target} in (): ...")) if isinstance(node, ast.Name)}


def _names(shell: Any) -> dict[str, Any]:
    """Return what a body may read from the notebook."""
    return {**shell.user_global_ns, **shell.user_ns}


def _title(line: str, cell: str | None) -> str:
    return f"{'%' if cell is None else '%%'}parallel {line}".rstrip()


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:5])
