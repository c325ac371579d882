"""The magics: the only module that imports IPython."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Int, Unicode

from parmagic import cell as door
from parmagic import line as grammar
from parmagic.errors import LineError
from parmagic.model import Displayed, Plan, Printed
from parmagic.run import Quiet, Run, Task, execute, remember

MANY = 10_000_000
"""From this many items on a note says what listing them costs."""

QUIET_FOR = 1.0
"""Seconds before a progress bar shows: quick cells stay quiet."""


class Shown(Quiet):
    """Progress and prints under the cell."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, arm: str, n_items: int) -> None:
        """Prepare the bar of an arm."""
        from tqdm import tqdm  # noqa: PLC0415  (loads when a run needs it)

        self._bar = tqdm(total=n_items, desc=arm, delay=QUIET_FOR, leave=False, unit="item", file=_bar_stream(), dynamic_ncols=True)

    def done(self, n_items: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(n_items)

    def printed(self, printed: Printed, model: str) -> None:
        """Print above the bar."""
        if self._bar is not None:
            self._bar.clear()
        super().printed(printed, model)

    def displayed(self, displayed: Displayed, model: str) -> None:  # noqa: ARG002  (as all screens)
        """Display as the notebook does."""
        from IPython.display import display  # noqa: PLC0415

        display(displayed.data, metadata=displayed.metadata, raw=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar_stream() -> Any:
    """Return where a bar is drawn: not on a notebook's stderr, which is shown as an alarm."""
    return sys.stderr if sys.stderr.isatty() else sys.stdout


class NoBar(Shown):
    """Prints under the cell, without a bar (``-q``)."""

    def begin(self, arm: str, n_items: int) -> None:
        """Show nothing."""


@magics_class
class ParallelMagics(Magics):  # type: ignore[misc]
    """``%%parallel`` and ``%parallel``, and their settings (``%config ParallelMagics``)."""

    baseline = Bool(True, help="Run a serial baseline after the arms.").tag(config=True)
    show_items = Bool(False, help="Let saved pages show item values, which may be private.").tag(config=True)
    trace = Enum(("auto", "full", "off"), "auto", help="The default of --trace: auto, full or off.").tag(config=True)
    folder = Unicode("", help="Where runs keep their files; .parmagic in the working directory by default.").tag(config=True)
    keep_runs = Int(20, help="How many runs' files are kept.").tag(config=True)

    @no_var_expand  # type: ignore[untyped-decorator]
    @line_cell_magic  # type: ignore[untyped-decorator]
    def parallel(self, line: str, cell: str | None = None) -> Run:
        """Run a cell, or an expression, under threads or processes and see where every second went.

        ::

            %%parallel [MODEL[=COUNTS]]... [OPTIONS] [for TARGET in ITERABLE [if CONDITION]]
            %parallel  [MODEL[=COUNTS]]... [OPTIONS] [--] EXPRESSION for TARGET in ITERABLE [if CONDITION]

        MODEL is serial, threads or procs; COUNTS is 4, or 1,2,4, or 1-8, or auto
        (the CPUs that this process may use). Without a model: serial threads procs.

        With ``for``, the body runs once per item, each item on whichever worker is
        free, and the value of its last expression is the item's result. Without
        ``for``, every worker runs the body once, all starting together; ``worker.rank``
        and ``worker.count`` tell them apart. Names that the body binds are private
        to each item; names that it only reads come from the notebook.

        Options:
          -o NAME               store the run under NAME (it is also ``_``)
          -q                    hide report and progress; the run is still returned
          --once                run no serial baseline
          --trace auto|full|off functions in the timeline: within 5 % cost, all, none
          --timeout SECONDS     end the arms after that long
          --keep-going          go on after a failed item, and raise nothing
          --chunk N             hand out N items at a time
          --start-method fork|forkserver|spawn

        Examples::

            %%parallel threads=4 procs=4 for path in paths
            import hashlib
            hashlib.sha256(path.read_bytes()).hexdigest()

            %parallel procs=2 -o squares n * n for n in range(1000)

            %%parallel threads=1,2,4 --once
            sum(range(worker.rank, 10_000_000, worker.count))
        """
        if cell is None:
            line = line.rstrip().removesuffix(";")  # IPython's own way to show nothing
        try:
            plan = grammar.parse(line, cell=cell is not None, expand=self._expand)
        except LineError as error:
            raise UsageError(str(error)) from None
        plan = self._with_defaults(plan, line)
        body, items, notes = self._read(line, cell, plan)
        space = self.shell.user_ns
        task = Task(
            body.function(space), items, plan, title=_title(line, cell), names=body.reads, blocking=body.blocking,
            notes=tuple(notes), baseline=self.baseline, folder=self.folder or None, keep_runs=self.keep_runs,
            show_items=self.show_items,
        )  # fmt: skip
        run = remember(execute(task, NoBar() if plan.quiet else Shown()))
        self._extra_notes(run, body, plan)
        if plan.name:
            space[plan.name] = run
        if run.error is not None:
            self._fail(run, body, plan)
        if plan.quiet:
            self._hush(run)
        return run

    def _with_defaults(self, plan: Plan, line: str) -> Plan:
        from dataclasses import replace  # noqa: PLC0415

        if self.trace != "auto" and "--trace" not in line:
            return replace(plan, trace=self.trace)
        return plan

    def _expand(self, word: str) -> str:
        return str(self.shell.var_expand(word, depth=2))

    def _read(self, line: str, cell: str | None, plan: Plan) -> tuple[door.Body, Sequence[Any] | None, list[str]]:
        """Read the body, then list the items: nothing runs before both are understood."""
        magic_line = _title(line, cell)
        text = magic_line if cell is None else f"{magic_line}\n{cell}"
        filename = self._remember_source(text)
        target = plan.loop.target if plan.loop else None
        flags = self.shell.compile.flags
        if cell is None:
            assert plan.expression is not None
            assert target is not None
            body = door.read_expression(
                plan.expression, line=magic_line, target=target, namespace=_names(self.shell), filename=filename, flags=flags
            )
        else:
            code = self._transform(cell)
            body = door.read_body(
                code, line=magic_line, target=target, namespace=_names(self.shell), filename=filename, flags=flags
            )
        if plan.loop is None:
            return body, None, []
        items = self._list(plan.loop.iterable, filename, flags)
        if len(items) < MANY:
            return body, items, []
        return body, items, [f"{len(items):,} items were listed before the first arm; an index range per item is cheaper."]

    def _transform(self, cell: str) -> str:
        """Return the cell as Python, with its lines where they were."""
        body = cell.lstrip("\n")
        blank = re.match(r"(?:[ \t]*\n)*", cell)
        lead = blank.group().count("\n") if blank else 0
        if body.lstrip().startswith("%%"):
            return cell
        return "\n" * lead + str(self.shell.transform_cell(cell))

    def _remember_source(self, text: str) -> str:
        """Make tracebacks show the cell: magic line first, as the margin counts."""
        return str(self.shell.compile.cache(text, _cell_number(self.shell)))

    def _list(self, iterable: str, filename: str, flags: int) -> list[Any]:
        """Evaluate the iterable and list it, so that it can be interrupted at any moment."""
        code = compile(iterable, filename, "eval", flags=flags, dont_inherit=True)
        source = iter(eval(code, self.shell.user_global_ns, self.shell.user_ns))  # noqa: S307  (the user's own clause)
        items: list[Any] = []
        while part := list(islice(source, 10_000)):
            items += part
        return items

    def _extra_notes(self, run: Run, body: door.Body, plan: Plan) -> None:
        kinds = {timeline.arm.kind for timeline in run.timelines}
        if "procs" in kinds and body.shared:
            run.notes.append(f"{_listed(body.shared)}: what processes assign to a global name does not come back.")
        if "procs" in kinds and body.mutates:
            run.notes.append(f"{_listed(body.mutates)}: changed in the body; what processes change stays in them.")
        bound = body.writes - {"_"} - _target_names(plan)
        if run.error is None and bound and run.results and all(result is None for result in run.results):
            run.notes.append("Every result is None: put the name that you want back on the last line of the body.")

    def _hush(self, run: Run) -> None:
        """Let this cell's output hook show nothing; the run is ``_`` all the same."""
        hook, events = self.shell.displayhook, self.shell.events

        def speak_again(*_: Any) -> None:
            vars(hook).pop("quiet", None)
            events.unregister("post_run_cell", speak_again)

        hook.quiet = lambda: True
        hook.update_user_ns(run)
        events.register("post_run_cell", speak_again)

    def _fail(self, run: Run, body: door.Body, plan: Plan) -> NoReturn:
        """Show the report, then raise what ended the run."""
        error = run.error
        assert error is not None
        if isinstance(error, NameError):
            advice = door.unbound_help(error, body, _names(self.shell))
            if advice:
                error.add_note(advice)
        if not plan.quiet and run.timelines:
            from IPython.display import display  # noqa: PLC0415

            display(run)
        if not _prints_notes():
            for note in getattr(error, "__notes__", ()):
                print(note, file=sys.stderr)  # noqa: T201  (this IPython does not print notes)
        raise error


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


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)[:5])


def _prints_notes() -> bool:
    """Tell whether this IPython shows an exception's notes in its tracebacks."""
    import IPython  # noqa: PLC0415

    return bool(IPython.version_info >= (8, 15))


def load(shell: Any) -> None:
    """Register the magics and the displays."""
    shell.register_magics(ParallelMagics(shell=shell))
    _register(shell)


def unload(shell: Any) -> None:
    """Take the magics and the displays away."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("parallel", None)
    for mime in ("text/html", "text/plain"):
        shell.display_formatter.formatters[mime].type_printers.pop(Run, None)


def _register(shell: Any) -> None:
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type(Run, _html)
    formatters["text/plain"].for_type(Run, lambda run, printer, _cycle: printer.text(_text(run)))


def _html(run: Run) -> str:
    from parmagic.render import html  # noqa: PLC0415  (only when shown)

    return html.report(run)


def _text(run: Run) -> str:
    import shutil  # noqa: PLC0415

    from parmagic.render import text  # noqa: PLC0415  (only when shown)

    stream = sys.stdout
    width = shutil.get_terminal_size((80, 24)).columns
    return text.report(run, width=width, color=text.wants_color(stream), unicode=text.can_unicode(stream))

