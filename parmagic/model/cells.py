"""What a notebook's cells are called: ``In[4]``, as the margin has them, instead of a temporary file's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NUMBERED = re.compile(r"<ipython-input-(\d+)-\w+>$")
_UNNUMBERED = re.compile(r".*[/\\]ipykernel_\d+[/\\]\d+\.py$")
_PLACE = re.compile(r"(.*) \((.+):(\d+)\)", re.DOTALL)

Numbers = Mapping[str, int]
"""The number of each cell, by the name of the file that its code was compiled with."""

_numbers: Callable[[], Numbers] = dict


def ask(numbers: Callable[[], Numbers]) -> None:
    """Have ``numbers`` asked from now on; ``dict`` has none."""
    global _numbers  # noqa: PLW0603  (there is one notebook)
    _numbers = numbers


def numbered() -> dict[str, int]:
    """Return the numbers that cells have at this moment: a cell that runs again gets another."""
    return dict(_numbers())


def called(file: str, numbers: Numbers) -> str:
    """Return what a file is called: a cell ``In[4]``, or ``a cell`` where its number is not known; all others as they are."""
    if file in numbers:
        return f"In[{numbers[file]}]"
    if found := _NUMBERED.match(file):
        return f"In[{found[1]}]"
    return "a cell" if _UNNUMBERED.match(file) else file


def place(file: str, line: int) -> str:
    """Return a place by the numbers of this moment: ``In[4]:3``, ``/a/b.py:3``."""
    return f"{called(file, _numbers())}:{line}"


def renamed(function: str, numbers: Numbers) -> str:
    """Return a function's name and place, ``work (/tmp/ipykernel_1/2.py:3)``, with the cell's name: ``work (In[4]:3)``."""
    found = _PLACE.fullmatch(function)
    return f"{found[1]} ({called(found[2], numbers)}:{found[3]})" if found else function
