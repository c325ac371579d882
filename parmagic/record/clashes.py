"""What a body raises where two profilers meet, in words of neither of them: told by what Python and known tools say then."""

from __future__ import annotations

from typing import Any

from parmagic.model import words

HINT = "parmagic traces functions with VizTracer, and Python has one place for profilers in a process: --trace off leaves it to yours."

_SAID = {
    ValueError: ("Another profiling tool is already active", "tool 2 is already in use", "tool 2 is not in use"),
    AssertionError: ("('Bad return'", "('Bad call'"),  # the profile module, on 3.11: it sees the end of the call that set it in our place
}

_exceptions_of: Any = vars(BaseExceptionGroup)["exceptions"].__get__

_MOST = 100
"""How many errors are looked at."""


def met_another_profiler(error: BaseException) -> bool:
    """Tell whether an error, or one that it comes from, or that is in it, is what a profiler raises that has found another."""
    to_see: list[BaseException | None] = [error]
    for each in to_see:
        if each is None or len(to_see) > _MOST:
            continue
        if any(issubclass(type(each), kind) and words.message(each).startswith(said) for kind, said in _SAID.items()):
            return True
        to_see += [words.cause_of(each), words.context_of(each)]
        if issubclass(type(each), BaseExceptionGroup):
            to_see += _exceptions_of(each)
    return False
