"""Where a run's files go: a private folder that cleans up after itself; and files that have no name."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from parmagic.system.folders import Place, user
from parmagic.system.interrupts import held_back

KEEP_RUNS = 20
"""Runs whose files are kept."""

KEEP_BYTES = 1_000_000_000
"""Bytes that the files of all runs may have together; the newest run's are kept however many they are."""

_RUN = re.compile(r"run-[0-9a-f]{8}")
_GONE = "."
"""What stands before the name of a run's folder while that is removed: who is killed meanwhile leaves something that is known."""
_FILE = re.compile(r"[0-9a-z]+-[0-9]+\.json")
_MARK, _RUNNING = "parmagic", "running"
"""Files in a run's folder. The mark has the folder's own name in it: one that was copied or renamed is its user's.
The other has the number of the process whose run it is, and goes when that run ends."""


class Folder:
    """One run's files, below ``.parmagic`` in the working directory, else in the temporary one.

    Made on first use, by whichever process of the run uses it first; mode 0700. A
    folder ``base`` that others may write to, or that is a link, is not used: the
    ``notes`` say so. Of what lies there, only files are removed that runs have made.
    """

    def __init__(self, base: str | None = None, keep_runs: int = KEEP_RUNS, keep_bytes: int = KEEP_BYTES) -> None:
        self._asked = base or ".parmagic"
        try:
            self._base = os.path.abspath(os.path.expanduser(self._asked))  # noqa: PTH100, PTH111  (a body may go elsewhere)
        except OSError:
            self._base = ""  # the working directory is gone
        self._keep_runs, self._keep_bytes = keep_runs, keep_bytes
        self._name = f"run-{secrets.token_hex(4)}"
        self._process = os.getpid()
        self._moved = self._ended = False
        self.notes: list[str] = []

    @property
    def path(self) -> Path:
        """The run's folder; made when it is first asked for."""
        with self._place() as run:
            return Path(run.path)

    def file(self, name: str) -> RunFile:
        """Return a file of this run, which is not there yet."""
        assert _FILE.fullmatch(name), "else it would not be removed with its run"
        return RunFile(self, name)

    def create(self, name: str) -> tuple[int, str]:
        """Make a file in the run's folder; return its descriptor, open for writing, and its path."""
        with self._place() as run:
            return run.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), str(Path(run.path) / name)

    def end(self) -> None:
        """The run is over: what it has written counts as that of any other run from now on."""
        if self._ended:
            return
        self._ended = True
        with suppress(OSError):
            for base in {self._base, _beside()}:
                with suppress(OSError), Place(base) as place, Place(self._name, place) as run:
                    self._finish(run)
                    self._prune(place)

    def _finish(self, run: Place) -> None:
        """Mark the folder, where the worker that made it was killed before it could; nobody else has made one of this name."""
        with suppress(OSError):
            run.unlink(_RUNNING)
        marked = False
        with suppress(OSError):
            marked = run.read(_MARK) == self._name
        if not marked:
            with suppress(OSError):
                run.unlink(_MARK)
            run.write(_MARK, self._name)

    def _place(self) -> Place:
        """Return the run's folder, open; below the temporary directory, where it cannot be where it was asked for."""
        try:
            return self._made(self._base)
        except OSError as error:
            if self._moved:
                raise
            self.notes.append(_elsewhere(self._asked, _reason(self._base, error)))
        self._base, self._moved = _beside(), True  # here again, when asked again
        try:
            return self._made(self._base)
        except OSError:  # somebody else has that name in a directory which all users share
            self._base = tempfile.mkdtemp(prefix="parmagic-")
            return self._made(self._base)

    def _made(self, base: str) -> Place:
        """Return the run's folder below ``base``, open; OSError where that is no place for it."""
        new = _make(base)
        with Place(base) as place:
            why_not = place.why_not_ours()
            if why_not:
                raise _NotOurs(why_not)
            if new:
                with suppress(FileExistsError):
                    place.write(".gitignore", "*\n")
            # it may exist, perhaps made by another process of the run; a Ctrl-C before the mark would leave it for good
            with suppress(FileExistsError), held_back():
                place.make_folder(self._name)
                self._mark(place)
            return Place(self._name, place)

    def _mark(self, base: Place) -> None:
        """Tell whose the new folder is, and make room for it; where that cannot be written, there is no folder."""
        with Place(self._name, base) as run:
            try:
                run.write(_MARK, self._name)
                if not self._ended:  # a thread that was left behind may still write when it ends
                    run.write(_RUNNING, str(self._process))
            except OSError:
                for file in run.names():
                    run.unlink(file)
                base.remove_folder(self._name)
                raise
        self._prune(base)

    def _prune(self, base: Place) -> None:
        """Remove the oldest runs' files: what is more than so many runs, or so many bytes."""
        runs: list[_Kept] = []
        with suppress(OSError):
            runs += [run for name in base.names() if _RUN.fullmatch(name) and (run := _look(base, name))]
        size = 0
        for place, run in enumerate(sorted(runs, reverse=True)):
            size += run.size
            too_much = place >= self._keep_runs or size > self._keep_bytes
            if too_much and place and run.name != self._name and not _is_running(base, run.name):
                _remove(base, run.name)
        with suppress(OSError):
            for name in base.names():
                if name.startswith(_GONE) and _RUN.fullmatch(name.removeprefix(_GONE)):
                    _clear(base, name)


@dataclass(frozen=True, slots=True)
class RunFile:
    """Where a file of a run may go; nothing is made before :meth:`create`."""

    folder: Folder
    name: str

    def create(self) -> tuple[int, str]:
        """Make the file; return its descriptor, open for writing, and its path."""
        return self.folder.create(self.name)


class _NotOurs(PermissionError):
    """A folder that others may write to."""


class _Kept(NamedTuple):
    """A run's folder: when something last came or went there, its name, the bytes of its files."""

    changed: float
    name: str
    size: int


def _make(base: str) -> bool:
    """Make a folder where there is none; tell whether that was so."""
    try:
        os.mkdir(base, 0o700)  # noqa: PTH102  (text, as it is opened)
    except FileExistsError:
        return False
    return True


def _beside() -> str:
    """Return the folder that takes the place of one that cannot be used; OSError where there is no temporary directory."""
    return str(Path(tempfile.gettempdir()) / f"parmagic-{user()}")


def _elsewhere(asked: str, why: str) -> str:
    return (
        f"The functions that were recorded are kept in the temporary directory: {asked} {why} "
        "(%config ParallelMagics.folder names another place)."
    )


def _reason(base: str, error: OSError) -> str:
    if not base:
        return "has no place, as the working directory is gone"
    if isinstance(error, _NotOurs):
        return str(error)
    if Path(base).is_symlink():
        return "is a link"
    if isinstance(error, NotADirectoryError):
        return "is no folder"
    return f"cannot be used ({error.strerror})"


def _is_ours(run: Place, name: str) -> bool:
    """Tell whether a folder was made for a run, and for no other than this one; OSError where it has no mark."""
    return not run.why_not_ours() and run.read(_MARK) == name


def _look(base: Place, name: str) -> _Kept | None:
    """Look at a folder; None where it is not a run's."""
    try:
        with Place(name, base) as run:
            sizes = [run.about(file).st_size for file in run.names() if _FILE.fullmatch(file)]
            return _Kept(run.about().st_mtime, name, sum(sizes)) if _is_ours(run, name) else None
    except OSError:
        return None  # it has no mark, or another process has just removed it


def _is_running(base: Place, name: str) -> bool:
    """Tell whether a run goes on, in whichever process; it does not where that was killed."""
    import psutil  # noqa: PLC0415  (loads when there is something to remove)

    try:
        with Place(name, base) as run:
            return psutil.pid_exists(int(run.read(_RUNNING)))
    except (OSError, ValueError):
        return False


def _remove(base: Place, name: str) -> None:
    """Remove a run's files and mark, and its folder where nothing else is in it; what cannot be removed stays, with its mark."""
    with suppress(OSError):
        with Place(name, base) as run:
            if not _is_ours(run, name):
                return
            for file in run.names():
                if _FILE.fullmatch(file) or file == _RUNNING:
                    run.unlink(file)
            if run.names() != [_MARK]:
                run.unlink(_MARK)  # from now on it is whose files are in there
                return
        base.rename(name, _GONE + name)
        _clear(base, _GONE + name)


def _clear(base: Place, name: str) -> None:
    """Remove a run's folder in which there is nothing else than its mark, and perhaps not even that."""
    with suppress(OSError):
        with Place(name, base) as run, suppress(FileNotFoundError):
            if run.read(_MARK) == name.removeprefix(_GONE):
                run.unlink(_MARK)
        base.remove_folder(name)


def anonymous_file() -> int:
    """Return a descriptor of memory without a name; of an unlinked file where the system has no such memory, or refuses it."""
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("parmagic", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EACCES, errno.ENOSYS}:
                raise
    descriptor, name = tempfile.mkstemp(prefix="parmagic-")
    Path(name).unlink()
    return descriptor


def keep_size(file: int) -> bool:
    """Let nobody make an anonymous file shorter from here on, which would kill those that have it mapped, or longer.

    False where that is not possible.
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
