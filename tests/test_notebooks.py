"""A hundred random notebooks of names; ``tests/notebooks.py`` runs as many as you like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(320)
def test_random_notebooks(tmp_path):
    """Under processes each gives what plain Python gives, or is refused before a body has run; another process runs them, to have its ``__main__``."""
    words = [sys.executable, str(Path(__file__).with_name("notebooks.py")), "--count", "100", "--seed", "14"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "0 of 100 notebooks failed" in done.stdout
