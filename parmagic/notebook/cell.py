"""A cell or a line of the notebook: read it, run it, show it, raise what it raised."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NoReturn

from IPython import version_info
from IPython.core.compilerop import code_name
from IPython.core.error import UsageError
from IPython.display import display
from IPython.utils.text import DollarFormatter

from parmagic.errors import LineError, ParmagicError
from parmagic.execute.story import execute
from parmagic.execute.task import Quiet, Task
from parmagic.model import words
from parmagic.model.plan import Plan, Trace
from parmagic.model.progress import QUIET_FOR, Displayed, Printed, Pulse, Standing
from parmagic.notebook.hush import hush
from parmagic.parse import body as door
from parmagic.parse import line as grammar
from parmagic.result import Run, load_tables, remember
from parmagic.system.files import KEEP_BYTES, KEEP_RUNS
from parmagic.system.interrupts import forget, is_interrupt, noticed, raise_lost
from parmagic.system.limits import explained

MANY = 10_000_000
"""From this many items on a note says what listing them costs."""


NARROW = 90
"""Columns of a terminal from which on a progress bar has room beside the words on what the workers are doing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``%config ParallelMagics`` sets."""

    baseline: bool = True
    show_items: bool = False
    trace: Trace = "auto"
    folder: str = ""
    keep_runs: int = KEEP_RUNS
    keep_bytes: int = KEEP_BYTES


def run_cell(shell: Any, line: str, cell: str | None, settings: Settings) -> Run:
    """Run a cell, or with ``cell`` None a ``%parallel`` line; return its run, or raise what ended it."""
    __tracebackhide__ = True
    return noticed(_run_cell, shell, line, cell, settings)


def _run_cell(shell: Any, line: str, cell: str | None, settings: Settings) -> Run:
    __tracebackhide__ = True
    silent = cell is None and line.rstrip().endswith(";")  # IPython's own way to show nothing
    if silent:
        line = line.rstrip().removesuffix(";")
    plan = _plan(shell, line, cell, settings.trace)
    try:
        body, items, notes = _read(shell, line, cell, plan)
    except ParmagicError as refused:
        raise _without_traceback(refused) from None
    task = Task(
        body.function(shell.user_ns), items, plan, title=_title(line, cell), names=body.reads, blocking=body.blocking,
        notes=tuple(notes), baseline=settings.baseline, folder=settings.folder or None, keep_runs=settings.keep_runs,
        keep_bytes=settings.keep_bytes, show_items=settings.show_items,
    )  # fmt: skip
    try:
        with explained():
            if not (plan.quiet and plan.once):
                load_tables()
            run = remember(execute(task, NoBar() if plan.quiet else Shown()))
    except ParmagicError as refused:
        raise _without_traceback(refused) from None
    run.notes += _advice(shell, run, body, plan)
    if plan.name:
        shell.user_ns[plan.name] = run
    if run.error is not None:
        _fail(shell, run, body, plan)
    if plan.quiet or silent:
        hush(run)
    return run


def _plan(shell: Any, line: str, cell: str | None, trace: Trace) -> Plan:
    """Read the line; what is wrong with it is a UsageError, which IPython shows without a traceback."""
    try:
        plan = grammar.parse(line, cell=cell is not None, expand=lambda word: _expanded(shell, word))
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
    filename = _remember(shell.compile, text, _cell_number(shell))
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


def _remember(compiler: Any, text: str, number: int) -> str:
    """Make tracebacks find the source of a body; return the name of its file, which shows as ``Cell In[number]``.

    It is named as in a terminal: in a kernel, sources have paths, and for paths that do not exist
    IPython falls back to a rough traceback, which is wrong for functions that came by pickle.
    """
    compiler.get_code_name = lambda raw, _code, cell: code_name(raw, cell)
    try:
        return str(compiler.cache(text, number))
    finally:
        del compiler.get_code_name


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


def _advice(shell: Any, run: Run, body: door.Body, plan: Plan) -> list[str]:
    """Return notes on what the body meant to give back, and did not."""
    notes = []
    apart = ", ".join(dict.fromkeys(each.arm.model.called for each in run.timelines if not each.arm.model.shares_memory))
    if apart and body.shared:
        notes.append(f"{_some(body.shared)}: what {apart} assign to a global name does not come back.")
    names = _names(shell)
    private = {name for name in body.mutates if not words.module_of(type(names.get(name))).startswith("multiprocessing")}
    if apart and private:
        notes.append(f"{_some(private)}: changed in the body; what {apart} change stays in them.")
    bound = body.writes - {"_"} - _target_names(plan)
    if run.error is None and bound and run.results and all(result is None for result in run.results):
        notes.append("Every result is None: put the name that you want back on the last line of the body.")
    return notes


def _fail(shell: Any, run: Run, body: door.Body, plan: Plan) -> NoReturn:
    """Show the report, then raise what ended the run."""
    __tracebackhide__ = True
    error = run.error
    assert error is not None
    ours = is_interrupt(error) or issubclass(type(error), ParmagicError)
    if ours and not _comes_from(error, body.filename):
        _without_traceback(error)
    elif not words.is_readable(error):
        _with_plain_traceback(error)
    if issubclass(type(error), NameError):
        advice = door.unbound_help(error, body, _names(shell))
        if advice:
            words.add_note(error, advice)
    if not plan.quiet and run.timelines:
        display(run)
    if version_info < (8, 15):  # from there on, IPython prints the notes itself
        for note in words.notes_of(error):
            print(note, file=sys.stderr)  # noqa: T201  (under the cell)
    raise error


class Shown(Quiet):
    """Progress and prints under the cell."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._begin = 0.0

    def begin(self, arm: str, n_items: int) -> None:
        """Prepare the bar of an arm."""
        from tqdm import tqdm  # noqa: PLC0415  (loads when a run needs it)

        self._begin, stream = time.perf_counter(), _bar_stream()
        if stream is not None:
            narrow = stream is sys.stderr and shutil.get_terminal_size().columns < NARROW
            self._bar = tqdm(
                total=n_items, desc=arm, delay=QUIET_FOR, leave=False, unit="item", file=stream, dynamic_ncols=True,
                bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]" if narrow else None,
            )  # fmt: skip

    def done(self, n_items: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(n_items)

    def printed(self, printed: Printed, model: str) -> None:
        """Print above the bar."""
        if self._bar is not None and time.perf_counter() - self._begin > QUIET_FOR:
            self._bar.clear()
        super().printed(printed, model)

    def displayed(self, displayed: Displayed, model: str) -> None:  # noqa: ARG002  (as all screens)
        """Display as the notebook does."""
        display(displayed.data, metadata=displayed.metadata, raw=True)

    def standing(self, standing: Standing, model: str) -> None:
        """Say it on a line of its own."""
        line = f", line {standing.line}" if standing.line else ""
        doing = f": {standing.doing}" if standing.doing else ""
        text = f"no item has ended for a while; item {standing.item}{line}{doing}\n"
        self.printed(Printed(standing.rank, "stdout", text), model)

    def pulse(self, pulse: Pulse) -> None:
        """Say behind the bar how many workers are doing what."""
        if self._bar is not None:
            self._bar.set_postfix_str(_counted(pulse.doing))

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _counted(doing: Iterable[str]) -> str:
    """Count what workers are doing: ``2 running · 1 waiting for the GIL · 1 asleep``."""
    texts = (text.replace("waits", "waiting") for text in doing if text)
    found = Counter(_AT_IT.get(text, text) for text in texts)
    return " · ".join(f"{n} {text}" for text, n in found.most_common())


_AT_IT = {"runs Python": "running", "runs": "running", "sleeps": "asleep", "is blocked": "blocked"}


def _bar_stream() -> Any:
    """Return where a bar is drawn; None in a file or a pipe, where its frames would pile up.

    In a notebook that is stdout: its stderr is shown as an alarm.
    """
    if sys.stderr.isatty():
        return sys.stderr
    return sys.stdout if type(sys.stdout).__module__.startswith("ipykernel") else None


class NoBar(Shown):
    """Prints under the cell, without a bar (``-q``)."""

    def begin(self, arm: str, n_items: int) -> None:
        """Show nothing."""

    def standing(self, standing: Standing, model: str) -> None:
        """Show nothing."""


def _without_traceback(error: BaseException) -> BaseException:
    """Have IPython show an error by its message alone: its frames are all ours, and tell the user nothing."""
    words.show_as(error, lambda: [f"{words.type_name(error)}: {words.message(error)}".rstrip(": "), *words.notes_of(error)])
    BaseException.__setattr__(error, "__context__", None)
    return words.with_traceback(error, None)


def _with_plain_traceback(error: BaseException) -> None:
    """Have IPython show an error without asking it for its message, which may never come."""

    def lines() -> list[str]:
        trace = traceback.format_tb(words.traceback_of(error))
        return [*"".join(trace).splitlines(), words.describe(error, words.MOST), *words.notes_of(error)]

    words.show_as(error, lines)


def _comes_from(error: BaseException, filename: str) -> bool:
    """Tell whether a frame of that file is in an error's traceback."""
    return any(frame.f_code.co_filename == filename for frame, _ in traceback.walk_tb(words.traceback_of(error)))


def _cell_number(shell: Any) -> int:
    """Return the number of the running cell: older and newer IPython count it up at different moments."""
    known = getattr(shell.compile, "_filename_map", {})
    frame = sys._getframe()  # noqa: SLF001  (the cell that called us is up there)
    while frame is not None:
        if frame.f_code.co_filename in known:
            return int(known[frame.f_code.co_filename])
        frame = frame.f_back  # type: ignore[assignment]
    return int(shell.execution_count)


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
