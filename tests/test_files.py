"""Where files go: a private folder, made on first use, that cleans up after itself."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from parmagic.files import Folder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _backdate(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_nothing_before_first_use(tmp_path):
    """A run that writes nothing leaves nothing."""
    Folder()
    assert list(tmp_path.iterdir()) == []


def test_private_and_ignored(tmp_path):
    """Folders are the user's alone, and git ignores them."""
    old = os.umask(0)
    try:
        path = Folder().path
    finally:
        os.umask(old)
    assert path.parent == tmp_path / ".parmagic"
    assert (_mode(path), _mode(path.parent)) == (0o700, 0o700)
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_one_folder_per_run():
    """A run keeps its folder; another run has another."""
    one, two = Folder(), Folder()
    assert one.path == one.path != two.path


def test_the_users_ignore_file_stays(tmp_path):
    """An ignore file that is there already is not overwritten."""
    (tmp_path / ".parmagic").mkdir()
    (tmp_path / ".parmagic" / ".gitignore").write_text("mine\n")
    assert Folder().path.is_dir()
    assert (tmp_path / ".parmagic" / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_runs_are_kept(tmp_path, keep):
    """Only so many runs are kept, this one among them; other files are never touched."""
    for number in range(5):
        path = Folder(keep=99).path
        (path / "0-0.json").write_text("{}")
        path.rename(tmp_path / ".parmagic" / f"run-old{number}")
        _backdate(tmp_path / ".parmagic" / f"run-old{number}", 1000 + number)
    (tmp_path / ".parmagic" / "mine.txt").write_text("x")
    newest = Folder(keep=keep).path
    runs = {path.name for path in (tmp_path / ".parmagic").glob("run-*")}
    assert runs == {newest.name, *(f"run-old{number}" for number in range(5 - (keep - 1), 5))}
    assert (tmp_path / ".parmagic" / "mine.txt").exists()


def test_a_folder_of_the_users_choice(tmp_path):
    """The configured folder is used."""
    assert Folder(str(tmp_path / "traces")).path.parent == tmp_path / "traces"


def test_elsewhere_where_the_folder_cannot_be(tmp_path, monkeypatch):
    """Where a file is in the way, the temporary directory is used."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / ".parmagic").write_text("a file")
    path = Folder().path
    assert path.parent == temporary / f"parmagic-{os.getuid()}"
    assert _mode(path) == 0o700


def test_elsewhere_where_the_working_directory_is_gone(tmp_path, monkeypatch):
    """A deleted working directory is no reason to fail."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert temporary in Folder().path.parents
