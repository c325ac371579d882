"""What a body raises where two profilers meet, in words of neither of them: told by what Python and known tools say then."""

from __future__ import annotations

from itertools import islice

from parmagic.model import words

HINT = "parmagic traces functions with VizTracer, and Python has one place for profilers in a process: --trace off leaves it to yours."

_SAID = {
    ValueError: ("Another profiling tool is already active", "tool 2 is already in use", "tool 2 is not in use"),
    AssertionError: ("('Bad return'", "('Bad call'"),  # the profile module, on 3.11: it sees the end of the call that set it in our place
}

_MOST = 100
"""How many errors are looked at."""


def met_another_profiler(error: BaseException) -> bool:
    """Tell whether an error, or one that it comes from, or that is in it, is what a profiler raises that has found another."""
    return any(
        issubclass(type(each), kind) and words.message(each).startswith(said)
        for each in islice(words.linked(error), _MOST) for kind, said in _SAID.items()
    )  # fmt: skip
