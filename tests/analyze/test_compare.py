"""Which results count as equal, beyond plain values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from parmagic.analyze import compare


class Refuses:
    """Raises when it is compared."""

    __hash__ = None

    def __eq__(self, other):
        """Refuse."""
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (pd.DataFrame({"a": [1.0, np.nan]}), pd.DataFrame({"a": [1.0, np.nan]}), True),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]}), False),
        (pd.Series([1, 2]), pd.Series([1, 2]), True),
        (np.zeros(3), np.zeros(4), False),
        (np.array([1, 2]), np.array([1.0, 2.0]), True),
        (np.array(["a"]), np.array(["a"]), True),
        ({"a": float("nan")}, {"a": float("nan")}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], (1, 2), False),
        ({1, 2}, {2, 1}, True),
        (np.float64("nan"), np.float64("nan"), True),
        (None, None, True),
        (Refuses(), Refuses(), None),
        ([Refuses(), 1], [Refuses(), 2], False),
        ([Refuses()], [Refuses()], None),
        (np.array([1, 2]), [1, 2], None),
    ],
)
def test_same(one, other, answer):
    """Equal, different, or nobody can tell."""
    assert compare.same(one, other) is answer


def test_the_same_object_is_equal():
    """An object that refuses comparison equals itself."""
    one = Refuses()
    assert compare.same(one, one) is True


def test_a_list_inside_itself_cannot_tell():
    """Endless structures are left out, and do not end the run."""
    one, other = [1], [1]
    one.append(one)
    other.append(other)
    assert compare.same(one, other) is not False


def test_differing_leaves_out_what_cannot_tell():
    """Only items that certainly differ are named, and only those that ran serially."""
    assert compare.differing({0: 1, 2: object(), 3: 5}, [1, "other", object(), 6]) == [3]
