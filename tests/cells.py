"""Forty cells as people write them, and what the verdict says of each: to be read, and signed, by who knows.

``python tests/cells.py [names…]`` runs them in one shell and prints a row each: the line, the speedups, the verdict, and the
notes. Cells whose libraries are missing are named at the end. ``--crowd N`` runs them beside N busy processes. ``--table FILE`` runs
them twice, alone and beside as many, and writes both verdicts of each as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from crowd import crowd
from IPython.core.interactiveshell import InteractiveShell


class Cell(NamedTuple):
    """What it is called, the libraries that it needs, what is run before, the magic line and its body, and what is run behind it."""

    name: str
    needs: str
    before: str
    line: str
    body: str
    after: str = ""


ALL = "threads=2 procs=2"

SERVER = """
import http.server, threading, time, urllib.request
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.05)
        self.send_response(200); self.end_headers(); self.wfile.write(b'x' * 1000)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Slow)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f'http://127.0.0.1:{server.server_port}/'
"""
SERVED = "server.shutdown(); server.server_close()"
POOL = """
import contextlib, queue, time
class Pool:
    def __init__(self, n):
        self.free = queue.Queue()
        for number in range(n): self.free.put(number)
    @contextlib.contextmanager
    def connection(self):
        one = self.free.get()
        try: yield one
        finally: self.free.put(one)
pool = Pool(1)
"""
PIPELINE = """
import queue, time
jobs = queue.Queue(2)
"""
ARRAYS = "import numpy as np\nbig = np.random.default_rng(0).random((1_000_000, 8))\nsquares = np.random.default_rng(0).random((400, 400))"
SQLITE = """
import sqlite3, os
path = os.path.join(folder, 'a.db')
with contextlib.suppress(FileNotFoundError): os.remove(path)
base = sqlite3.connect(path); base.execute('create table t (a int, b int)')
base.executemany('insert into t values (?, ?)', [(i, i % 97) for i in range(200_000)]); base.commit(); base.close()
"""

CELLS = [
    Cell("python loop", "", "", f"{ALL} for n in range(8)", "t = 0\nfor i in range(800_000): t += i * i\nt"),
    Cell("python loop, 8 threads", "", "", "threads=8 for n in range(16)", "t = 0\nfor i in range(400_000): t += i * i\nt"),
    Cell("python loop, 8 processes", "", "", "procs=8 for n in range(16)", "t = 0\nfor i in range(800_000): t += i * i\nt"),
    Cell("primes", "", "def prime(n): return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))", f"{ALL} for n in range(20)", "sum(prime(m) for m in range(n * 3000, n * 3000 + 3000))"),
    Cell("regular expressions", "", "import re\ntext = 'a1 b22 c333 ' * 40_000\nword = re.compile(r'[a-z]\\d+')", f"{ALL} for n in range(8)", "len(word.findall(text))"),
    Cell("json", "", "import json\ntext = json.dumps([{'a': i, 'b': str(i)} for i in range(60_000)])", f"{ALL} for n in range(8)", "len(json.loads(text))"),
    Cell("hashes", "", "import hashlib\ndata = b'x' * 30_000_000", f"{ALL} for n in range(16)", "hashlib.sha256(data).hexdigest()"),
    Cell("zlib", "", "import zlib, os\ndata = os.urandom(4_000_000)", f"{ALL} for n in range(8)", "len(zlib.compress(data))"),
    Cell("sleep", "", "import time", "threads=8 procs=8 for n in range(16)", "time.sleep(0.1)"),
    Cell("http", "", SERVER, "threads=8 procs=8 for n in range(32)", "len(urllib.request.urlopen(url).read())", SERVED),
    Cell("http, 32 threads", "", SERVER, "threads=32 for n in range(96)", "len(urllib.request.urlopen(url).read())", SERVED),
    Cell("files", "", "import os", "threads=4 procs=4 for n in range(40)", "p = os.path.join(folder, f'f{n}')\nwith open(p, 'wb') as f: _ = f.write(b'x' * 2_000_000)\nwith open(p, 'rb') as f: size = len(f.read())\nsize"),
    Cell("subprocess", "", "import subprocess, sys", "threads=2 procs=2 for n in range(6)", "subprocess.run([sys.executable, '-c', 'sum(range(2_000_000))'], check=True).returncode"),
    Cell("tiny items", "", "", f"{ALL} for n in range(200_000)", "n * n"),
    Cell("tiny cell", "", "", f"{ALL} for n in range(10)", "n * n"),
    Cell("uneven items", "", "", f"{ALL} for n in [1, 1, 1, 1, 1, 1, 1, 40]", "t = 0\nfor i in range(n * 100_000): t += i\nt"),
    Cell("few items", "", "", "procs=8 for n in range(2)", "t = 0\nfor i in range(4_000_000): t += i\nt"),
    Cell("one lock around all", "", "import threading, time\nlock = threading.Lock()", "threads=4 for n in range(20)", "with lock:\n    time.sleep(0.03)"),
    Cell("a lock for a part", "", "import threading, time\nlock = threading.Lock()", "threads=4 for n in range(20)", "time.sleep(0.04)\nwith lock:\n    time.sleep(0.01)"),
    Cell("a lock of a function's module", "", "import threading, time\nlock = threading.Lock()\ndef save(n):\n    with lock:\n        time.sleep(0.03)", "threads=4 for n in range(20)", "save(n)"),
    Cell("a semaphore", "", "import threading, time\ngate = threading.Semaphore(2)", "threads=8 for n in range(24)", "with gate:\n    time.sleep(0.05)"),
    Cell("a connection pool of one", "", POOL, "threads=4 for n in range(20)", "with pool.connection() as c:\n    time.sleep(0.03)"),
    Cell("a queue pipeline", "", PIPELINE, "threads=2", "if worker.rank == 0:\n    for i in range(20):\n        time.sleep(0.03); jobs.put(i)\n    jobs.put(None)\nelse:\n    while jobs.get() is not None: pass"),
    Cell("an event that comes late", "", "import threading, time\nready = threading.Event()", "threads=4", "if worker.rank == 0:\n    time.sleep(0.5); ready.set()\nelse:\n    _ = ready.wait()"),
    Cell("a barrier", "", "import threading, time\nall_here = threading.Barrier(4)", "threads=4", "for i in range(5):\n    time.sleep(0.02 * (worker.rank + 1)); _ = all_here.wait()"),
    Cell("a counter with a lock", "", "import threading\nlock = threading.Lock()\ncount = [0]", "threads=4 for n in range(40)", "for i in range(20_000):\n    with lock:\n        count[0] += 1"),
    Cell("large items", "", "texts = ['x' * 20_000_000 for _ in range(8)]", f"{ALL} for text in texts", "text.count('y')"),
    Cell("large results", "", "", "procs=2 for n in range(8)", "[i for i in range(1_000_000)]"),
    Cell("sqlite reads", "", SQLITE, f"{ALL} for n in range(16)", "sqlite3.connect(path).execute('select b, count(*), avg(a) from t group by b').fetchall()"),
    Cell("numpy elementwise", "numpy", ARRAYS, f"{ALL} for n in range(8)", "float(np.sqrt(np.exp(big)).sum())"),
    Cell("numpy matrix products", "numpy", ARRAYS, f"{ALL} for n in range(16)", "float((squares @ squares @ squares @ squares).sum())"),
    Cell("numpy products, BLAS limited", "numpy threadpoolctl", ARRAYS + "\nimport threadpoolctl\nlimits = threadpoolctl.threadpool_limits(1)", f"{ALL} for n in range(16)", "float((squares @ squares @ squares @ squares).sum())", "limits.restore_original_limits()"),
    Cell("numpy small arrays", "numpy", "import numpy as np", f"{ALL} for n in range(8)", "sum(float(np.arange(20).sum()) for _ in range(40_000))"),
    Cell("pandas groupby", "pandas", "import pandas as pd, numpy as np\nframe = pd.DataFrame({'k': np.arange(500_000) % 1000, 'v': np.random.default_rng(0).random(500_000)})", f"{ALL} for n in range(12)", "frame.groupby('k').v.agg(['mean', 'std']).sum().sum()"),
    Cell("pandas apply", "pandas", "import pandas as pd\nframe = pd.DataFrame({'v': range(30_000)})", f"{ALL} for n in range(8)", "frame.v.apply(lambda v: v ** 0.5 + n).sum()"),
    Cell("pandas csv", "pandas", "import pandas as pd, os\ncsv = os.path.join(folder, 'a.csv')\npd.DataFrame({'a': range(200_000), 'b': 1.5}).to_csv(csv)", f"{ALL} for n in range(8)", "len(pd.read_csv(csv))"),
    Cell("pillow", "PIL", "from PIL import Image, ImageFilter\nimage = Image.effect_noise((1200, 1200), 60)", f"{ALL} for n in range(8)", "image.filter(ImageFilter.GaussianBlur(8)).resize((200, 200)).getextrema()"),
    Cell("scikit-learn forests", "sklearn", "from sklearn.ensemble import RandomForestClassifier\nfrom sklearn.datasets import make_classification\nX, y = make_classification(2000, 20, random_state=0)", f"{ALL} for n in range(6)", "RandomForestClassifier(20, random_state=n).fit(X, y).score(X, y)"),
    Cell("scikit-learn regressions", "sklearn", "from sklearn.linear_model import LogisticRegression\nfrom sklearn.datasets import make_classification\nX, y = make_classification(20000, 60, random_state=0)", f"{ALL} for c in [0.01, 0.1, 1, 10, 0.02, 0.2, 2, 20]", "LogisticRegression(C=c, max_iter=300).fit(X, y).score(X, y)"),
    Cell("numba with the GIL", "numba", "import numba\n@numba.njit\ndef spin(n):\n    t = 0.0\n    for i in range(n): t += i ** 0.5\n    return t\n_ = spin(10)", f"{ALL} for n in range(8)", "spin(30_000_000)"),
    Cell("numba without the GIL", "numba", "import numba\n@numba.njit(nogil=True)\ndef spin(n):\n    t = 0.0\n    for i in range(n): t += i ** 0.5\n    return t\n_ = spin(10)", f"{ALL} for n in range(8)", "spin(30_000_000)"),
    Cell("polars", "polars", "import polars as pl, random\nframe = pl.DataFrame({'k': [i % 1000 for i in range(400_000)], 'v': [float(i) for i in range(400_000)]})", f"{ALL} for n in range(24)", "frame.lazy().group_by('k').agg(pl.col('v').mean().alias('m'), pl.col('v').std()).sort('k').collect().height"),
]  # fmt: skip


def main() -> None:
    """Run the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all cells without any")
    parser.add_argument("--crowd", type=int, default=0, help="busy processes beside them")
    parser.add_argument("--table", type=Path, help="a file for the verdicts, alone and beside these")
    asked = parser.parse_args()
    wanted = [cell for cell in CELLS if not asked.names or any(name in cell.name for name in asked.names)]
    missing = [cell.name for cell in wanted if not all(map(importlib.util.find_spec, cell.needs.split()))]
    cells = [cell for cell in wanted if cell.name not in missing]
    beside = _verdicts(cells, asked.crowd)
    if asked.table:
        _write(asked.table, cells, _verdicts(cells, 0), beside, asked.crowd)
    if missing:
        print("\nnot run, for want of their libraries:", ", ".join(missing))


def _verdicts(cells: list[Cell], busy: int) -> list[str]:
    """Run cells beside so many busy processes, and print what is said of each; return their verdicts."""
    shell = InteractiveShell()
    with tempfile.TemporaryDirectory() as folder, crowd(busy):
        shell.run_cell("%load_ext parmagic\nimport contextlib", silent=True)
        shell.user_ns["folder"] = folder
        return [_show(shell, cell) for cell in cells]


def _show(shell: InteractiveShell, cell: Cell) -> str:
    print(f"\n{cell.name}: %%parallel {cell.line}", flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        shell.run_cell(cell.before, silent=True).raise_error()
        shell.run_cell(f"%%parallel -q -o run {cell.line}\n{cell.body}", silent=True).raise_error()
        shell.run_cell(cell.after, silent=True).raise_error()
    run = shell.user_ns["run"]
    print("   ", "; ".join(f"{label} {row.speedup:.2f}x, {row.cores_used:.1f} cores" for label, row in run.summary.iterrows()))
    print("     ", run.verdict)
    for note in run.notes:
        if "The body ran" not in note:
            print("     ·", note)
    return str(run.verdict)


def _write(path: Path, cells: list[Cell], alone: list[str], beside: list[str], busy: int) -> None:
    """Write a table of both verdicts of each cell."""
    cpus, python = len(os.sched_getaffinity(0)), ".".join(map(str, sys.version_info[:3]))
    rows = [f"| cell | line | on a quiet machine | beside {busy} busy programs |", "| --- | --- | --- | --- |"]
    for cell, *verdicts in zip(cells, alone, beside, strict=True):
        rows.append("| " + " | ".join(each.replace("|", "\\|") for each in (cell.name, f"`{cell.line}`", *verdicts)) + " |")
    text = f"""# What the verdict says

Cells as people write them, run once each on {cpus} CPUs under Python {python}: alone, and beside {busy} programs that compute all the time.
`python tests/cells.py --crowd {busy} --table {path}` writes this page, and `tests/cells.py` has the bodies. Figures differ from run to run.

"""
    path.write_text(text + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()
