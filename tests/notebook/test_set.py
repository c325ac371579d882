"""In a real Jupyter kernel: what cells have set, cells with a magic have in their workers, cell after cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import kernels
import pytest


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[str], str]]:
    """Return a function that runs a cell in one real kernel, and returns what it printed; a failing one fails."""
    with kernels.kernel(allow_errors=False) as run_in:

        def run(source: str) -> str:
            shown = groupby((output for output in run_in(source) if output.output_type == "stream"), key=lambda output: output.name)
            whole = [(name, "".join(each.text for each in parts)) for name, parts in shown]  # a kernel may send one print in two
            return "".join(f"{name}: {line}\n" for name, text in whole for line in text.splitlines())

        run("%config ParallelMagics.baseline = False\nimport warnings\nwarnings.simplefilter('default')")
        yield run


LINES = ["threads=2", "procs=2", "procs=2 --start-method spawn", "serial"]


def _of(kernel: Callable[[str], str], line: str, expression: str, more: str = "") -> Any:
    """Return what two workers find that evaluate the expression, where they find the same."""
    text = kernel(f"%parallel {line} -q --trace off -o found {expression} for n in range(4)\nprint((found.results, [n for n in found.notes if {more or 'False'}]))")
    results, notes = eval(next(each for each in text.splitlines() if each.startswith("stdout: (["))[8:])
    assert len(set(map(repr, results))) == 1
    return (results[0], notes) if more else results[0]


@pytest.mark.parametrize("line", LINES)
class TestSet:
    """What one cell sets, the next one's workers have; and what is set back, they have back."""

    def test_context_variables_of_cells(self, kernel, line):
        """A variable of a cell's holds in workers what it holds in the notebook, and what a worker sets stays there."""
        kernel("import contextvars\nuser = contextvars.ContextVar('user', default='nobody')\ndef who(): return user.get()")
        assert _of(kernel, line, "who()") == "nobody"
        kernel("token = user.set('Ada')")
        assert _of(kernel, line, "who()") == "Ada"
        kernel(f"%parallel {line} -q --trace off user.set('a worker') and None for n in range(4)")
        assert kernel("print(who())") == "stdout: Ada\n"
        kernel("user.reset(token)")
        assert _of(kernel, line, "who()") == "nobody"

    def test_numbers(self, kernel, line):
        """Errors and digits of NumPy's and decimal's, in whichever cell they were set."""
        kernel("import decimal\nimport numpy as np\nold = np.seterr(all='raise')\ndecimal.getcontext().prec = 5\nnp.set_printoptions(precision=3)")
        expression = "(np.geterr()['over'], str(decimal.Decimal(1) / 3), str(np.array([1 / 3])))"
        assert _of(kernel, line, expression) == ("raise", "0.33333", "[0.333]")
        assert kernel("print(decimal.getcontext().prec)") == "stdout: 5\n"
        kernel("np.seterr(**old)\ndecimal.getcontext().prec = 28\nnp.set_printoptions(precision=8)")
        assert _of(kernel, line, expression) == ("warn", "0.3333333333333333333333333333", "[0.33333333]")

    def test_filters_and_tables(self, kernel, line):
        """A warning of a class of the notebook's is an error where the notebook says so; frames are shown as they are there."""
        kernel("class Mine(UserWarning): pass\nimport pandas as pd\ndef warns():\n    try: warnings.warn('x', Mine)\n    except Mine: return 'raised'")
        kernel("with warnings.catch_warnings():\n    warnings.simplefilter('error', Mine)\n    here = %parallel " + line + " -q --trace off warns() for n in range(2)\nprint(here.results)")
        assert _of(kernel, line, "warns()") is None
        kernel("warnings.simplefilter('error', Mine)\npd.set_option('display.max_rows', 6)")
        assert _of(kernel, line, "(warns(), len(str(pd.Series(range(100))).splitlines()))") == ("raised", 8)
        kernel("warnings.simplefilter('default', Mine)\npd.reset_option('display.max_rows')")
        assert _of(kernel, line, "(warns(), len(str(pd.Series(range(100))).splitlines()))") == (None, 12)


@pytest.mark.parametrize("line", LINES[1:3])
def test_logs(kernel, line, tmp_path):
    """A file of the notebook's has every line, and what goes to the cell goes there, marked."""
    kernel(
        f"import logging\nlog = logging.getLogger('of.cells')\nlog.setLevel('INFO')\nlog.addHandler(logging.FileHandler({str(tmp_path / 'log')!r}))\n"
        "log.addHandler(logging.StreamHandler())\nlog.handlers[1].setFormatter(logging.Formatter('%(levelname)s %(message)s'))"
    )
    shown = kernel(f"%%parallel {line} -q --trace off for n in range(4)\nlog.info('item %d', n), log.debug('nobody hears it')")
    kernel("for each in [*log.handlers]: log.removeHandler(each); each.close()")
    assert sorted((tmp_path / "log").read_text().splitlines()) == [f"item {n}" for n in range(4)]
    assert sorted(text.partition("] ")[2] for text in shown.splitlines()) == [f"INFO item {n}" for n in range(4)]


def test_pyplot_in_threads(kernel):
    """Under the inline backend, too."""
    pytest.importorskip("matplotlib")
    kernel("import matplotlib.pyplot as plt\nfrom matplotlib.figure import Figure")
    more = "'pyplot was used' in n"
    assert len(_of(kernel, "threads=2", "plt.close(plt.figure())", more)[1]) == 1
    assert _of(kernel, "procs=2", "plt.close(plt.figure())", more)[1] == []
    assert _of(kernel, "threads=2", "Figure().subplots() and None", more)[1] == []
