"""Where a run's files go: a private folder that cleans up after itself; and files that have no name."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

KEEP = 20
"""Runs whose files are kept."""


class Folder:
    """One run's files, below ``.parmagic`` in the working directory, else in the temporary one.

    Made on first use, by whichever process of the run uses it first; mode 0700; what git sees there is an ignore file.
    """

    def __init__(self, base: str | None = None, keep: int = KEEP) -> None:
        try:
            self._base = os.path.abspath(base or ".parmagic")  # noqa: PTH100  (a body may go elsewhere)
        except OSError:
            self._base = ""  # the working directory is gone
        self._keep = keep
        self._name = f"run-{secrets.token_hex(4)}"

    @property
    def path(self) -> Path:
        """The run's folder; made when it is first asked for."""
        base = self._make_base()
        folder = base / self._name
        if not folder.is_dir():
            self._prune(base)
            folder.mkdir(mode=0o700, exist_ok=True)  # another process of the run may have been faster
        return folder

    def file(self, name: str) -> RunFile:
        """Return a file of this run, which is not there yet."""
        return RunFile(self, name)

    def _make_base(self) -> Path:
        beside = Path(tempfile.gettempdir()) / f"parmagic-{_user()}"
        for base in (Path(self._base), beside) if self._base else (beside,):
            try:
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
        base = Path(tempfile.mkdtemp(prefix="parmagic-"))
        self._base = str(base)  # here again, when asked again
        return base

    def _prune(self, base: Path) -> None:
        """Make room for one more."""
        runs = sorted(base.glob("run-*"), key=_age)
        for run in runs[: max(0, len(runs) - self._keep + 1)]:
            shutil.rmtree(run, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class RunFile:
    """Where a file of a run may go; nothing is made before :meth:`make`."""

    folder: Folder
    name: str

    def make(self) -> Path:
        """Return the file's path, in a folder that is there."""
        return self.folder.path / self.name


def _age(run: Path) -> float:
    """Return when a run was made; 0 where another process or thread has just removed it."""
    try:
        return run.stat().st_mtime
    except OSError:
        return 0.0


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def anonymous_file() -> int:
    """Return a descriptor of memory without a name; of an unlinked file where the system has no such memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("parmagic", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, name = tempfile.mkstemp(prefix="parmagic-")
    Path(name).unlink()
    return descriptor


def keep_size(file: int) -> bool:
    """Let nobody make an anonymous file shorter from here on, which would kill those that have it mapped, or longer.

    False where that cannot be had.
    """
    try:
        import fcntl  # noqa: PLC0415  (not everywhere)

        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except (ImportError, AttributeError, OSError):  # no such system, or a file that is no memory
        return False
    return True


def keeps_size(file: int) -> bool:
    """Tell whether nobody can make a file shorter."""
    try:
        import fcntl  # noqa: PLC0415  (not everywhere)

        return bool(fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except (ImportError, AttributeError, OSError):
        return False


def write_all(file: int, data: memoryview, offset: int) -> int:
    """Write all of ``data`` at ``offset``; return how much that is."""
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done : done + (1 << 30)], offset + done)
    return done
