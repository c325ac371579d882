"""Objects whose own code raises, exits, lies or never returns: the run survives them, and says what can be said."""

from __future__ import annotations

import threading
from unittest.mock import MagicMock

import pytest

import parmagic
from parmagic import NotShippable
from parmagic.analyze import compare
from parmagic.model import classes, words

# Each is the body of a class; ``{}`` is a name of a method.
RAISES = "def {}(self, *_):\n        raise ValueError('never')"
EXITS = "def {}(self, *_):\n        import sys\n        sys.exit(3)"
LOOPS = "def {}(self, *_):\n        while True:\n            pass"
SLEEPS = "def {}(self, *_):\n        import time\n        time.sleep(1)"  # blocked in C; not forever, or the thread would outlive the tests
STUBBORN = (
    "def {}(self, *_):\n        import time\n        end = time.monotonic() + 1\n        while time.monotonic() < end:\n"
    "            try:\n                time.sleep(0.001)\n            except BaseException:\n                pass"
)
WAYS = {"raises": RAISES, "exits": EXITS, "loops": LOOPS, "sleeps": SLEEPS, "swallows": STUBBORN}
MODELS = ["threads=2", "procs=2"]


def _class(name: str, base: str, body: str) -> str:
    return f"class {name}({base}):\n    {body}\n"


def _made(name, base, body):
    """Return a class of that body."""
    space = {}
    exec(_class(name, base, body), space)
    return space[name]


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("raises", "raised ValueError"),
        ("exits", "raised SystemExit"),
        ("loops", "did not end in 0.1 s"),
        ("sleeps", "did not end in 0.1 s, and was left behind"),
        ("swallows", "did not end in 0.1 s, and was left behind"),
    ],
)
def test_a_text_gets_a_tenth_of_a_second(way, why):
    """A repr and a message that do not come are ended, or left behind, soon; the text says which."""
    value = _made("Odd", "object", WAYS[way].format("__repr__"))()
    assert words.shown(value, 200) == f"a Odd (its repr {why})"
    error = _made("Wrong", "Exception", WAYS[way].format("__str__"))("x")
    assert words.describe(error, 200) == f"Wrong: (no message: its __str__ {why})"
    assert words.describe(ValueError(value), 200) == f"ValueError: (no message: its __str__ {why})"


def test_a_text_gets_ten_thousand_characters():
    """What is longer is cut, before anything is made of it; a text is what it is, whatever its class says."""
    long = _made("Long", "object", "__repr__ = lambda self: 'x' * 1_000_000")()
    assert words.shown(long, 10**6) == "x" * words.MOST
    liar = _made("Liar", "str", "__str__ = __len__ = __getitem__ = split = None")("the text")
    assert words.shown(_made("Tells", "object", "def __repr__(self):\n        return liar")(), 80).startswith("a Tells (its repr raised NameError)")
    kind = _made("Tells", "object", "def __repr__(self):\n        return self.text")
    told = kind()
    told.text = liar
    assert words.shown(told) == "the text"


def test_many_that_never_end_are_asked_a_few_times_only():
    """Of a thousand errors whose messages do not end, five are asked; those that can be read are all read."""
    wrong = _made("Wrong", "Exception", "asked = []\n    " + LOOPS.format("__str__").replace("while True", "self.asked.append(1)\n        while True"))
    told = words.describe_all([wrong(), *[KeyError(n) for n in range(3)], *[wrong() for _ in range(1_000)]], 200)
    assert len(wrong.asked) == 5
    assert told[1:4] == ["KeyError: 0", "KeyError: 1", "KeyError: 2"]
    assert sum("did not end in 0.1 s" in text for text in told) == 5
    assert told[-1] == "Wrong: (no message: its __str__ was not called, as others before did not end)"


def test_a_message_is_what_str_makes_of_it():
    """What is read without a thread is exactly what str() says; and a helper thread sees the caller's context."""
    missing, empty = FileNotFoundError(2, "No such file", "a", None, "b"), ValueError()
    for error in (missing, empty, KeyError("k"), ValueError("a", 1), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), ImportError("no", name="m")):
        assert words.message(error) == str(error)
    before = threading.active_count()
    assert words.message(ValueError([1, 2])) == "[1, 2]"
    assert threading.active_count() == before


def test_a_name_is_what_the_type_is_called():
    """A type's name and module are told without asking it."""

    class Meta(type):
        __name__ = property(lambda _: 1 / 0)
        __module__ = property(lambda _: 1 / 0)

        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Odd(metaclass=Meta):
        pass

    assert classes.type_name(Odd()) == "Odd"
    assert classes.long_type_name(Odd()).endswith("Odd")
    assert classes.module_of(_made("Lost", "object", "__module__ = 5")) == ""


HOSTILE = {
    "__str__ raises": RAISES.format("__str__"),
    "__str__ exits": EXITS.format("__str__"),
    "__str__ loops": LOOPS.format("__str__"),
    "notes are none": "__notes__ = 5",
    "its own notes are none": "def __init__(self, *_):\n        self.__notes__ = 5",
    "add_note raises": RAISES.format("add_note"),
    "with_traceback raises": RAISES.format("with_traceback"),
    "its class lies": "def __getattribute__(self, name):\n        return KeyboardInterrupt if name == '__class__' else Exception.__getattribute__(self, name)",
    "its class raises": "def __getattribute__(self, name):\n        return 1 / 0 if name == '__class__' else Exception.__getattribute__(self, name)",
    "its attributes raise": "__dict__ = property(lambda self: 1 / 0)",
    "it is false": "def __bool__(self):\n        raise ValueError('neither')",
    "its arguments cannot travel": "def __init__(self, *_):\n        import threading\n        self.args = (threading.Lock(),)",
    "__reduce_ex__ raises": RAISES.format("__reduce_ex__"),
    "__reduce_ex__ exits": EXITS.format("__reduce_ex__"),
    "it bites its tail": "def __init__(self, *_):\n        other = ValueError()\n        other.__cause__ = self\n        self.__cause__ = other",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_exceptions(ip, model, body):
    """A body that raises one has the run ended, or under --keep-going not; all else that was done is there, and every text can be made."""
    ip(_class("Odd", "Exception", body))
    run = ip(f"%%parallel {model} -q --once --keep-going for n in range(4)\nif n == 2:\n    raise Odd('so odd')\nn")
    assert run.results == [0, 1, None, 3]
    error = run.items["error"].iloc[2]
    assert "Odd" in error
    assert run.items["error"].notna().sum() == 1
    result = ip.shell.run_cell(f"%%parallel {model} -q --once --chunk 1 for n in range(3)\nif n == 2:\n    raise Odd('so odd')\nn")
    run = parmagic.last()
    assert not result.success
    assert run.error is not None
    assert type(run.error) in {ip.space["Odd"], NotShippable}
    told = "\n".join([*words.notes_of(run.error), *run.notes])
    assert "in item 2" in told
    assert "Odd" in run.verdict
    if model == MODELS[0]:
        run.save("page.html")
        run.timeline.save("trace.json")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_item_without_a_repr(ip, way):
    """The note on the item that failed says what can be said of it."""
    ip(_class("Item", "object", way.format("__repr__")))
    error = ip.fails("%%parallel threads=1 -q --once for item in [Item()]\n1 / 0")
    assert isinstance(error, ZeroDivisionError)
    assert error.__notes__[0].startswith("in item 0 (a Item (its repr ")


@pytest.mark.parametrize("method", ["__reduce_ex__", "__getattribute__"])
@pytest.mark.parametrize("way", [RAISES, EXITS], ids=["raises", "exits"])
def test_what_cannot_be_packed(ip, way, method):
    """Names, items and results whose own code refuses, or exits, are refused with their names; nothing else ends."""
    ip(_class("Odd", "object", way.format(method)) + "odd = Odd()")
    for line, name in (("%parallel procs=2 -q --once odd for n in range(2)", "odd"), ("%parallel procs=2 -q --once 1 for x in [1, odd]", "Item 1")):
        error = ip.fails(line)
        assert isinstance(error, NotShippable)
        assert name in str(error)
    ip(_class("Local", "object", way.format(method)))
    run = ip("%parallel procs=2 -q --once --keep-going (Local() if n == 1 else n) for n in range(4)")
    assert run.results == [0, None, 2, 3]
    assert "NotShippable: The result of item 1 (a " in run.items["error"].iloc[1]


@pytest.mark.parametrize("way", [RAISES, EXITS, LOOPS], ids=["raises", "exits", "loops"])
def test_results_that_cannot_be_compared(ip, monkeypatch, way):
    """A result whose __eq__ raises, exits or never ends is left out of the comparison with the serial run, which goes on."""
    monkeypatch.setattr(compare, "SECONDS", 0.2)
    ip(_class("Odd", "object", "__hash__ = None\n    " + way.format("__eq__")))
    run = ip("%parallel serial threads=2 -q (Odd() if n == 1 else id(object()) + worker.count if n == 3 else n) for n in range(4)")
    assert run.error is None
    (note,) = [note for note in run.notes if "disagree" in note]
    assert "item 3:" in note


def test_values_that_lie_about_their_class(ip):
    """What the body reads and gives back may say anything of its class, and may refuse to be looked at."""
    ip(
        "class Odd:\n    __class__ = property(lambda self: 1 / 0)\n    def __getattr__(self, name):\n        raise RuntimeError(name)\n"
        "class Unhashable(type):\n    __hash__ = None\nclass Kind(metaclass=Unhashable):\n    __module__ = ['no', 'text']\n"
        "odd, kind, lost = Odd(), Kind(), type('Lost', (), {'__module__': 5})()"
    )
    run = ip("%%parallel threads=2 -q --once for n in range(3)\nkind.n = n\nlost.n = n\nodd, kind, lost\nn")
    assert run.results == [0, 1, 2]
    run = ip("%parallel procs=2 -q --once n for n in range(3)")  # the server looks at all of the notebook's names
    assert run.results == [0, 1, 2]


def test_a_function_that_has_every_attribute():
    """A callable that answers to every name, as mocks do, is called, and nothing is read into its answers."""
    mock = MagicMock(side_effect=lambda n: n * n)
    run = parmagic.run(mock, range(4), "threads=2", once=True)
    assert run.results == [0, 1, 4, 9]
    assert mock.call_count == 4
