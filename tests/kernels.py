"""A real kernel, for tests of what happens in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nbformat
from nbclient import NotebookClient


@contextmanager
def kernel(*, allow_errors: bool = True) -> Iterator[Callable[[str], list[Any]]]:
    """Start one that has parmagic loaded; yield a function that runs a cell in it and returns its outputs."""
    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=allow_errors)
    with client.setup_kernel():

        def run(source: str) -> list[Any]:
            cell = nbformat.v4.new_code_cell(source)
            notebook.cells.append(cell)
            client.execute_cell(cell, len(notebook.cells) - 1)
            return list(cell.outputs)

        assert run("%load_ext parmagic") == []
        yield run


def printed(outputs: list[Any], stream: str = "stdout") -> str:
    """Return what a cell has printed to a stream."""
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == stream)
