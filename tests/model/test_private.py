"""What files hold of a run: no text from items, results, errors or the environment, unless the user lets them."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import json
import pickle
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import parmagic
from parmagic.analyze import functions
from parmagic.model.private import Private, described, joined, public, public_error, say
from parmagic.record import tracing
from parmagic.render import serve
from parmagic.result import from_plain, to_plain

SETUP = """
import contextlib, os, threading, time
os.environ['PLANTED'] = 'hunter2environ'
class Person:
    '''hunter2docstring'''
    def __init__(self, name): self.name = name
    def __repr__(self): return 'hunter2repr'
items = [{'hunter2key': Person('hunter2value'), 'n': n} for n in range(6)]
locks = {'hunter2lock': threading.Lock()}
opened = 'hunter2file'
def work(n):
    return n
def fail(item):
    error = ValueError(f"hunter2message {item} {os.environ['PLANTED']}")
    error.add_note('hunter2note')
    raise error from KeyError('hunter2cause')
"""

BODY = """
print('hunter2printed')  # hunter2comment
with open(opened, 'w') as file:
    file.write('hunter2written')
thread = threading.Thread(target=lambda: [work(k) for k in range(500)], name='hunter2thread')
thread.start(); thread.join()
threading.current_thread().name = 'hunter2worker'
[work(k) for k in range(500)]
"""


def _served(run: parmagic.Run) -> bytes:
    parts = urlsplit(serve.link(run._study))
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    assert answer.status == 200
    body = answer.read()
    connection.close()
    serve.close()
    return body


def _saved(run: parmagic.Run) -> dict[str, bytes]:
    """Return the bytes of all that a run leaves in files, or sends to a browser, by what it is."""
    for name in ("report.html", "page.html", "trace.json", "trace.json.gz"):
        run.save(name) if name == "report.html" else run.timeline.save(name)
    if FIGURES:
        import matplotlib as mpl

        with mpl.rc_context({"svg.fonttype": "none"}):
            run.plot().savefig("figure.svg")
    files = [*Path().glob("*.html"), *Path().glob("trace.*"), *Path().glob("figure.*"), *Path(".parmagic").rglob("*")]
    found = {str(path): path.read_bytes() for path in files if path.is_file()}
    found["trace.json.gz"] = gzip.decompress(found["trace.json.gz"])
    plain = to_plain(run)
    traces = b"".join(trace.data for timeline in from_plain(plain)._study.timelines for trace in timeline.traces)  # packed, elsewhere
    found["plain"] = json.dumps(plain).encode() + traces
    return found | {"served": _served(run), "shown": run.timeline.show()._repr_html_().encode()}


def _telling(saved: dict[str, bytes], what: str) -> set[str]:
    """Return which of these have such a text in them."""
    return {name for name, data in saved.items() if what in data.decode().replace("\\u2026", "…")}


WITH_NOTES = {"report.html", "page.html", "trace.json", "trace.json.gz", "served", "shown", "plain"}
FIGURES = {"figure.svg"} if importlib.util.find_spec("matplotlib") else set()  # an extra


@pytest.mark.parametrize("line", ["threads=2", "procs=2"])
def test_no_file_tells_what_is_the_users(ip, line):
    """Secrets in items, keys, results, errors, prints, variables, names of threads and files: none is in any file; on screen, they may be."""
    ip(SETUP)
    run = ip(f"""%%parallel {line} -q --keep-going --trace full for item in items
{BODY}
if item['n'] % 2: fail(item)
if worker.model == 'serial': raise ValueError('hunter2baseline')
[f'hunter2result', item]""")
    assert [each for each in run.items["error"].dropna() if "hunter2message" in each]
    assert any(result and result[0] == "hunter2result" for result in run.results)
    assert any(Path(trace.path).stat().st_size for timeline in run._study.timelines for trace in timeline.traces)
    saved = _saved(run)
    assert _telling(saved, "hunter2") == set()
    assert _telling(saved, "ValueError") >= WITH_NOTES


@pytest.mark.parametrize("leave", [False, True])
def test_a_run_that_failed_tells_why_with_leave(ip, leave):
    """The message of the error that ended a run, and of the one that ended the baseline, is in files with ``show_items`` only, its type always."""
    ip(SETUP)
    ip(f"%config ParallelMagics.show_items = {leave}")
    assert isinstance(ip.fails(f"%%parallel threads=2 -q --trace full for item in items\n{BODY}\nfail(item)"), ValueError)
    run = parmagic.last()
    assert "hunter2message" in run.verdict
    saved, everywhere = _saved(run), WITH_NOTES | FIGURES
    assert _telling(saved, "hunter2message") == (everywhere if leave else set())
    assert _telling(saved, "ValueError") >= everywhere
    assert leave or _telling(saved, "hunter2") == set()


@pytest.mark.parametrize("leave", [False, True])
def test_the_baselines_failure(ip, leave):
    """Why the serial baseline failed is told under the cell, and in files with leave only."""
    ip(f"%config ParallelMagics.show_items = {leave}")
    run = ip("%%parallel threads=2 -q for n in range(4)\nif worker.model == 'serial': raise ValueError('hunter2baseline')\nn")
    assert [note for note in run.notes if "The serial baseline failed (ValueError: hunter2baseline)" in note]
    saved = _saved(run)
    assert _telling(saved, "hunter2") == (WITH_NOTES if leave else set())
    assert _telling(saved, "The serial baseline failed (ValueError") == WITH_NOTES


def test_a_lock_is_called_by_its_key_under_the_cell_only(ip):
    """A key of a dict may be an item: tables and verdict name the lock by it, files leave it out."""
    ip(SETUP)
    run = ip("%%parallel threads=2 -q --once for n in range(8)\nwith locks['hunter2lock']:\n    time.sleep(0.02)")
    if not run.workers["measured"].all():
        pytest.skip("waits are not measured here")
    assert "locks['hunter2lock']" in run.waits["object"].tolist()
    assert "locks['hunter2lock']" in run.verdict
    saved = _saved(run)
    assert _telling(saved, "hunter2") == set()
    assert _telling(saved, "locks[…]") == WITH_NOTES | FIGURES


def test_threads_and_names_that_keep_a_baseline_away(ip):
    """The note on why there is no baseline names the user's threads, and what cannot be shipped; files only say how many, and that."""
    ip.space["stream"] = (n for n in range(3))
    done = threading.Event()
    threading.Thread(target=done.wait, name="hunter2thread").start()
    try:
        run = ip("%parallel threads=2 -q (n, stream)[0] for n in range(4)")
    finally:
        done.set()
    assert [note for note in run.notes if "hunter2thread" in note]
    assert [note for note in run._study.saved.notes if "threads of yours are alive (1)" in note and "NotShippable" in note]
    assert _telling(_saved(run), "hunter2") == set()


def test_tables_of_figures_are_not_made_again(ip):
    """What a file has of a run is made from the run's own tables, where these are figures."""
    run = ip("%parallel threads=2 -q --once n for n in range(4)")
    summary, workers = run.summary, run.workers
    assert run._study.saved.summary is summary
    assert run._study.saved.workers is workers
    assert run._study.saved.results == [None] * 4


def test_a_private_text():
    """Its public text goes wherever the text goes: into sentences, and across a process's border."""
    name = Private("locks['ann']", "locks[…]")
    assert (joined(name, ".inner"), public(joined(name, ".inner"))) == ("locks['ann'].inner", "locks[…].inner")
    sentence = say("{n} waited for {name}.", n=2, name=name)
    assert (sentence, public(sentence)) == ("2 waited for locks['ann'].", "2 waited for locks[…].")
    assert public(pickle.loads(pickle.dumps(sentence))) == public(sentence)
    assert type(say("{n} waited.", n=2)) is str


def test_a_public_error():
    """Of an error, its type's name is public; what it says is not."""
    error = KeyError("ann")
    assert (described(error), public(described(error))) == ("KeyError: 'ann'", "KeyError")
    assert repr(public_error(error)) == "KeyError()"
    assert described(public_error(error)) == "KeyError"
    assert public_error(None) is None


def test_a_trace_names_no_thread():
    """What VizTracer says of a thread is left out: the body may have called it after an item. Its calls are all there."""

    def called() -> None:
        pass

    def traced() -> None:
        trace.attach(0)
        trace.refresh()
        for _ in range(100):
            called()
        trace.detach()

    trace = tracing.prepare("full")
    trace.start()
    try:
        thread = threading.Thread(target=traced, name='hunter2 "},{"pid":1,"]')
        thread.start()
        thread.join()
        found = trace.finish(None)
    finally:
        trace.end()
    assert b"hunter2" not in found.data
    [calls] = functions.read(found)
    assert sum("called" in name for _, _, name in calls) == 100
