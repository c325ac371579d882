"""PyTorch's models and tensors reach the workers whole, each worker's own, and come home; nothing of them stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from alongside import cells, tool

pytest.importorskip("torch")

PROCESSES = ["procs=2", "procs=2 --start-method spawn"]

BEGIN = """
import os, warnings
import torch, parmagic
warnings.filterwarnings("ignore")
def open_files(): return len(os.listdir("/proc/self/fd"))
def segments(): return [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
def run(body, items, line="procs=2", **options):
    models, _, method = line.partition(" --start-method ")
    return parmagic.run(body, items, models, once=True, chunk=1, start_method=method or None, **options)
if __name__ == "__main__":
    run(abs, [-1])
    files = open_files()
"""
END = """
    assert open_files() <= files, (open_files(), files)
    assert not segments(), segments()
    print("fine")
"""


def _script(folder: Path, text: str) -> None:
    lines = text.strip("\n").splitlines()
    (folder / "script.py").write_text(BEGIN + "".join(f"    {line}\n" for line in lines) + END)
    assert tool("script.py", into=folder).endswith("fine\n")


@pytest.mark.parametrize("line", PROCESSES)
def test_a_model_of_many_tensors(line, tmp_path):
    """300 tensors go as any object does: there is no limit on their number, and no descriptor for each."""
    text = f"""
model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(150)])
right = model(torch.ones(4)).tolist()
def use(n): return model(torch.ones(4)).tolist(), len(list(model.parameters())), model.training
assert run(use, range(4), {line!r}).results == [(right, 300, True)] * 4
assert run(lambda each: each(torch.ones(4)).tolist(), [model] * 3, {line!r}).results == [right] * 3
home = run(lambda n: model, [0], {line!r}).results[0]
assert type(home) is torch.nn.Sequential and home(torch.ones(4)).tolist() == right
"""
    _script(tmp_path, text)


@pytest.mark.parametrize("size", [4, 1_000_000])
def test_what_a_worker_changes_is_its_own(size, tmp_path):
    """In place: a small tensor is copied, a large one mapped copy-on-write, and neither the notebook nor another worker sees it."""
    text = f"""
t = torch.zeros({size})
def add(n):
    seen = t[0].item()
    t.add_(1)
    return seen, t[0].item(), t[-1].item(), os.getpid()
def worker(results, pid): return [each[:3] for each in results if each[3] == pid]
found = run(add, range(6)).results
for pid in {{each[3] for each in found}}:
    assert worker(found, pid) == [(n, n + 1, n + 1) for n in range(len(worker(found, pid)))]
assert not t.any() and not t.is_shared()
items = [torch.zeros({size}) for _ in range(4)]
homes = run(lambda item: item.add_(1), items).results
assert all(home.eq(1).all() for home in homes) and not any(item.any() for item in items)
homes[0].add_(1)
assert homes[0].eq(2).all() and homes[1].eq(1).all()
"""
    _script(tmp_path, text)


def test_no_copy_of_a_large_one_is_made_before_it_is_written_to(tmp_path):
    """Workers that only read 200 MB map them: what they have of their own does not grow by that."""
    text = """
t = torch.ones(50_000_000)
def own(): return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))
def reads(n):
    before = own()
    total = t.sum().item()
    return total, own() - before
for total, grown in run(reads, range(2)).results:
    assert total == 50_000_000 and grown < 50_000, grown
"""
    _script(tmp_path, text)


def test_what_shares_a_memory_shares_it_there(tmp_path):
    """Views, a tensor in a list, a dataclass and a closure: one memory in the worker, too, and so when they come home."""
    text = """
import dataclasses
for size in (8, 1_000_000):
    base = torch.zeros(size)
    view, turned = base[2:4], base.view(2, -1).t()
    @dataclasses.dataclass
    class Box:
        tensor: torch.Tensor
    box, several = Box(base), [view, {"base": base}]
    def closes(mine):
        def inner(): return mine[2].item()
        return inner
    inner = closes(base)
    def body(n):
        base.add_(1)
        same = box.tensor is base and several[0] is view and several[1]["base"] is base
        return same, view.tolist(), turned[2, 0].item(), inner(), (base, base[2:4])
    same, seen, there, within, (home, part) = run(body, [0]).results[0]
    assert (same, seen, there, within) == (True, [1, 1], 1, 1)
    home.zero_()
    assert part.tolist() == [0, 0] and not base.any()
"""
    _script(tmp_path, text)


def test_kinds_of_tensors(tmp_path):
    """Each kind arrives and comes home as it is: its type, layout, gradient, attributes, flags."""
    text = """
class Marked(torch.Tensor): pass
parameter = torch.nn.Parameter(torch.ones(3))
(parameter.sum() * 2).backward()
tagged = torch.ones(2)
tagged.tag = "mine"
marked = torch.ones(2).as_subclass(Marked)
sparse = torch.sparse_coo_tensor([[0, 1], [1, 0]], [1.0, 2.0], (2, 2))
kinds = {
    "bfloat": torch.ones(3, dtype=torch.bfloat16), "bool": torch.tensor([True, False]), "empty": torch.empty(0, 3),
    "scalar": torch.tensor(3), "conjugate": torch.tensor([1 + 2j]).conj(), "sparse": sparse, "rows": torch.eye(3).to_sparse_csr(),
    "parameter": parameter, "tagged": tagged, "marked": marked, "meta": torch.empty(3, device="meta"), "stepped": torch.arange(9.0)[::3],
    "needs": torch.ones(2, requires_grad=True), "packed": torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)]),
}
def told(kinds):
    return [
        (name, type(each).__name__, str(each), getattr(each, "stride", tuple)() if name not in ("sparse", "rows", "packed") else (),
         getattr(each, "requires_grad", None), str(getattr(each, "grad", None)), getattr(each, "tag", None))
        for name, each in kinds.items()
    ]
def step(n):
    torch.optim.SGD([parameter], lr=0.5).step()  # a gradient of the notebook's
    return parameter
there, home = run(lambda n: (told(kinds), kinds), [0]).results[0]
assert there == told(kinds), (there, told(kinds))
assert told(home) == told(kinds)
assert run(step, [0]).results[0].tolist() == [0, 0, 0]
array = torch.arange(4).numpy()
assert run(lambda n: array.tolist(), [0]).results == [[0, 1, 2, 3]]
assert run(lambda n: kinds["tagged"].resize_(100)[:2].tolist(), [0]).results == [[1, 1]]
"""
    _script(tmp_path, text)


def test_memory_that_is_shared_already(tmp_path):
    """A tensor of ``share_memory_()`` is a worker's own as well, which a note says; multiprocessing.Array is shared under torch, too."""
    text = """
import multiprocessing
t, n_done = torch.zeros(4).share_memory_(), multiprocessing.get_context("forkserver").Array("d", 2)
files = open_files()
def body(n):
    t.add_(1)
    torch.frombuffer(n_done.get_obj(), dtype=torch.float64)[n] += n + 1
    return t.is_shared()
done = run(body, range(2))
assert done.results == [False, False] and not t.any() and n_done[:] == [1, 2]
notes = [note for note in done.notes if "shared memory" in note]
assert len(notes) == 1 and notes[0].startswith("t: "), notes
assert not [note for note in run(abs, [torch.zeros(3).share_memory_()]).notes if "shared memory" in note]
del t, n_done, done
import gc; gc.collect()
files = open_files()
"""
    _script(tmp_path, text)


def test_every_worker_draws_its_own(tmp_path):
    """Of torch's global state; of a generator that is shipped all draw the same, and a note names it."""
    text = """
import multiprocessing
mine, both = torch.Generator(), multiprocessing.get_context("forkserver").Barrier(2)
files = open_files()
torch.manual_seed(0)
def draw(n):
    both.wait(60)
    return torch.rand(4).tolist(), torch.rand(4, generator=mine).tolist(), os.getpid()
done = run(draw, range(2))
(one, same, a), (other, too, b) = done.results
assert a != b and one != other and same == too
assert [note for note in done.notes if note.startswith("mine: shipped in one state")]
del both, draw, done
"""
    _script(tmp_path, text)


def test_in_a_kernel(tmp_path):
    """Names of a notebook, in processes and beside threads; the cell's own tensors are as they were."""
    define = "import torch, os\nt = torch.zeros(4)\nbig = torch.zeros(1_000_000)\nmodel = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(150)])"
    body = "%%parallel procs=2 -q -o run for n in range(4)\nt.add_(1); big.add_(1)\n(big[0] == t[0]).item(), model(t[:2]).shape[0]"
    check = "print(run.results, t.tolist(), big.any().item(), run.error)"
    *_, shown = cells(define, body, check, into=tmp_path)
    assert shown == "[(True, 2), (True, 2), (True, 2), (True, 2)] [0.0, 0.0, 0.0, 0.0] False None\n"


def test_the_baseline_beside_its_threads(tmp_path):
    """Once torch's threads are there, a fork would wait for them: the baseline is a clean process's, and a fork is refused."""
    text = """
a = torch.ones(1500, 1500)
a @ a
def product(n): return float((a @ a)[0, n])
done = parmagic.run(product, range(4), "threads=2")
assert done.summary["baseline"].tolist() == ["measured"] and done.results == [1500.0] * 4, (done.summary, done.notes)
if os.cpu_count() > 1:
    try:
        run(product, range(4), "procs=2 --start-method fork")
    except parmagic.NotShippable as error:
        assert "OpenMP" in str(error), error
    else:
        raise AssertionError("it was not refused")
"""
    _script(tmp_path, text)
