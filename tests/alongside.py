"""Other tools' programs, run as people run them: in a process of their own, with nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from kin import titled


def tool(*words: str, into: Path, **variables: str) -> str:
    """Run ``python -m WORDS`` in a folder, with these variables; return what it printed. It must succeed, and leave no process of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE", "PYTEST_"))}
    command = [sys.executable, *(("-m",) if not words[0].endswith(".py") and not words[0].startswith("-") else ()), *words]
    with subprocess.Popen(
        command, cwd=into, env={**environment, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    until = time.monotonic() + 2
    while (left := list(titled(process.pid))) and time.monotonic() < until:
        time.sleep(0.002)
    assert not left, left
    return printed
