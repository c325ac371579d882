"""The magic line becomes a Plan, or an error that points at the place."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from parmagic.errors import LineError
from parmagic.model.plan import Arm, Loop, Plan
from parmagic.parse import line
from parmagic.parse.line import available_cpus, parse, parse_models
from parmagic.system import cpus


def read(text: str, *, cell: bool = True, **options: Any) -> Plan:
    """Read a line on a machine with four CPUs."""
    return parse(text, cell=cell, cpus=lambda: 4, **options)


def refusal(text: str, *, cell: bool = True, **options: Any) -> LineError:
    """Return the error for a line."""
    with pytest.raises(LineError) as caught:
        read(text, cell=cell, **options)
    assert caught.value.line == text
    return caught.value


def labels(plan: Plan) -> list[str]:
    """Return the arms' labels in order."""
    return [arm.label for arm in plan.arms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["serial", "threads=4", "procs=4"]),
        ("-q for x in xs", ["serial", "threads=4", "procs=4"]),
        ("threads", ["threads=4"]),
        ("threads=auto", ["threads=4"]),
        ("processes=2", ["procs=2"]),
        ("procs=1,2,4 serial threads=3", ["procs=1", "procs=2", "procs=4", "serial", "threads=3"]),
        ("threads=1-3,8", ["threads=1", "threads=2", "threads=3", "threads=8"]),
        ("threads=2 threads=1", ["threads=2", "threads=1"]),
    ],
)
def test_models_and_counts_become_arms(text: str, expected: list[str]) -> None:
    """Arms come in the order written, with counts resolved; no model compares all three."""
    assert labels(read(text)) == expected


def test_cpus_are_counted_only_for_auto() -> None:
    """A line that says how many workers it wants does not ask the system."""

    def fail() -> int:
        raise AssertionError

    assert parse("threads=2 serial", cell=True, cpus=fail).arms == (Arm.named("threads", 2), Arm.named("serial"))


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("-o result", "name", "result"),
        ("-oresult", "name", "result"),
        ("-q", "quiet", True),
        ("--once", "once", True),
        ("--trace off", "trace", "off"),
        ("--trace=full", "trace", "full"),
        ("--timeout 1.5", "timeout", 1.5),
        ("--timeout=1e3", "timeout", 1000.0),
        ("--keep-going", "keep_going", True),
        ("--chunk 8", "chunk", 8),
        ("--start-method forkserver", "start_method", "forkserver"),
    ],
)
def test_options(text: str, field: str, value: object) -> None:
    """Each option fills its field, before and after a model, and nothing else of the plan."""
    plain = read("threads=2 for x in xs")
    for written in (f"{text} threads=2 for x in xs", f"threads=2 {text} for x in xs"):
        plan = read(written)
        assert getattr(plan, field) == value
        assert getattr(plain, field) != value
        assert (plan.arms, plan.loop) == (plain.arms, plain.loop)


@pytest.mark.parametrize(
    ("clause", "target", "iterable"),
    [
        ("for x in xs", "x", "xs"),
        ("for a,  b in  zip( x, y )", "a,  b", "zip( x, y )"),
        ("for(a, b) in[1]", "(a, b)", "[1]"),
        ("for x in {f'{y}' for y in ys}  # why", "x", "{f'{y}' for y in ys}"),
        ("for x in d['in'] ", "x", "d['in']"),
        ("for *a, b in xs", "*a, b", "xs"),
        ("for x in xs if x > 1", "x", "[x for x in xs if x > 1]"),
        ("for x in xs for y in x", "(x, y)", "[(x, y) for x in xs for y in x]"),
        (
            "for (b, (c, d)), a in xs for b in c",
            "(b, c, d, a)",
            "[(b, c, d, a) for (b, (c, d)), a in xs for b in c]",
        ),
        ("for x in xs if (m := f(x))  # c", "(x, m)", "[(x, m) for x in xs if (m := f(x))]"),
        ("for x in xs if (lambda: (m := 1))()", "x", "[x for x in xs if (lambda: (m := 1))()]"),
        ("for () in xs if y", "()", "[() for () in xs if y]"),
        ("for é in ñ", "é", "ñ"),
    ],
)
def test_clause_becomes_one_loop(clause: str, target: str, iterable: str) -> None:
    """A plain clause is kept as written; conditions and several `for` fold into a list of what they bind."""
    assert read(f"threads=2 {clause}").loop == Loop(target, iterable)


def test_folded_clause_means_what_the_comprehension_means() -> None:
    """The folded iterable, evaluated, gives every binding of the clause in order."""
    loop = read("for x in range(4) if x % 2 for y in 'ab' if (z := y * x)").loop
    assert loop is not None
    assert loop.target == "(x, y, z)"
    assert eval(loop.iterable, {}) == [(1, "a", "a"), (1, "b", "b"), (3, "a", "aaa"), (3, "b", "bbb")]


@pytest.mark.parametrize(
    ("text", "expression", "iterable"),
    [
        ("f(x) for x in xs", "f(x)", "xs"),
        ("threads=4 -q f( x,{1} ) for x in {1, 2}", "f( x,{1} )", "{1, 2}"),
        ("-- threads for x in xs", "threads", "xs"),
        ("threads -- -x for x in xs", "-x", "xs"),
        ("[a for a in x] for x in xs", "[a for a in x]", "xs"),
        ("'for' + x for x in xs", "'for' + x", "xs"),
        ("lambda: x for x in xs", "lambda: x", "xs"),
        ("{x} for x in xs", "{x}", "xs"),
        ("history[x] for x in xs", "history[x]", "xs"),
        ("x == 1 for x in xs", "x == 1", "xs"),
        ("x==1 for x in xs", "x==1", "xs"),
        ("(x, x) for x in xs", "(x, x)", "xs"),
    ],
)
def test_line_form_takes_an_expression(text: str, expression: str, iterable: str) -> None:
    """The first word that is no model and no option begins the expression, kept as written."""
    plan = read(text, cell=False)
    assert (plan.expression, plan.loop) == (expression, Loop("x", iterable))


def test_words_before_the_clause_are_expanded_and_nothing_after() -> None:
    """`expand` sees each word of the front, with spaces in braces, and none of the rest."""
    seen = []

    def expand(word: str) -> str:
        seen.append(word)
        return {"threads={n + 1}": "threads=3", "$opts": "-q --trace off", "$none": ""}.get(word, word)

    plan = read("threads={n + 1} $opts $none for x in {n} if '$opts'", expand=expand)
    assert seen == ["threads={n + 1}", "$opts", "$none"]
    assert (plan.arms, plan.quiet, plan.trace) == ((Arm.named("threads", 3),), True, "off")
    assert plan.loop == Loop("x", "[x for x in {n} if '$opts']")
    line_plan = read(
        "$opts {n}=3 {n} for x in xs", cell=False, expand=lambda w: {"$opts": "-q", "{n}=3": "procs=3"}[w]
    )
    assert (line_plan.expression, labels(line_plan)) == ("{n}", ["procs=3"])


def test_error_in_an_expanded_word_points_at_the_word_as_written() -> None:
    """The expansion does not stand in the line, so the caret stays at the word's start."""
    error = refusal("-q threads={n} for x in xs", expand=lambda word: word.replace("{n}", "many"))
    assert error.column == 3
    assert error.message.startswith("`many` is no count")


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("n_jobs=4", 0, "did you mean `threads=4` or `procs=4`?"),
        ("-q workers=4", 3, "did you mean `threads=4` or `procs=4`?"),
        ("n_jobs=-1", 0, "did you mean `threads=auto` or `procs=auto`?"),
        ("thread=4", 0, "did you mean `threads=4`?"),
        ("process=2", 0, "did you mean `procs=2`?"),
        ("proces=2", 0, "did you mean `procs=2`?"),
        ("-j4", 0, "did you mean `threads=4` or `procs=4`?"),
        ("-j 4", 0, "did you mean `threads=4` or `procs=4`?"),
        ("-n 4", 0, "did you mean `threads=4` or `procs=4`?"),
        ("--jobs=3", 0, "did you mean `threads=3` or `procs=3`?"),
        ("threads=-1", 8, "did you mean `threads=auto`?"),
        ("threads 4", 8, "did you mean `threads=4`?"),
        ("threads = 4", 8, "did you mean `threads=4`?"),
        ("4", 0, "did you mean `threads=4` or `procs=4`?"),
        ("threads=0", 8, "`0` is no count: expected 1 or more"),
        ("threads=abc", 8, "`abc` is no count: expected 1 or more"),
        ("threads=8-1", 8, "`8-1` counts backwards: did you mean `1-8`?"),
        ("threads=4,", 10, "a count is missing: expected 1 or more"),
        ("threads=", 8, "a count is missing"),
        ("threads=1-99999", 8, "at most 10000"),
        ("threads=2,2", 10, "`threads=2` is there twice: expected each arm once"),
        ("threads=auto,4", 13, "`threads=4` is there twice (`auto` is 4 here)"),
        ("procs=2 processes=2", 18, "`procs=2` is there twice"),
        ("serial serial", 7, "`serial` is there twice: expected each arm once"),
        ("serial=1", 6, "`serial` is one worker: expected `serial` without a count"),
        ("quick", 0, "`quick` is no model: expected a model (`serial`, `threads=4`, `procs=4`)"),
    ],
)
def test_model_that_cannot_be_read(text: str, column: int, words: str) -> None:
    """The caret stands under the wrong place, and the message says what was meant or expected."""
    error = refusal(text)
    assert error.column == column
    assert words in error.message


@pytest.mark.parametrize("word", ["auto", "history", "async", "interpreters", "dask", "dask=4"])
def test_reserved_models(word: str) -> None:
    """Names kept for later are refused as such, not as unknown."""
    name = word.partition("=")[0]
    error = refusal(f"threads {word} procs for x in xs")
    assert error.column == 8
    assert error.message == f"`{name}` is reserved for later: expected `serial`, `threads` or `procs`"


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("--tracee off", 0, "did you mean `--trace`?"),
        ("--keep_going", 0, "did you mean `--keep-going`?"),
        ("-x", 0, "there is no option `-x`: expected `-q`, `--once`"),
        ("--threads 4 for i in x", 0, "there is no option `--threads`; did you mean `threads=4`?"),
        ("--thread=4-8 for i in x", 0, "there is no option `--thread`; did you mean `threads=4-8`?"),
        ("--proc for i in x", 0, "there is no option `--proc`; did you mean `procs=auto`?"),
        ("--trac off for i in x", 0, "`--seed`; did you mean `--trace`?"),
        ("-h", 0, "run `%parallel?`"),
        (
            "--trace=ful",
            8,
            "`ful` does not suit `--trace`: expected `auto`, `full` or `off`; did you mean `full`?",
        ),
        ("--trace", 7, "`--trace` needs a value"),
        ("--chunk for x in xs", 8, "`--chunk` needs a value: expected a number of items, 1 or more"),
        ("--chunk 0", 8, "expected a number of items, 1 or more"),
        ("--chunk 1.5", 8, "expected a number of items, 1 or more"),
        ("--timeout 0", 10, "expected seconds, as a number above 0"),
        ("--timeout=inf", 10, "expected seconds"),
        ("--timeout nan", 10, "expected seconds"),
        ("--timeout 30s", 10, "expected seconds"),
        ("-o 2x", 3, "expected a name that Python allows"),
        ("-o class", 3, "expected a name that Python allows"),
        ("-oa.b", 2, "expected a name that Python allows"),
        ("--start-method forked", 15, "expected `fork`, `forkserver` or `spawn`"),
        ("--once=1", 6, "`--once` takes no value"),
        ("-q threads -q", 11, "`-q` is there twice"),
        ("--trace off --trace=off", 12, "`--trace` is there twice"),
    ],
)
def test_option_that_cannot_be_read(text: str, column: int, words: str) -> None:
    """Options say what values they take and which option is near."""
    error = refusal(text)
    assert error.column == column
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("for", 3, "the target is missing after `for`"),
        ("for in xs", 4, "the target is missing between `for` and `in`"),
        ("for x", 5, "`in` is missing after the target"),
        ("-q for x xs", 9, "`in` is missing after the target"),
        ("for x in", 8, "the iterable is missing after `in`"),
        ("for x in f(y", 10, "`(` is never closed"),
        ("for x in y)", 10, "this bracket closes nothing"),
        ("for x in y] + [1", 10, "this bracket closes nothing"),
        ("for x in 1, 2", 10, "expected brackets around it"),
        ("for x in 'ab", 9, "unterminated string literal"),
        ("for x in xs if", 14, "the clause cannot be read: invalid syntax"),
        ("-q for x in a b", 14, "the clause cannot be read: invalid syntax"),
        ("for x in $xs", 9, "the clause cannot be read: invalid syntax"),
        ("for a.b in xs", 0, "`a.b` cannot be a target"),
        ("for a, b[0] in xs", 0, "`b[0]` cannot be a target"),
        ("for *a in xs", 0, "starred assignment target must be in a list or tuple"),
        ("async for x in xs", 0, "`async for` cannot feed workers"),
        ("for x in xs async for y in x", 12, "`async for` cannot feed workers"),
        ("for x in (await y)", 0, "'await' outside"),
    ],
)
def test_clause_that_cannot_be_read(text: str, column: int, words: str) -> None:
    """What is missing is named; Python's own message is placed on the line otherwise."""
    error = refusal(text)
    assert words in error.message
    assert error.column == column


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "the expression is missing: expected `EXPRESSION for TARGET in ITERABLE`"),
        ("threads=2 ", 9, "the expression is missing"),
        ("-q for x in xs", 3, "the expression before `for` is missing"),
        (
            "f(x)",
            4,
            "the `for` is missing: expected `for TARGET in ITERABLE [if CONDITION]` after the expression",
        ),
        ("f(x for x in xs", 1, "`(` is never closed"),
        ("f(x)] for x in xs", 4, "this bracket closes nothing"),
        ("x, y for x, y in z", 0, "the expression cannot be read: did you forget parentheses"),
        ("thread f(x) for x in xs", 0, "did you mean `threads`?"),
        ("thread=3 f(x) for x in xs", 0, "did you mean `threads=3`?"),
        ("threads 4 f(x) for x in xs", 8, "did you mean `threads=4`?"),
        ("threads = 4 f(x) for x in xs", 8, "did you mean `threads=4`?"),
        ("4 f(x) for x in xs", 0, "did you mean `threads=4` or `procs=4`?"),
        ("-x for x in xs", 0, "an expression that begins with a minus goes after `--`"),
        ("history for x in xs", 0, "an expression that begins so goes after `--`"),
        ("f(x) async for x in xs", 5, "`async for` cannot feed workers"),
    ],
)
def test_line_form_that_cannot_be_read(text: str, column: int, words: str) -> None:
    """The line form needs an expression and a `for`; a misspelt model is not taken for an expression."""
    error = refusal(text, cell=False)
    assert words in error.message
    assert error.column == column


def test_caret_is_drawn_under_the_place() -> None:
    """The shown error has the line and the caret, as the user typed it."""
    assert str(refusal("-q  thread=4")).splitlines()[1:] == ["    -q  thread=4", "        ^"]


def test_parse_models_reads_models_and_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain Python gives the same plan; None leaves an option at its default."""
    monkeypatch.setattr(line, "available_cpus", lambda: 2)
    plan = parse_models(
        "threads procs=4",
        once=True,
        trace="off",
        timeout=3,
        chunk=2,
        start_method=None,
        name=None,
        quiet=True,
    )
    expected = parse("threads=2 procs=4 --once --trace off --timeout 3 --chunk 2 -q", cell=True)
    assert plan == expected
    assert labels(parse_models("")) == ["serial", "threads=2", "procs=2"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("thread=4", {}, "did you mean `threads=4`?"),
        ("for x in xs", {}, "`for` is no model"),
        ("threads --once", {}, "options are keyword arguments here"),
        ("threads=0", {}, "`0` is no count"),
        ("threads", {"tracing": "off"}, "did you mean `trace`?"),
        ("threads", {"trace": "of"}, "`of` does not suit `trace`: expected `auto`, `full` or `off`"),
        ("threads", {"trace": None, "timeout": -1}, "`-1` does not suit `timeout`"),
        ("threads", {"timeout": True}, "`True` does not suit `timeout`"),
        ("threads", {"chunk": 1.5}, "`1.5` does not suit `chunk`"),
        ("threads", {"once": "yes"}, "`yes` does not suit `once`: expected True or False"),
        ("threads", {"quiet": None}, "`None` does not suit `quiet`"),
        ("threads", {"name": 3}, "`3` does not suit `name`"),
        ("threads", {"start_method": ["fork"]}, "does not suit `start_method`"),
    ],
)
def test_parse_models_refuses_with_the_same_words(text: str, options: dict[str, Any], words: str) -> None:
    """Keyword options get the line's checks; the text holds models only."""
    with pytest.raises(LineError) as caught:
        parse_models(text, **options)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            float("inf"),
        ),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/x/cpu.max": "garbage\n"}, float("inf")),
    ],
)
def test_cgroup_quota(tmp_path: Any, files: dict[str, str], expected: float) -> None:
    """The tightest quota on the way up counts, in cgroups v2 and v1; unreadable files set none."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpus.quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [(float("inf"), 8), (2.5, 3), (0.1, 1), (64.0, 8)])
def test_available_cpus(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    """Affinity limited by the quota, rounded up, at least one."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(cpus, "quota", lambda root: quota)
    assert available_cpus() == expected


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without os.process_cpu_count, the scheduler's mask counts; without that, the machine's cores."""
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert cpus.affinity() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.affinity() == 1


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("for x in '\ud800'", "half of a surrogate pair", 10),
        ("for x in " + "f(" * 150 + "1" + ")" * 150 + " if \ud800", "half of a surrogate pair", 464),
        ("threads for x in x" + "[0]" * 4000, "nested too deeply", 8),
        ("for x in " + "-" * 100_000 + "1", "nested too deeply", 0),
        ("-j" + "9" * 5000, "did you mean `threads=auto`", 0),
        ("--chunk " + "9" * 5000, "a number of items, 1 or more", 8),
    ],
)
def test_what_python_itself_cannot_read(text: str, message: str, column: int) -> None:
    """Characters that are none, depths and lengths that Python refuses in ways of its own are errors of the line, at their place."""
    error = refusal(text)
    assert message in error.message
    assert error.column == column


def test_a_carriage_return_is_no_end_of_reading() -> None:
    """Python's tokenizer gives up behind one with an error that is no SyntaxError (since 3.12): the line is refused all the same."""
    assert 9 <= refusal("for x in \r\ufe5b").column <= 11


def test_a_long_range_is_read_at_once() -> None:
    """Each of ten thousand arms is looked for among the others without comparing it with each of them."""
    begin = time.thread_time()
    assert len(read("threads=1-10000 procs=1-10000").arms) == 20_000
    assert "`procs=1` is there twice" in refusal("procs=1-10000 procs=1").message
    assert time.thread_time() - begin < 2


def test_the_caret_stands_under_its_place_behind_a_tab() -> None:
    """What stands before the caret is as wide as what stands before the place."""
    *_, shown, caret = str(refusal("threads=2\t-q\tfoo")).split("\n")
    assert (shown, caret) == ("    threads=2\t-q\tfoo", "             \t  \t^")


@pytest.mark.parametrize(
    ("text", "column", "option"),
    [
        ("for i in range(3) --once", 18, "--once"),
        ("threads=2 for i in range(3) -q", 28, "-q"),
        ("for i in xs --keep-going", 12, "--keep-going"),
        ("for i in xs if i --trace off", 17, "--trace"),
        ("for i in xs --chunk=3", 12, "--chunk"),
        ("for i in xs --seed 3", 12, "--seed"),
    ],
)
def test_options_behind_the_clause(text: str, column: int, option: str) -> None:
    """Python may read them as an expression: they are refused, with the place and where they belong."""
    error = refusal(text, known={"xs", "i"}.__contains__)
    assert str(error).startswith(f"`{option}` stands behind the clause: options come before the `for`")
    assert error.column == column


@pytest.mark.parametrize(
    "text", ["for i in a --once", "for i in a -q", "for i in (a --seed)", "for i in a --b", "for i in a-q", "for i in a - q", "for i in [a --seed]"]
)
def test_expressions_that_look_like_options(text: str) -> None:
    """Names of the notebook are subtracted as ever, and what stands in brackets is Python's."""
    loop = read(text, known={"once", "q", "a"}.__contains__).loop
    assert loop is not None
    assert loop.iterable == text.removeprefix("for i in ")


@pytest.mark.parametrize(("text", "column"), [("for i in range(3):", 17), ("threads=2 for i in xs if i :  ", 27)])
def test_a_trailing_colon(text: str, column: int) -> None:
    """It is pointed at."""
    error = refusal(text)
    assert str(error).startswith("a colon cannot stand here: the clause ends without one")
    assert error.column == column
