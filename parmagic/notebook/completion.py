"""What the tab key offers in a magic line: the words are :mod:`parmagic.parse.complete`'s, here they become IPython's."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from parmagic.parse.complete import completions

_LINE = re.compile(r"\s*(?:%%parallel|(?:[^%='\"#]*=\s*)?%parallel)\s+")
"""What stands before a magic line's own words: the magic, and what its run is assigned to."""

_EXPANDED = re.compile(r"\$(\w+)|\{(\w+)\}")


def found(shell: Any, line: str, cursor: int) -> tuple[int, list[str]]:
    """Return what can stand at the cursor, and from where on of the line it does; nothing where the line is none of ours."""
    begin = _LINE.match(line, 0, cursor)
    if begin is None:
        return cursor, []
    names, expand = partial(_names, shell), partial(_expanded, shell)
    start, words = completions(line[begin.end() : cursor], line[cursor:], cell="%%" in begin[0], names=names, expand=expand)
    return begin.end() + start, words


def _names(shell: Any) -> list[str]:
    return [name for name in shell.user_ns if isinstance(name, str) and name not in shell.user_ns_hidden]


def _expanded(shell: Any, word: str) -> str:
    """Expand plain names only: to look for completions runs no code of the user's."""
    return _EXPANDED.sub(lambda name: _plain(shell.user_ns.get(name[1] or name[2]), name[0]), word)


def _plain(value: object, otherwise: str) -> str:
    return str(value) if type(value) in {int, float, str} else otherwise
