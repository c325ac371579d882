"""What cells are called."""

from __future__ import annotations

import pytest

from parmagic.model import cells

FILE = "/tmp/ipykernel_77/123456.py"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (FILE, "In[4]"), ("<ipython-input-12-0a1b2c3d4e5f>", "In[12]"), ("/tmp/ipykernel_78/123456.py", "a cell"),
        ("C:\\Temp\\ipykernel_5\\99.py", "a cell"), ("/home/me/ipykernel_1/work.py", "/home/me/ipykernel_1/work.py"), ("<string>", "<string>"),
    ],
)  # fmt: skip
def test_cells_have_their_numbers(file, name):
    """A cell is called as in the margin; one whose number nobody knows is a cell; all else keeps its name."""
    assert cells.called(file, {FILE: 4}) == name


def test_only_the_place_of_a_function_is_renamed():
    """Its name and line stay, whatever is in them; what has no place stays as it is."""
    assert cells.renamed(f"work ({FILE}:3)", {FILE: 4}) == "work (In[4]:3)"
    assert cells.renamed(f"A ({FILE}:1).b (x.py:3)", {FILE: 4}) == f"A ({FILE}:1).b (x.py:3)"
    assert [cells.renamed(name, {FILE: 4}) for name in ("time.sleep", "", FILE)] == ["time.sleep", "", FILE]


def test_a_number_is_that_of_the_moment():
    """A cell that runs again has another number: what was asked before stays."""
    known = {FILE: 4}
    cells.ask(lambda: known)
    try:
        before = cells.numbered()
        known[FILE] = 9
        assert (before, cells.numbered()) == ({FILE: 4}, {FILE: 9})
    finally:
        cells.ask(dict)
