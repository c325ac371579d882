"""``continue`` and ``break`` in a body mean what they mean in a loop, in every model and in the baseline."""

from __future__ import annotations

import pytest
from arms import MODELS, spread

BODIES = {
    "at the top": "if i == {at}: break\nif i % 3 == 1: continue\ni * 10",
    "in try and finally": "try:\n    if i == {at}: break\n    if i % 3 == 1: continue\nfinally:\n    note(i)\ni * 10",
    "in with": "with seen(i):\n    if i == {at}: break\n    if i % 3 == 1: continue\ni * 10",
    "beside loops of its own": (
        "for k in range(9):\n    if k < 5: continue\n    break\nwhile True:\n    break\n"
        "if i == {at}: break\nif i % 3 == 1: continue\ni * 2 * k"
    ),
    "in the else of a loop of its own": (
        "for k in []: break\nelse:\n    if i == {at}: break\n    if i % 3 == 1: continue\ni * 10"
    ),
    "in match and except": (
        "try:\n    1 / (i - {at})\nexcept ZeroDivisionError:\n    break\nmatch i % 3:\n    case 1: continue\ni * 10"
    ),
    "beside functions and classes": (
        "def f():\n    for _ in 'ab': break\n    return 10\nclass C:\n    for _ in 'ab': continue\nif i == {at}: break\nif i % 3 == 1: continue\ni * f()"
    ),
    "worker is a name of its own": "worker = 10\nif i == {at}: break\nif i % 3 == 1: continue\ni * worker",
}
CASES = [*((7, body) for body in BODIES), (0, "at the top"), (19, "at the top")]  # how a body is read has nothing to do with which item it is
HELP = """
import contextlib
@contextlib.contextmanager
def seen(i):
    yield
def note(i): pass
"""


@pytest.mark.parametrize(("model", "case"), spread(MODELS, CASES, (7, "in with"), (0, "at the top"), (19, "at the top")), ids=str)
def test_a_loop_that_breaks(ip, model, case):
    """What ran has the loop's results, what did not says which item broke it, and that is no error."""
    ip(HELP)
    at, body = case
    chunk = "" if at else "--chunk 3"
    run = ip(f"%%parallel {model} -q --once {chunk} for i in range(20)\n{BODIES[body].format(at=at)}")
    (arm,) = run._study.timelines
    expected = [None if i == at or i % 3 == 1 else i * 10 for i in range(20)]
    ran = arm.items_run
    assert at in ran
    assert run.results == [expected[i] if i in ran else None for i in range(20)]
    assert run.error is None
    assert arm.broke == at
    assert run.items["error"].tolist() == [None if i in ran else f"not started: item {at} broke the loop" for i in range(20)]
    assert f"{arm.arm.label}: item {at} broke the loop; {20 - len(ran)} of 20 items were not started." in run.notes
    if model == "serial":
        assert ran == set(range(at + 1))


@pytest.mark.parametrize("model", MODELS)
def test_what_runs_ends(ip, model):
    """Who is within an item when another breaks the loop comes to its end, with its result; nobody begins another."""
    run = ip(f"%%parallel {model} -q --once for i in range(50)\nimport time\nif i == 3: break\ntime.sleep(0.02)\ni")
    ran = run._study.timelines[0].items_run
    assert ran <= set(range(6))
    assert [run.results[i] for i in ran] == [None if i == 3 else i for i in ran]


@pytest.mark.parametrize("model", MODELS)
def test_failures_and_a_break(ip, model):
    """With --keep-going items that failed before the break keep their errors; a break is none."""
    run = ip(f"%%parallel {model} -q --once --keep-going --chunk 6 for i in range(9)\nif i == 5: break\n1 / (i - 2)")
    assert run.error is None
    assert list(run._study.timelines[0].errors) == [2]
    assert run.results[:2] == [-0.5, -1.0]


@pytest.mark.parametrize("model", MODELS)
def test_an_error_in_a_body_that_may_break(ip, model):
    """Its traceback begins in the cell: none of our frames is there."""
    error = ip.fails(f"%%parallel {model} -q --once --chunk 9 for i in range(9)\nif i == 5: break\n1 / (i - 2)")
    trace = error.__traceback__
    while trace.tb_frame.f_code.co_name != "fail":
        trace = trace.tb_next
    assert trace.tb_next.tb_frame.f_code.co_name == "<cell>"


def test_baseline_breaks_by_itself(ip):
    """The baseline is measured to its own break, and only items that both ran are compared; the speedup is rough."""
    run = ip("%%parallel threads=2 procs=2 for i in range(200)\nimport time\ntime.sleep(0.002)\nif i == 20: break\n(i, worker.rank < 2)")
    assert run.summary["baseline"].tolist() == ["measured", "measured"]
    assert run.summary["serial_s"].nunique() == 1
    assert run.summary["serial_s"].between(21 * 0.002, 150 * 0.002).all()
    assert not any("disagree" in note for note in run.notes)
    assert "~" in run.verdict
    assert any(f"+ {21} times" in note for note in run.notes)


def test_arms_break_by_themselves(ip):
    """Each arm of a line begins the loop anew; the serial one is the baseline of all."""
    run = ip("%%parallel serial threads=3 for i in range(100)\nif i == 40: break\ni")
    assert [arm.broke for arm in run._study.timelines] == [40, 40]
    assert run.arm("serial").results[:42] == [*range(40), None, None]
    assert run.summary["baseline"].tolist() == ["measured", "measured"]


def test_only_one_of_both_breaks(ip):
    """Where the arm breaks and the serial run does not, or the other way round, the speedup is estimated."""
    run = ip("%%parallel serial threads=2 for i in range(30)\nif worker.model == 'threads' and i == 9: break\ni")
    assert [arm.broke is None for arm in run._study.timelines] == [True, False]
    assert run.summary["baseline"].tolist() == ["measured", "estimated"]
    assert any("serial arm did not break the loop" in note for note in run.notes)
    run = ip("%%parallel threads=2 for i in range(30)\nif worker.count == 1 and i == 9: break\ni")
    assert run.summary["baseline"].tolist() == ["estimated"]
    assert any("broke the loop, at item 9, and the arm did not" in note for note in run.notes)


@pytest.mark.parametrize("word", ["break", "continue"])
def test_a_body_without_a_loop(ip, word):
    """An SPMD body is in no loop: Python's own error, at the line of the cell."""
    error = ip.fails(f"%%parallel threads=2 -q --once\nx = 1\n{word}")
    assert isinstance(error, SyntaxError)
    assert (error.lineno, error.text.strip()) == (3, word)


def test_a_return_is_refused_as_ever(ip):
    """Only what a loop knows is understood: ``return`` at the top is refused, and in a function it is a return."""
    assert "`return` cannot stand" in str(ip.fails("%%parallel threads=2 -q --once for i in range(3)\nif i: break\nreturn 3"))


def test_who_breaks_wants_no_results(ip):
    """A search that prints what it has found is told nothing of results that are all None; any other body is."""
    hint = "Every result is None"
    assert not any(hint in note for note in ip("%%parallel threads=2 -q --once for i in range(5)\nfound = i\nif found == 3: break").notes)
    assert any(hint in note for note in ip("%%parallel threads=2 -q --once for i in range(5)\nfound = i").notes)
