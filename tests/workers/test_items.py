"""What items share is packed once, and is each item's own all the same; the notes weigh items as well as names."""

from __future__ import annotations

import pytest
from arms import spread

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


@pytest.mark.parametrize(
    ("start", "size"), spread(["", "--start-method spawn", "--start-method fork"], [500_000, 50_000, 1_000, 10], 50_000, 1_000)
)
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


# ---------------------------------------------------------------------------------------------------------------------------------
# arrays on a file's memory


MAP = "import numpy as np\nnp.save('big.npy', np.arange(2_000_000.0).reshape(1000, 2000)); whole = np.load('big.npy', mmap_mode={mode!r}); {setup}"
VIEWS = {
    "the whole": "whole",
    "rows": "whole[100:200]",
    "a row": "whole[7]",
    "columns": "whole[:, 3:5]",
    "every other, backwards": "whole[::-2, ::-3]",
    "transposed": "whole.T",
    "one more dimension": "whole[None, :, :, None]",
    "another type": "whole.view('u1')",
    "one row for many": "np.broadcast_to(whole[2], (5, 2000))",
    "an array on it": "np.asarray(whole)",
    "a view of an array on it": "np.asarray(whole)[5:, 1]",
    "a list": "[whole[1], whole]",
    "a frame": "pd.DataFrame(whole, copy=False)",
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_map_is_opened_again(ip, view):
    """A memmap, and a view of one, is no copy in the worker: it is on the file, with the same values, shape and type."""
    ip(MAP.format(mode="r", setup=f"import pandas as pd; view = {VIEWS[view]}"))
    ip("def about(v):\n    a = v[0] if isinstance(v, list) else np.asarray(v)\n    return type(v).__name__, a.shape, a.strides, a.dtype, float(a.sum()), a.flags.writeable")
    run = ip(f"{LINE} for item in [view] * 3\n(about(view), about(item), open('/proc/self/maps').read().count('big.npy'))")
    for name, item, maps in run.results:
        assert name == item == ip("about(view)")
        assert maps
    assert run.transfers["packed_mb"].max() < 0.1


@pytest.mark.parametrize("start", ["", "--start-method spawn", "--start-method fork"])
def test_the_modes_of_maps(ip, start):
    """What a worker writes to a map goes to the file in ``r+``, stays its own in ``c``, and is refused in ``r``; the names are of that mode there."""
    ip(MAP.format(mode="r+", setup="kept = np.load('big.npy', mmap_mode='c'); read = np.load('big.npy', mmap_mode='r')"))
    run = ip(f"""{LINE} {start} for n in range(4)
whole[n, 0] = -1.0
kept[10 + n, 0] = -2.0
try:
    read[0, 0] = 1
except ValueError as error:
    said = str(error)
(float(kept[10 + n, 0]), whole.mode, kept.mode, read.mode, said)""")
    assert run.results == [(-2.0, "r+", "c", "r", "assignment destination is read-only")] * 4
    assert ip("whole[:5, 0].tolist()") == [-1.0] * 4 + [8000.0]
    assert ip("np.load('big.npy')[8:14, 0].tolist()") == [n * 2000.0 for n in range(8, 14)]


def test_a_new_file_is_not_emptied(ip):
    """A map that made its file (``w+``) is opened to read and write."""
    ip("import numpy as np; made = np.memmap('made', dtype='i4', mode='w+', shape=(1000,), offset=12); made[:] = range(1000)")
    run = ip(f"{LINE} for part in [made[:500], made[500:]]\npart += 1\n(int(part[0]), part.mode, part.offset)")
    assert run.results == [(1, "r+", 12), (501, "r+", 2012)]
    assert ip("made.tolist()") == list(range(1, 1001))


def test_a_private_map_that_was_written_to(ip):
    """What the notebook has written to a private map is in no file: it is copied, with the rest of that view; other views are mapped."""
    ip(MAP.format(mode="c", setup="clean = whole[:400]; whole[500, 0] = 7.0"))
    run = ip(f"{LINE} for n in range(2)\n(float(whole[500, 0]), float(clean[3, 0]), clean.mode)")
    assert run.results == [(7.0, 6000.0, "c")] * 2
    assert 16 < run.transfers["packed_mb"].max() < 17
    assert ip(f"{LINE} for n in range(2)\nfloat(clean.sum())").transfers["packed_mb"].max() < 0.1


GONE = {
    "removed": "os.remove('big.npy')",
    "replaced": "np.save('new.npy', np.zeros(5)); os.replace('new.npy', 'big.npy')",
    "its folder moved": "os.mkdir('there'); os.rename('big.npy', 'there/big.npy')",
}


@pytest.mark.parametrize("case", GONE)
def test_a_file_that_is_gone(ip, case):
    """Where the file is gone, or is another one, the run is refused before anything has run, by the name or the item that maps it."""
    ip(MAP.format(mode="r", setup=f"import os; done = []; {GONE[case]}"))
    error = ip.fails(f"{LINE} for n in range(2)\ndone.append(whole.sum())")
    assert str(error).startswith("The body reads 'whole' (a numpy.memmap), which cannot be sent to a process: the file /")
    assert "big.npy, which it maps, is not there any more (numpy.array(…) makes a copy" in str(error)
    error = ip.fails(f"{LINE} for item in [1, whole[2:]]\nitem")
    assert str(error).startswith("Item 1 (a numpy.memmap) cannot be sent to a process: the file /")


def test_a_file_that_cannot_be_opened_there(ip):
    """Where the file goes while the run begins, that is told as it is: of a name the run ends, of an item this one fails."""
    ip(MAP.format(mode="r", setup="""
import os
class Leaves:
    def __reduce__(self):
        os.path.exists('big.npy') and os.remove('big.npy')
        return int, ()
zz = Leaves()
"""))
    error = ip.fails(f"{LINE} for n in range(2)\n(whole, zz)")
    assert str(error).startswith("A worker process cannot read the body: A numpy.memmap of /")
    assert str(error).endswith("No such file or directory: '" + ip("whole.filename") + "'.")
    ip(MAP.format(mode="r", setup="pass"))
    run = ip(f"{LINE} --keep-going for item in [1, whole, zz, 2]\nfloat(np.sum(item))")
    assert run.results == [1.0, None, 0.0, 2.0]
    assert run.items["error"].iloc[1].startswith("NotShippable: Item 1 (a numpy.memmap) cannot be read in a process: ")


def test_maps_without_a_name(ip):
    """A map of a file that has no name is copied, as what was made of a map and is in memory."""
    ip("import numpy as np, tempfile; file = tempfile.TemporaryFile(); nameless = np.memmap(file, 'f8', 'w+', shape=1000); nameless[:] = 2; file.close()")
    ip("made = np.memmap('made', 'f8', 'w+', shape=1000) + 1; some = np.memmap('made', 'f8', 'r', shape=1000)[[1, 2]]; empty = np.memmap('made', 'f8', 'r')[:0]")
    run = ip(f"{LINE} for n in range(2)\n(nameless.sum(), made.sum(), some.sum(), empty.shape)")
    assert [tuple(map(float, result[:3])) for result in run.results] == [(2000.0, 1000.0, 0.0)] * 2


def test_many_views_of_a_map(ip):
    """A thousand items on one map are packed in no time that anybody would notice: the file is looked up once."""
    ip(MAP.format(mode="r", setup="rows = list(whole)"))
    run = ip(f"{LINE} for row in rows\nfloat(row[0])")
    assert run.results == [2000.0 * n for n in range(1000)]
    assert run.transfers["packed_mb"].max() < 1


# ---------------------------------------------------------------------------------------------------------------------------------
# what is shared and is no buffer

HEAVY = """
import numpy as np, pandas as pd
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
@dataclass(slots=True)
class Slotted:
    n: int
    more: list
class Tree:
    def __init__(self, depth): self.inner = [Tree(depth - 1), Tree(depth - 1)] if depth else "a leaf"
heavy = {heavy}
"""
HEAVIES = {
    "a list": "[str(n) for n in range(20_000)]",
    "a dictionary": "{n: [n] for n in range(20_000)}",
    "bytes": "bytes(range(256)) * 4000",
    "a text": "'text ' * 200_000",
    "a set": "set(map(str, range(20_000)))",
    "an object": "SimpleNamespace(values=[str(n) for n in range(20_000)])",
    "an object of the notebook's": "Tree(12)",
    "a frame of texts": "pd.DataFrame({'a': [str(n) for n in range(20_000)]}, dtype=object)",
    "an array of which every other is meant": "np.arange(300_000.0)[::2]",
    "an array of objects": "np.array([str(n) for n in range(20_000)], dtype=object)",
    "a masked array": "np.ma.masked_less(np.arange(150_000), 5)",
}
AROUND = {
    "itself": "heavy", "a pair": "(n, heavy)", "a dictionary": "{'n': n, 'in': {'heavy': heavy}}", "attributes": "SimpleNamespace(n=n, heavy=heavy)",
    "slots": "Slotted(n, [heavy])", "what a call is to have": "partial(divmod, n, heavy)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("heavy", "around"), [*((heavy, "a pair") for heavy in HEAVIES), *(("a list", around) for around in AROUND), ("a frame of texts", "slots")]
)
def test_what_is_shared_and_no_buffer(ip, heavy, around):
    """A list, a text or an object that many items hold is packed with the first, and once for all others, and arrives in each."""
    ip(HEAVY.format(heavy=HEAVIES[heavy]) + f"import pickle; items = [{AROUND[around]} for n in range(12)]; whole = len(pickle.dumps(heavy)) / 1e6")
    run = ip(f"{LINE} for item in items\nimport cloudpickle\nabs(len(cloudpickle.dumps(item)) - len(cloudpickle.dumps(items[0]))) < 20")
    assert run.results == [True] * 12
    run = ip(f"{LINE} for item in items\ntype(item).__name__")
    assert run.transfers["packed_mb"].max() < 2.5 * ip("whole") + 0.05


def test_each_item_has_it_alone(ip):
    """A body that appends to what its item shares with others does so for this item alone, and not in the notebook."""
    ip("shared = list(range(100_000)); items = [(n, shared, [shared]) for n in range(12)]")
    run = ip(f"{LINE} for n, a, (b,) in items\na.append(n)\n(len(a), a[-1], a is b)")
    assert run.results == [(100_001, n, True) for n in range(12)]
    assert ip("len(shared)") == 100_000


def test_what_hangs_together_still_does(ip):
    """Within an item all is one that is one in the notebook, however deep it lies in what is shared, and where that holds itself."""
    ip("""
shared = {"rows": [[n] for n in range(50_000)]}
shared["self"] = shared
def f(): return g
def g(): return f
shared["f"] = f
deep = shared["rows"][40_000]
items = [(n, shared, deep, g) for n in range(8)]
""")
    run = ip(f"""{LINE} for n, a, b, c in items
(a["self"] is a, a["rows"][40_000] is b, a["f"]() is c, c() is a["f"], a["f"].__globals__ is c.__globals__)""")
    assert run.results == [(True,) * 5] * 8


def test_several_that_are_shared(ip):
    """Of ten texts each is packed once, with whatever it goes together; also where each item has a heavy part of its own."""
    ip("import itertools; texts = [str(n) * 200_000 for n in range(10)]; mine = {'config': [1, 2]}")
    for order in ("itertools.product(texts, range(5), [mine])", "((t, n, mine) for n, t in itertools.product(range(5), texts))"):
        run = ip(f"{LINE} for text, n, config in {order}\n(text[0], len(text), n, config)")
        assert sorted(run.results, key=str) == sorted(((str(t), 200_000, n, {"config": [1, 2]}) for t in range(10) for n in range(5)), key=str)
        assert run.transfers["packed_mb"].max() < 4.2
    run = ip(f"{LINE} for text, config in [(str(n) * 200_000, mine) for n in range(10)]\n(text[0], len(text), config)")
    assert run.results == [(str(n), 200_000, {"config": [1, 2]}) for n in range(10)]
    run = ip(f"{LINE} for a, b in itertools.combinations(texts, 2)\n(a[0], b[0], len(a + b))")
    assert run.results == [(str(a), str(b), 400_000) for a in range(10) for b in range(a + 1, 10)]


def test_items_that_are_made_as_they_are_asked_for(ip):
    """Items that exist only while they are packed are not taken for each other."""
    ip("""
from collections.abc import Sequence
class Lazy(Sequence):
    def __len__(self): return 40
    def __getitem__(self, n):
        if isinstance(n, slice): return [self[k] for k in range(*n.indices(40))]
        if n >= 40: raise IndexError
        return (n, [f"{n} {k}" for k in range(20_000)])
lazy = Lazy()
""")
    run = ip(f"{LINE} for n, texts in lazy\n(n, texts[0], texts[-1])")
    assert run.results == [(n, f"{n} 0", f"{n} 19999") for n in range(40)]


def test_what_cannot_be_read_beside_what_is_shared(ip):
    """An item that builds upon another one fails alone; where that other one cannot be read, those that share what is sound are there."""
    ip(f"""
import os
HERE = {__import__("os").getpid()}
class Bad:
    def __setstate__(self, state):
        if os.getpid() != HERE: raise ValueError("not here")
    def __getstate__(self): return 1
shared = [str(n) for n in range(50_000)]
items = [(n, shared, Bad() if n in {{0, 5}} else n) for n in range(8)]
""")
    run = ip(f"{LINE} --keep-going for n, texts, own in items\nlen(texts) + own")
    assert run.results == [None, *(50_000 + n for n in range(1, 5)), None, 50_006, 50_007]


def test_nothing_of_another_item_is_made(ip):
    """What an item has beside what is shared is made where that item is read, and nowhere else."""
    ip("""
import builtins
class Once:
    def __init__(self, n): self.n = n
    def __setstate__(self, state):
        vars(self).update(state)
        builtins.made = [*getattr(builtins, "made", []), self.n]
shared = [str(n) for n in range(50_000)]
items = [(Once(n), shared) for n in range(8)]
""")
    run = ip(f"{LINE} --chunk 1 for own, texts in items\n(own.n, len(texts), list(builtins.made))")
    assert [result[:2] for result in run.results] == [(n, 50_000) for n in range(8)]
    assert all(len(set(made)) == len(made) and made[-1] == n for n, _, made in run.results)
