"""Where a run's files go: a private folder that cleans up after itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

KEEP = 20
"""Runs whose files are kept."""


class Folder:
    """One run's files, below ``.parmagic`` in the working directory, else in the temporary one.

    Made on first use, mode 0700; what git sees there is an ignore file.
    """

    def __init__(self, base: str | None = None, keep: int = KEEP) -> None:
        self._base = base
        self._keep = keep
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The run's folder; made when it is first asked for."""
        if self._path is None:
            base = self._make_base()
            self._prune(base)
            self._path = Path(tempfile.mkdtemp(prefix="run-", dir=base))
        return self._path

    def trace_path(self, name: str, mode: str) -> str:
        """Return where a worker's functions go; empty, and no folder made, where none are traced."""
        return "" if mode == "off" else str(self.path / f"{name}.json")

    def _make_base(self) -> Path:
        for place in (Path(self._base or ".parmagic"), Path(tempfile.gettempdir()) / f"parmagic-{_user()}"):
            try:
                base = place.absolute()
                base.mkdir(mode=0o700, exist_ok=True)
                if base.stat().st_uid != _user():
                    continue
                ignore = base / ".gitignore"
                if not ignore.exists():
                    ignore.write_text("*\n")
                if os.access(base, os.W_OK | os.X_OK):
                    return base
            except OSError:
                continue
        return Path(tempfile.mkdtemp(prefix="parmagic-"))

    def _prune(self, base: Path) -> None:
        """Make room for one more."""
        runs = sorted(base.glob("run-*"), key=_age)
        for run in runs[: max(0, len(runs) - self._keep + 1)]:
            shutil.rmtree(run, ignore_errors=True)


def _age(run: Path) -> float:
    """Return when a run was made; 0 where another process or thread has just removed it."""
    try:
        return run.stat().st_mtime
    except OSError:
        return 0.0


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
