"""In a real Jupyter kernel: functions of cells are shown with the cells' numbers, not with the temporary files' paths."""

from __future__ import annotations

import json

import kernels

LOOK = """
import json, pathlib
run.timeline.save('trace.json')
run.save('page.html')
trace, page = pathlib.Path('trace.json').read_text(), pathlib.Path('page.html').read_text()
names = sorted({e['name'] for e in json.loads(trace)['traceEvents'] if e.get('cat') == 'function'})
again = parmagic.result.from_plain(json.loads(json.dumps(parmagic.result.to_plain(run))))
told = sorted({name for _, calls in parmagic.result.study(again).functions() for each in calls for name in each.names})
paths = [text for text in (trace, page) if 'ipykernel_' in text or 'ipython-input' in text]
pathlib.Path('trace.json').unlink(); pathlib.Path('page.html').unlink()
print(json.dumps([names, told, [name.rpartition('>')[2] in page for name in names], len(paths), hasattr(get_ipython().compile, '_filename_map')]))
"""


def test_functions_are_in_their_cells(tmp_path):
    """In the trace, in the page, and in a run that was written down and read again; also where the cell has run again since."""
    with kernels.kernel() as kernel:
        assert not kernel(f"import os, parmagic\nos.chdir({str(tmp_path)!r})")
        (shown,) = kernel("def work(n):\n    return sum(range(n))\n0")
        assert not kernel("%%parallel threads=2 procs=2 --once --trace full -q -o run for n in range(4)\nwork(n)")
        assert kernel("def work(n):\n    return sum(range(n))\n0")
        names, told, in_page, n_paths, numbered = json.loads(kernels.printed(kernel(LOOK)))
    number = shown.execution_count
    where = f"In[{number}]" if numbered else "a cell"
    assert f"work ({where}:1)" in names
    assert f"work ({where}:1)" in told
    assert f"<cell> (In[{number + 1}]:1)" in names
    assert all(in_page)
    assert n_paths == 0
