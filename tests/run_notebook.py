"""Run notebooks in real kernels, as a user would; exit 1 on the first cell that raises.

python tests/run_notebook.py examples/*.ipynb
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Run each notebook in a folder of its own."""
    for name in sys.argv[1:]:
        notebook = nbformat.read(name, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        cells = sum(cell.cell_type == "code" for cell in notebook.cells)
        print(f"{Path(name).name}: {cells} cells ran")


if __name__ == "__main__":
    main()
