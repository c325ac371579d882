"""Models are told by their traits: nothing outside the registry knows one by name, and another one needs nothing but to be registered."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from strikes import strikes
from toy_model import TOY, ToyWorkers, registered

import parmagic
from parmagic.errors import LineError
from parmagic.model import traits
from parmagic.model.plan import Arm
from parmagic.parse.line import parse, parse_models
from parmagic.result import from_plain, to_plain
from parmagic.workers import registry

HOUSE = Path(parmagic.__file__).parent
REGISTRY = {HOUSE / "model" / "traits.py", HOUSE / "workers" / "registry.py"}
WORDS = set(traits.by_word())
VALUES = {"SERIAL", "THREADS", "PROCS", "COMPARED"}


def _names_a_model(node: ast.expr) -> bool:
    """Tell whether an expression is a model's name, or the model itself, or has one of these among others."""
    if isinstance(node, ast.Constant):
        return node.value in WORDS
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(_names_a_model, node.elts))
    if isinstance(node, ast.Dict):
        return any(_names_a_model(each) for each in [*node.keys, *node.values] if each is not None)
    if isinstance(node, ast.Attribute):
        return node.attr in VALUES or (node.attr == "name" and _names_a_model(node.value))
    return isinstance(node, ast.Name) and node.id in VALUES


def _comparisons(tree: ast.AST) -> Iterator[int]:
    """Yield the lines at which a model is compared, matched, looked up or listed by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found = any(map(_names_a_model, [node.left, *node.comparators]))
        elif isinstance(node, ast.MatchValue):
            found = _names_a_model(node.value)
        elif isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
            found = _names_a_model(node)
        elif isinstance(node, ast.Subscript):
            found = _names_a_model(node.slice)
        else:
            continue
        if found:
            yield node.lineno


@pytest.mark.parametrize("path", sorted({*HOUSE.rglob("*.py")} - REGISTRY), ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_model_is_told_by_its_name(path):
    """Outside the registry no model's name is compared, matched, looked up or listed."""
    assert list(_comparisons(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        'arm.model.name == "threads"', '"procs" in kinds', 'kind in ("serial", "procs")', 'summary["model"] != "serial"', "arm.model is SERIAL",
        "name == traits.PROCS.name", '{"threads": 1}', 'makers["procs"]', 'match kind:\n    case "processes":\n        pass',
    ],
)  # fmt: skip
def test_a_comparison_is_seen(code):
    """What the test above looks for, it finds."""
    assert list(_comparisons(ast.parse(code)))


@pytest.fixture
def toy() -> Iterator[None]:
    """Register the toy model for a test."""
    with registered():
        yield


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("line", ["toy=2", "toys=2 --trace off", "serial toy=2", "toy=2 threads=2 procs=2"])
def test_a_toy_model_runs(ip, line):
    """From a magic line to results and tables, alone and beside others: its workers' states tile the wall time, and all items are there."""
    run = ip(f"%%parallel {line} --once for x in range(50)\nx * x, worker.model")
    assert [value for value, _ in run.results] == [x * x for x in range(50)]
    assert run.arm("toy=2").results == [(x * x, "toy") for x in range(50)]
    row = run.summary.loc["toy=2"]
    assert (row["model"], row["n_workers"], row["n_items"]) == ("toy", 2, 50)
    assert row["cpu_s"] > 0
    workers = run.workers.loc[["toy=2"]]
    states = [column for column in run.workers if column.endswith("_s") and column not in {"wall_s", "cpu_s"}]
    assert workers[states].sum(axis=1).tolist() == pytest.approx(workers["wall_s"].tolist())
    assert workers["n_items"].sum() == len(run.items.loc["toy=2"]) == 50
    assert run.items.loc["toy=2", "error"].isna().all()


@pytest.mark.usefixtures("toy")
def test_a_toy_model_waits_and_is_reported(ip, tmp_path):
    """A lock that two toys wait for is in the table, with its name; reports in text and HTML, the saved page and the trace know the arm."""
    ip("import threading, time\nguard = threading.Lock()")
    run = ip("%%parallel toy=2 --once --trace off for x in range(4)\nwith guard:\n    time.sleep(0.05)\nx")
    if run.workers["measured"].all():
        assert run.waits.xs("toy=2")["object"].eq("guard").any()
        assert "waiting for the lock `guard`" in run.verdict
    assert "toy=2" in repr(run)
    assert "toy=2" in ip.shell.display_formatter.format(run)[0]["text/html"]
    assert "toy=2" in Path(run.save(tmp_path / "run.html")).read_text()
    events = json.loads(Path(run.timeline.save(tmp_path / "run.json")).read_text())["traceEvents"]
    who = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {f"worker {rank} · toy {tid}" for (_, rank), tid in run.workers["tid"].items()} <= who


@pytest.mark.usefixtures("toy")
def test_a_toy_model_is_interrupted(ip):
    """Ctrl-C ends it with the items that are under way; what was done is told, and the next run is right."""
    ip("import os, signal, time")
    body = "if x == 3:\n    os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.02)\nx"
    assert type(ip.fails(f"%%parallel toy=2 --once --chunk 1 for x in range(1000)\n{body}")) is KeyboardInterrupt
    run = parmagic.last()
    assert 0 < run.workers["n_items"].sum() < 1000
    assert "KeyboardInterrupt" in run.verdict
    assert ip("%%parallel toy=2 --once for x in range(9)\nx").results == list(range(9))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("toy")
def test_a_toy_model_is_struck_everywhere():
    """Ctrl-C at the begin of any function on its way ends the run, and leaves no thread and no hooks."""
    found = list(strikes(lambda: parmagic.run(abs, [1, 2], "toy=2", once=True, timeout=20)))
    assert len(found) > 100
    assert [each for each in found if each[2]] == []


@pytest.mark.usefixtures("toy")
def test_a_toy_model_fails(ip):
    """What its item raises reaches the notebook with a note on the item; with --keep-going all others are run."""
    error = ip.fails("%%parallel toy=2 --once for x in range(1, 9)\n1 / (x - 4)")
    assert type(error) is ZeroDivisionError
    assert error.__notes__[0].startswith("in item 3 (4), worker ")
    assert error.__notes__[0].endswith(", toy=2")
    run = ip("%%parallel toy=2 --once --keep-going for x in range(1, 9)\n1 / (x - 4)")
    assert run.items["error"].notna().tolist() == [x == 4 for x in range(1, 9)]


@pytest.mark.usefixtures("toy")
def test_traits_decide(ip):
    """SPMD gives each worker its rank; arms in the notebook's memory are counted; a baseline is measured apart from them."""
    assert ip("%%parallel toy=3 --once\nworker.rank, worker.count").results == [(rank, 3) for rank in range(3)]
    run = ip("%%parallel toy=1,2 for x in range(20)\nsum(range(20_000))")
    assert "The body ran in the notebook's memory 2 times, once per toy arm." in run.notes
    assert set(run.summary["baseline"]) == {"measured"}


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Register a toy whose workers say that they share no memory with the notebook, and are no processes of ours."""
    model = replace(TOY, shares_memory=False, own_process=False)
    registry.register(model, lambda _: ToyWorkers())
    yield
    registry.unregister(model)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("made", "why", "kind"),
    [
        ("thing = (n for n in range(9))", "The body reads 'thing' (a generator), which cannot be sent to a process: ", "NotShippable"),
        (
            "import multiprocessing\nthing = multiprocessing.get_context('fork').Lock()",
            "The body reads a multiprocessing primitive of the fork context, which only forked workers can have.", "ForkOnly",
        ),
    ],
)  # fmt: skip
def test_a_body_that_no_isolated_worker_can_have(ip, made, why, kind):
    """Where workers are no processes, a body that cannot be shipped costs the baseline, and not the run; a file has no name of it."""
    ip(made)
    run = ip("%%parallel toy=2 for x in range(4)\nx, str(thing)[:0]")
    assert run.results == [(x, "") for x in range(4)]
    assert set(run.summary["baseline"]) == {"estimated"}
    begin = "The speedup is estimated: there is no serial baseline. "
    assert [note for note in run.notes if note.startswith(begin + why)]
    assert f"{begin}The body cannot be shipped to a process ({kind})." in run._study.saved.notes


@pytest.mark.usefixtures("toy")
def test_the_line_knows_it():
    """It is expected where models are, hinted at where it is meant, and compared where it is asked for alone."""
    assert parse_models("toys=2").arms == (Arm.named("toy", 2),)
    assert [arm.label for arm in parse("", cell=True, cpus=lambda: 2).arms] == ["serial", "threads=2", "procs=2"]
    for line, hint in (("plaything=3", "did you mean `toy=3`?"), ("dask", "`serial`, `threads`, `procs` or `toy`"), ("x", "`procs=4`, `toy=4`)")):
        with pytest.raises(LineError) as refused:
            parse(line, cell=True)
        assert hint in str(refused.value)


def test_unregistered_it_leaves_nothing(ip):
    """Afterwards a line refuses it as any other word, and what was run before can still be looked at, and written down."""
    before = traits.known(), dict(registry._makers)
    with pytest.raises(LineError) as refused:
        parse("toy=2", cell=True)
    with registered():
        run = ip("%%parallel toy=2 -q --once for x in range(4)\nx")
    assert (traits.known(), registry._makers) == before
    with pytest.raises(LineError) as again:
        parse("toy=2", cell=True)
    assert str(again.value) == str(refused.value)
    for told in (run, from_plain(json.loads(json.dumps(to_plain(run))))):
        assert told.summary["model"].tolist() == ["toy"]
        assert "toy=2" in repr(told)
    with pytest.raises(KeyError, match="there is no model 'toy': there are serial, threads, procs"):
        Arm.named("toy", 2)


@pytest.mark.parametrize("words", [{"name": "threads"}, {"name": "processes"}, {"also": ("procs",)}, {"name": "two words"}, {"also": ("-q",)}, {"also": ("for",)}])
def test_a_word_stands_for_one_model(words):
    """A word that is another model's, no name or a keyword is refused, and nothing is registered."""
    before = traits.known(), dict(registry._makers)
    with pytest.raises(ValueError, match=r"already|expected a name"):
        registry.register(replace(TOY, **words), lambda _: ToyWorkers())
    assert (traits.known(), registry._makers) == before
