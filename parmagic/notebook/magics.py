"""What IPython knows of us: the magics, their settings, and how a run is shown.

Loading the extension loads this module only; what runs a cell comes with the
first cell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core import completer
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Int, Unicode

if TYPE_CHECKING:
    from parmagic.result import Run, Trace

_RUN, _TRACE = ("parmagic.result", "Run"), ("parmagic.result", "Trace")


@magics_class
class ParallelMagics(Magics):  # type: ignore[misc]
    """``%%parallel`` and ``%parallel``, and their settings (``%config ParallelMagics``)."""

    baseline = Bool(True, help="Run a serial baseline after the arms.").tag(config=True)
    show_items = Bool(False, help="Let files show text from items, results and errors, which may be private.").tag(config=True)
    trace = Enum(("auto", "full", "off"), "auto", help="The default of --trace: auto, full or off.").tag(config=True)
    folder = Unicode("", help="Where runs keep their files; .parmagic in the working directory by default.").tag(config=True)
    keep_runs = Int(20, help="How many runs' files are kept.").tag(config=True)
    keep_bytes = Int(1_000_000_000, help="How many bytes they may have together; the newest run's are always kept.").tag(config=True)

    @no_var_expand  # type: ignore[untyped-decorator]
    @line_cell_magic  # type: ignore[untyped-decorator]
    def parallel(self, line: str, cell: str | None = None) -> Run:
        """Run a cell, or an expression, under threads or processes and see where every second went.

        Examples::

            %%parallel threads=4 procs=4 for path in paths
            import hashlib
            hashlib.sha256(path.read_bytes()).hexdigest()

            %parallel procs=2 -o squares n * n for n in range(1000)

            %%parallel threads=1,2,4 --once
            sum(range(worker.rank, 10_000_000, worker.count))

        The run is ``_``; with ``-o run``, look at ``run.results``, ``run.summary``, ``run.timeline.show()``.
        The tab key completes the whole line.

        ::

            %%parallel [MODEL[=COUNTS]]... [OPTIONS] [for TARGET in ITERABLE [if CONDITION]]
            %parallel  [MODEL[=COUNTS]]... [OPTIONS] [--] EXPRESSION for TARGET in ITERABLE [if CONDITION]

        MODEL is serial, threads or procs; COUNTS is 4, or 1,2,4, or 1-8, or auto
        (the CPUs that this process may use). Without a model: serial threads procs.

        Options:
          -o NAME               store the run under NAME (it is also ``_``)
          -q                    hide report and progress; the run is still returned
          --once                run no serial baseline
          --trace auto|full|off functions in the timeline: within 5 % cost, all, none
          --timeout SECONDS     end the arms after that long, together
          --item-timeout S      end a try of an item after that long
          --retry N             try an item again that failed, up to N times
          --keep-going          go on after a failed item, and raise nothing
          --chunk N             hand out N items at a time
          --start-method fork|forkserver|spawn
          --seed N              the same numbers from ``worker.rng`` in every run

        With ``for``, the body runs once per item, each item on whichever worker is
        free, and the value of its last expression is the item's result. Without
        ``for``, every worker runs the body once, all starting together; ``worker.rank``
        and ``worker.count`` tell them apart. With ``for``, ``continue`` and ``break``
        are as in a loop; ``worker.item`` is the item's number, ``worker.rng`` its own
        random generator, and ``worker.once(make)`` what this worker has made for all
        of its items. Names that the body binds are private to each item; names that
        it only reads come from the notebook.
        """
        __tracebackhide__ = True  # IPython leaves such frames out: the user's come first
        cell_runner = _apart(_load)
        settings = cell_runner.Settings(self.baseline, self.show_items, self.trace, self.folder, self.keep_runs, self.keep_bytes)
        return cell_runner.run_cell(self.shell, line, cell, settings)  # type: ignore[no-any-return]


def _apart(call: Callable[..., Any], *args: Any) -> Any:
    """Call, with no debugger in this thread meanwhile, which makes an import take ten times as long: what loads is no cell's."""
    __tracebackhide__ = True
    from parmagic.system.unwatched import unwatched  # noqa: PLC0415  (loads with the first cell)

    return unwatched(call, *args)


def _load() -> Any:
    from parmagic.notebook import cell  # noqa: PLC0415  (loads with the first cell)

    return cell


def load(shell: Any) -> None:
    """Register the magics, the displays, and a look at what a cell has imported."""
    shell.register_magics(ParallelMagics(shell=shell))
    _register(shell)
    _complete(shell)
    shell.events.register("post_run_cell", _cell_has_ended)


def unload(shell: Any) -> None:
    """Take all of that away."""
    shell.events.unregister("post_run_cell", _cell_has_ended)
    if "parmagic.notebook.syntax" in sys.modules:
        from parmagic.model import cells  # noqa: PLC0415  (loads with the first cell)
        from parmagic.notebook import syntax  # noqa: PLC0415  (loads with the first cell)

        cells.ask(dict)
        syntax.end(shell)
    _complete_no_more(shell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("parallel", None)
    for mime in ("text/html", "text/plain"):
        for shown in (_RUN, _TRACE):
            shell.display_formatter.formatters[mime].pop(".".join(shown), None)


def _complete(shell: Any) -> None:
    """Have the tab key know the magic line, and offer nothing else where it has something to offer."""

    def parallel_matches(line: str) -> list[str]:
        before = shell.Completer.text_until_cursor
        start, words = _found(shell, line, len(before))
        lead = shell.Completer.splitter.split_line(before).removesuffix(before[start:])  # IPython's word may begin before ours
        return [lead + word for word in words]

    def parallel_matcher(context: Any) -> dict[str, Any]:
        start, words = _found(shell, context.line_with_cursor, context.cursor_position)
        found = [completer.SimpleCompletion(word) for word in words]
        return {"completions": found, "matched_fragment": context.text_until_cursor[start:], "suppress": True, "ordered": True}

    second = getattr(completer, "context_matcher", None)  # the matchers' second interface, from IPython 8.6 on
    shell.Completer.magic_arg_matchers.append(second()(parallel_matcher) if second else parallel_matches)


def _complete_no_more(shell: Any) -> None:
    matchers = shell.Completer.magic_arg_matchers
    matchers[:] = [each for each in matchers if each.__module__ != __name__]


def _found(shell: Any, line: str, cursor: int) -> tuple[int, list[str]]:
    if "%parallel" not in line:
        return cursor, []
    from parmagic.notebook import completion  # noqa: PLC0415  (loads with the first tab key in a line of ours)

    return completion.found(shell, line, cursor)


def _cell_has_ended(_: Any) -> None:
    """After a cell: where there is a server for processes, let it import what the notebook has imported."""
    from parmagic.system.between import cell_has_ended  # noqa: PLC0415  (loads after the first cell)

    cell_has_ended(vars(sys.modules["__main__"]))


def _register(shell: Any) -> None:
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type_by_name(*_RUN, lambda run: _shown(_html, run))
    formatters["text/html"].for_type_by_name(*_TRACE, lambda trace: _shown(_html_of_timeline, trace))
    formatters["text/plain"].for_type_by_name(*_RUN, lambda run, printer, _cycle: printer.text(_shown(_text, run)))


def _shown(make: Callable[[Any], str], what: Any) -> str:
    """Return what is shown of a run; an interrupt on the way there says so, without the frames of pandas, which take IPython a second."""
    try:
        return str(_apart(make, what))
    except KeyboardInterrupt:
        from parmagic.notebook.failures import without_traceback  # noqa: PLC0415  (loads with the first cell)

        raise without_traceback(KeyboardInterrupt("the report was interrupted; parmagic.last() is the run")) from None


def _html(run: Run) -> str:
    from parmagic.execute.task import own_stream  # noqa: PLC0415  (only when shown)
    from parmagic.render import html, serve  # noqa: PLC0415  (only when shown)
    from parmagic.result import study  # noqa: PLC0415  (as above)

    in_a_kernel = type(own_stream("stdout")).__module__.startswith("ipykernel")
    known = study(run)
    return html.report(known, serve.link(known) if in_a_kernel and not serve.is_remote() else "")


def _html_of_timeline(trace: Trace) -> str:
    from parmagic.render import html  # noqa: PLC0415  (only when shown)
    from parmagic.result import study  # noqa: PLC0415  (as above)

    return html.timeline(study(trace))


def _text(run: Run) -> str:
    from parmagic.render import text  # noqa: PLC0415  (only when shown)
    from parmagic.result import study  # noqa: PLC0415  (as above)

    return text.on_screen(study(run), color=True)
