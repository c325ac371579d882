"""Other tools' programs, run as people run them: in processes of their own, none of which is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MARK = "PARMAGIC_TESTS_TOOL"


def tool(*words: str, into: Path, code: int = 0, **variables: str) -> str:
    """Run ``python SCRIPT.py …`` or ``python -m MODULE …`` in a folder, with these variables; return what it printed.

    It must end with that code, and leave no process: neither a kernel, nor what runs cells for one.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE", "PYTEST_"))}
    command = [sys.executable, *([] if words[0].startswith("-") or words[0].endswith(".py") else ["-m"]), *words]
    with _nothing_left() as mark:
        done = subprocess.run(
            command, cwd=into, env={**kept, **mark, **variables}, timeout=100, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
    return done.stdout


LEFT = """
import sys, threading
tools = [sys.monitoring.get_tool(each) for each in range(6)] if hasattr(sys, "monitoring") else []
hooks = [sys.getprofile(), sys.gettrace(), threading.getprofile(), threading.gettrace(), *tools]
assert not any(hooks), hooks
assert type(sys.stdout).__module__ == "ipykernel.iostream", sys.stdout
assert not [each.name for each in threading.enumerate() if each.name.startswith("parmagic")]
"""


def cells(*sources: str, into: Path, **variables: str) -> list[str]:
    """Run cells in a kernel of their own, in a folder, with these variables; return what each showed as text.

    None may raise, and behind the last one no hook, thread or stream may be ours, and no process be left.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in ("%load_ext parmagic", *sources, LEFT)])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(into)}})
    with _nothing_left() as mark:
        client.execute(env={**os.environ, **mark, **variables})
    return ["".join(map(_text, cell.outputs)) for cell in notebook.cells[1:-1]]


def _text(output: nbformat.NotebookNode) -> str:
    return str(output.text if output.output_type == "stream" else output.data.get("text/plain", ""))


@contextmanager
def _nothing_left() -> Iterator[dict[str, str]]:
    """Yield a variable for a process to have; see to it that none that has it outlives the block by more than a moment."""
    mark = uuid.uuid4().hex
    yield {MARK: mark}
    until = time.monotonic() + 5
    while (left := list(_marked(mark))) and time.monotonic() < until:
        time.sleep(0.002)
    assert not left, left


def _marked(mark: str) -> Iterator[bytes]:
    """Yield the command lines of those processes that come from that tool."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_bytes()
