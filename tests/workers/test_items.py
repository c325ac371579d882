"""What items share is packed once, and is each item's own all the same; the notes weigh items as well as names."""

from __future__ import annotations

import pytest

from parmagic.workers.processes import buffers, hub

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")

LINE = "%%parallel procs=2 --once -q --trace off"
SHARED = {
    "an array": "[(n, big) for n in range(20)]",
    "the array itself": "[big] * 20",
    "views": "[(n, big[:]) for n in range(20)]",
    "attributes": "[SimpleNamespace(n=n, a=[big]) for n in range(20)]",
    "a transposed array": "[(n, big.reshape(1000, -1).T) for n in range(20)]",
    "a frame": "[(n, frame) for n in range(20)]",
    "frames of one array": "[(n, pd.DataFrame(big.reshape(-1, 10), copy=False)) for n in range(20)]",
    "parts of one that came before": "[(0, big), *((n, big[16 * n :]) for n in range(19))]",
}
SETUP = """
import numpy as np, pandas as pd
from types import SimpleNamespace
big = np.arange(500_000.0)
frame = pd.DataFrame({"a": big, "b": np.ones(500_000), "c": list(range(500_000))})
"""


@pytest.mark.parametrize("case", SHARED)
def test_what_items_share_is_packed_once(ip, case):
    """20 items that share one array of 4 MB, or a frame of 12, are sent as that, and a few bytes each."""
    ip(f"{SETUP}\nitems = {SHARED[case]}")
    run = ip(f"{LINE} for item in items\nlen(str(item)) > 0")
    assert run.results == [True] * 20
    assert run.transfers["packed_mb"].max() < (12.2 if "frame" in case and "one array" not in case else 4.2)


@pytest.mark.parametrize("start", ["", "--start-method spawn", "--start-method fork"])
@pytest.mark.parametrize("size", [500_000, 50_000, 1_000, 10])
def test_it_is_each_items_own(ip, size, start):
    """A body that writes to what its item shares with others changes it for this item alone, large or small, and not in the notebook."""
    ip(f"import numpy as np; big = np.zeros({size}); items = [(n, big, [big]) for n in range(1, 30)]")
    line = f"{LINE} --chunk 1 {start}" if size >= 50_000 else f"{LINE} {start}"
    run = ip(f"{line} for n, a, (b,) in items\nbefore = float(a.sum())\na[n % 10] += n\n(before, float(a.sum()), a is b)")
    own = size >= 50_000 and not start.endswith("fork")  # smaller ones travel together, a copy for all that do; forked memory is a worker's
    assert [same for *_, same in run.results] == [True] * 29
    assert all((before, after) == (0, n) if own else after - before == n for n, (before, after, _) in enumerate(run.results, 1))
    assert ip("float(big.sum())") == 0


def test_views_of_one_memory_within_an_item(ip):
    """Two arrays on one memory are two copies in the worker, as plain pickle makes them."""
    ip("import numpy as np; big = np.zeros(500_000); items = [(big, big[:], big[160:]) for n in range(4)]")
    run = ip(f"{LINE} for a, b, c in items\na[200] = 1\n(a[200], b[200], c[40])")
    assert run.results == [(1.0, 0.0, 0.0)] * 4


def test_what_a_name_and_items_share(ip):
    """An item's part of an array that the body reads, too, is not sent again; the name's is read-only, the item's its own."""
    ip("import numpy as np; big = np.arange(1_000_000.0); items = [big[n * 250_000 : (n + 1) * 250_000] for n in range(4)]")
    run = ip(f"{LINE} for part in items\npart += 1\n(float(part[0]), float(big[250_000]), big.flags.writeable)")
    assert run.results == [(250_000.0 * n + 1, 250_000.0, False) for n in range(4)]
    assert run.transfers["packed_mb"].max() < 8.2


def test_arrays_that_are_made_while_they_are_packed(ip):
    """Where each item makes an array of its own when it is packed, at whatever address, each arrives as it was."""
    ip("""
import numpy as np, pickle
class Late:
    def __init__(self, n): self.n = n
    def __reduce__(self): return list, ((self.n, np.full(300_000, self.n)),)
""")
    run = ip(f"{LINE} for n, a in [Late(n) for n in range(20)]\nbool((a == n).all())")
    assert run.results == [True] * 20


def test_many_that_the_body_keeps(ip):
    """A body that keeps what its items share holds no descriptor for each."""
    ip("import numpy as np, os; big = np.zeros(200_000); kept = []")
    run = ip(f"{LINE} for a in [big] * 300\nkept.append(a)\na[0] += 1\n(float(a[0]), len(os.listdir('/proc/self/fd')))")
    assert {value for value, _ in run.results} == {1.0}
    assert max(count for _, count in run.results) < 60


def test_the_notes_weigh_items(ip):
    """Items of 20 MB are told of, with what to do instead; small ones are not."""
    ip("import numpy as np; items = [np.ones(250_000) * n for n in range(10)]")
    run = ip(f"{LINE} for a in items\nfloat(a[0])")
    (note,) = (note for note in run.notes if note.startswith("The items"))
    assert note.startswith("The items that were shipped to processes took 20 MB, ")
    assert "a place in a name that the body reads" in note
    run = ip(f"{LINE} for a in items[:1]\nfloat(a[0])")
    assert not [note for note in run.notes if note.startswith("The items")]


def test_where_buffers_lie():
    """What lies within one that was put is found there; what only touches it, or is not aligned as it is there, is put anew."""
    put = []

    def write(data):
        put.append(len(data))
        return sum(put) - len(data), len(data)

    known = buffers.Buffers(write)
    whole = memoryview(bytearray(100_000))
    assert known.put(whole) == (0, 100_000)
    assert known.put(whole) == (0, 100_000)
    assert known.put(whole[16_000:90_000]) == (16_000, 74_000)
    assert put == [100_000]
    assert known.common == {(0, 100_000), (16_000, 74_000)}
    assert known.put(whole[1:90_001]) == (100_000, 90_000)
    assert known.put(whole[16_000:]) == (190_000, 84_000)
    assert known.put(whole[:100]) == (274_000, 100)
    known.forget()
    assert known.put(whole) == (274_100, 100_000)
