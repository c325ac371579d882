"""Short soaks: random cells against an oracle, and nothing left behind (``tests/soak.py``), waits that end (``tests/soak_locks.py``): these run for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_short_soak(tmp_path):
    """Random cells, deaths among them, give what they should, and leave nothing behind; test_contexts has the interrupts."""
    words = [sys.executable, str(Path(__file__).with_name("soak.py")), "--seconds", "15", "--seed", "7", "--undisturbed"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_a_short_soak_of_waits(tmp_path):
    """Workers wait for each other in many ways in which somebody comes in the end: none of their waits is ended."""
    words = [sys.executable, str(Path(__file__).with_name("soak_locks.py")), "--seconds", "8", "--seed", "3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
