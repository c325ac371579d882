"""What helps where a process misses a name of the notebook's that nothing in the code mentions."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Collection, Mapping
from typing import Any

from parmagic.model import words

_MISSING = re.compile(r"(?:name|local variable) '([^']+)' is not defined|module '__main__' has no attribute '([^']+)'")


def unsent_help(error: BaseException, mentioned: Collection[str], namespace: Mapping[str, Any]) -> str | None:
    """Tell how a name of the notebook's gets to processes, when ``error`` is about one that is not ``mentioned``; else None."""
    name = _missing(error)
    if name is None or name in mentioned or name not in namespace:
        return None
    return f"A process has what the body mentions of the notebook's, and `{name}` is not: write it there, on a line of its own, say."


def _missing(error: BaseException) -> str | None:
    """Return the name that an error is about, be it raised by Python, a library, or a look into ``globals()``."""
    if issubclass(type(error), KeyError):
        key = next(iter(words.args_of(error)), None)
        return key if type(key) is str and _looks_into_globals(error) else None
    found = _MISSING.search(words.message(error))
    return found and (found[1] or found[2])


def _looks_into_globals(error: BaseException) -> bool:
    """Tell whether ``globals()`` or ``__main__`` stands in a line that the error came through."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(words.traceback_of(error))]
    lines = [linecache.getline(*place) for place in places]
    return any(text in line for line in lines for text in ("globals()", "__main__"))
