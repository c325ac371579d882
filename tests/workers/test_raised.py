"""Exceptions that come home from processes: equal in their fields, notes, tracebacks, causes, contexts and groups."""

from __future__ import annotations

import copyreg
import json
import pickle
import sqlite3
import subprocess
import traceback
import urllib.error
from contextlib import closing

import numpy as np
import pytest

import parmagic
from parmagic.workers.processes import home
from parmagic.workers.processes.portable import portable


class Slotted(Exception):
    """Has a field beside its ``__dict__``, and one that is never set."""

    __slots__ = ("__private", "never", "place")

    def __init__(self, place, *, private=None):
        super().__init__(f"at {place}")
        self.place, self.__private = place, private

    def private(self):
        """Return the hidden field."""
        return self.__private


class Demanding(OSError):
    """Needs two arguments, and passes on another one."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class Reduced(ValueError):
    """Is pickled in its own way."""

    def __init__(self, one, two):
        super().__init__("made of two")
        self.pair = one, two

    def __reduce__(self):
        """Be made anew, with one attribute more."""
        return Reduced, self.pair, {"more": 3}


class Refusing(Exception):
    """Has a ``__new__`` of its own, which a bare one must do without."""

    def __new__(cls, one, two):
        """Need two arguments."""
        return super().__new__(cls, one, two)


class Registered(Exception):
    """Is pickled by a function that was registered for it."""


copyreg.pickle(Registered, lambda error: (Registered, ("registered", *error.args)))


def _raised(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def _exits(code):
    raise SystemExit(code)


def _queries(text):
    with closing(sqlite3.connect(":memory:")) as data:
        data.execute(text)


RAISED = {
    "UnicodeDecodeError": lambda: b"a\xff".decode("ascii"),
    "UnicodeEncodeError": lambda: "aü".encode("ascii"),
    "SyntaxError": lambda: compile("1 +", "cell.py", "exec"),
    "IndentationError": lambda: compile(" 1\n  2", "cell.py", "exec"),
    "SystemExit": lambda: _exits(3),
    "SystemExit with an object": lambda: _exits([1]),
    "AttributeError": lambda: (3).nothing,
    "NameError": lambda: nothing_at_all,  # noqa: F821
    "ImportError": lambda: __import__("no_such_module"),
    "KeyError": lambda: {}["k"],
    "FileNotFoundError": lambda: open("/no/such/file"),  # noqa: SIM115, PTH123
    "of two files": lambda: __import__("os").rename("/no/such/file", "/another"),
    "JSONDecodeError": lambda: json.loads("{"),
    "CalledProcessError": lambda: subprocess.run(["false"], check=True),
    "sqlite3": lambda: _queries("no sql"),
    "HTTPError": lambda: (_ for _ in ()).throw(urllib.error.URLError("no route")),
    "NumPy's": lambda: np.zeros((2, 3)).sum(axis=5),
    "LinAlgError": lambda: np.linalg.inv(np.zeros((2, 2))),
}


def _fields(error):
    names = set(dir(error)) - {"__traceback__", "__cause__", "__context__", "obj", "with_traceback", "add_note", "characters_written"}
    return {name: getattr(error, name) for name in names if not name.startswith("__") and not callable(getattr(error, name))}


def _home(error):
    sent = portable(error)
    return home.unpack(home.pack(sent))


@pytest.mark.parametrize("name", RAISED)
def test_what_others_raise_arrives_equal(name):
    """An exception of the interpreter's, or of a library's, has its type, message, fields and notes."""
    error = _raised(RAISED[name])
    error.add_note("seen twice")
    found = _home(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert repr(_fields(found)) == repr(_fields(error))
    assert found.__notes__ == ["seen twice"]
    assert [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(found.__traceback__)] == [
        (frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)
    ]


@pytest.mark.parametrize("error", [StopIteration(5), StopAsyncIteration(6), GeneratorExit(7), KeyboardInterrupt("k"), BaseException(1, 2)])
def test_what_ends_loops_and_programs(error):
    """What is no Exception, or has a value, arrives as it was."""
    found = _home(error)
    assert (type(found), found.args, _fields(found)) == (type(error), error.args, _fields(error))


def test_classes_of_ones_own():
    """Slots, demanding constructors, own and registered ways to be pickled: all arrive with all fields."""
    found = _home(Slotted(3, private=4))
    assert (found.args, found.place, found.private()) == (("at 3",), 3, 4)
    assert not hasattr(found, "never")
    found = _home(Demanding(404, "not found"))
    assert (str(found), found.code, found.reason, found.errno) == ("404: not found", 404, "not found", None)
    found = _home(Reduced(1, 2))
    assert (found.pair, found.more, str(found)) == ((1, 2), 3, "made of two")
    assert _home(Refusing(1, 2)).args == (1, 2)
    assert _home(Registered("x")).args == ("registered", "x")


def test_a_none_of_ones_own_is_kept():
    """A slot that is None is not the same as one that is not set."""
    found = _home(Slotted(None))
    assert found.place is None
    assert found.private() is None


def _chain(count):
    first = error = ValueError(0)
    for number in range(1, count):
        error.__context__ = ValueError(number)
        error = error.__context__
    return first


def _follow(error, link):
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = getattr(error, link)
    return [each.args[0] for each in seen]


@pytest.mark.parametrize("count", [1, 2, 1000, 20_000])
def test_chains_of_any_length(count):
    """A chain of contexts may be longer than pickle goes deep."""
    assert _follow(_home(_chain(count)), "__context__") == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 5000])
@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_chains_that_bite_their_tail(count, link):
    """A cycle of causes or contexts arrives as that cycle."""
    errors = [ValueError(number) for number in range(count)]
    for number, error in enumerate(errors):
        setattr(error, link, errors[(number + 1) % count])
    found = _home(errors[0])
    assert _follow(found, link) == list(range(count))
    last = found
    for _ in range(count):
        last = getattr(last, link)
    assert last is found


def test_links_are_told_apart():
    """Causes, contexts that are hidden and such that are not, each with its own traceback."""

    def first():
        raise KeyError("first")

    def second():
        try:
            first()
        except KeyError as error:
            raise ValueError("second") from error

    def third():
        try:
            second()
        except ValueError:
            raise TypeError("third") from None

    found = _home(_raised(third))
    context = found.__context__
    assert (found.__cause__, found.__suppress_context__, str(context)) == (None, True, "second")
    assert context.__cause__ is context.__context__
    names = [traceback.extract_tb(each.__traceback__)[-1].name for each in (found, context, context.__cause__)]
    assert names == ["third", "second", "first"]


def test_groups():
    """Groups within groups, with notes, and an exception that is in two of them: one and the same again."""
    shared, other = ValueError("shared"), KeyError("other")
    shared.add_note("a note")
    inner = BaseExceptionGroup("inner", [shared, KeyboardInterrupt("stop")])
    outer = BaseExceptionGroup("outer", [inner, shared, other])
    other.__context__ = outer  # bites its tail
    found = _home(outer)
    assert (found.message, found.exceptions[0].message, len(found.exceptions)) == ("outer", "inner", 3)
    assert found.exceptions[0].exceptions[0] is found.exceptions[1]
    assert found.exceptions[1].__notes__ == ["a note"]
    assert found.exceptions[2].__context__ is found
    assert type(_home(ExceptionGroup("g", [ValueError(1)]))) is ExceptionGroup


def test_an_exception_that_holds_itself():
    """In its args, or by an attribute."""
    error = ValueError()
    error.args, error.me = (error,), error
    found = _home(error)
    assert found.args[0] is found.me is found


def test_results_may_be_exceptions():
    """An exception that the body returns arrives as one that it raises, and twice the same is the same."""
    error = _raised(RAISED["UnicodeDecodeError"])
    first, second = home.unpack(home.pack([error, error]))
    assert first is second
    assert str(first) == str(error)


def test_other_picklers_are_not_changed():
    """The body's own pickles of exceptions are as ever once one was sent home."""
    before = dict(copyreg.dispatch_table)
    _home(_raised(RAISED["KeyError"]))
    assert copyreg.dispatch_table == before
    assert pickle.loads(pickle.dumps(KeyError("k"))).args == ("k",)


def _body(number):
    if number == 1:
        error = ValueError("x")
        raise error from error
    if number == 2:
        b"a\xff".decode("ascii")
    if number == 3:
        raise StopIteration(5)
    return number


def test_in_a_run():
    """In a real run, as in threads: a cycle, and the fields of the interpreter's exceptions."""
    found = {}
    for line in ("threads=2", "procs=2"):
        run = parmagic.run(_body, range(5), line, keep_going=True, once=True)
        found[line] = [run.items["error"].iloc[number] for number in range(5)]
        assert run.results == [0, None, None, None, 4]
    assert found["threads=2"] == found["procs=2"]
    with pytest.raises(UnicodeDecodeError, match="can't decode byte 0xff in position 1") as info:
        parmagic.run(_body, [2], "procs=1", once=True)
    assert (info.value.object, info.value.start) == (b"a\xff", 1)


def _from_each_other():
    first, second = ValueError("first"), KeyError("second")
    second.__context__ = first
    raise first from second


def _member_of_its_cause():
    one, two = ValueError("one"), KeyError("two")
    one.__cause__ = two.__context__ = group = ExceptionGroup("group", [one, two])
    outer = ExceptionGroup("outer", [group])
    group.__cause__ = outer
    raise outer


def _noted_by_itself():
    error = ValueError()
    error.args, error.__notes__, error.held = (error, [error]), [error, "n"], {"me": [error]}
    error.other = error.__cause__ = KeyError(error)
    raise error


def _with_itself_for_a_field(error, name):
    setattr(error, name, error)
    raise error


CYCLES = {
    "from each other": _from_each_other,
    "a member of its cause": _member_of_its_cause,
    "its own note, argument and field": _noted_by_itself,
    "StopIteration.value": lambda: _with_itself_for_a_field(StopIteration(), "value"),
    "SystemExit.code": lambda: _with_itself_for_a_field(SystemExit(), "code"),
    "OSError.filename": lambda: _with_itself_for_a_field(OSError(2, "x"), "filename"),
}


def _shape(value, seen):
    """Return what something is as plain values, where what was met before stands as its number."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, (list, tuple)):
        return [_shape(each, seen) for each in value]
    if isinstance(value, dict):
        return {name: _shape(each, seen) for name, each in value.items()}
    if not isinstance(value, BaseException):
        return repr(value)
    seen[id(value)] = len(seen)
    own = {name: each for name, each in vars(value).items() if name != "__notes__"}
    notes = [each for each in getattr(value, "__notes__", []) if not (isinstance(each, str) and each.startswith("in item"))]
    fields = [getattr(value, name, None) for name in ("value", "code", "filename", "exceptions")]
    return [type(value).__name__, *(_shape(each, seen) for each in (value.args, own, notes, fields, value.__cause__, value.__context__))]


def _cyclic(name):
    return CYCLES[name]() if name in CYCLES else 1


def _returned(name):
    return [_raised(CYCLES[name])] * 2


@pytest.mark.parametrize("name", CYCLES)
def test_cycles_of_any_kind_in_every_model(name):
    """Raised, kept going with, returned as a result, and met by the serial baseline: what processes give is what threads give."""
    found = {}
    spawned = [("procs=2", {"start_method": "spawn"})] * (name == "from each other")
    for line, options in (("threads=2", {}), ("serial", {}), ("procs=2", {}), ("procs=2", {"start_method": "fork"}), *spawned):
        raised = _raised(lambda: parmagic.run(_cyclic, [0, name, 0], line, once=True, **options))  # noqa: B023
        kept = parmagic.run(_cyclic, [0, name, 0], line, keep_going=True, once=line == "serial", **options)
        results = parmagic.run(_returned, [name] * 2, line, **options).results
        assert kept.results == [1, None, 1]
        assert [first is second for first, second in results] == [True, True]
        shapes = [_shape(raised, {}), [str(each) for each in kept.items["error"]], [_shape(each, {}) for each in results]]
        found[line, *options.values()] = repr(shapes)
    assert len(set(found.values())) == 1, found
