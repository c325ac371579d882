"""Where files go: a private folder, made on first use, that cleans up after itself and touches nothing of the user's."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from strikes import at_line

from parmagic.system import files
from parmagic.system.files import Folder

NOBODY = 65534


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _backdate(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def _run(base: Path, made: int, *, size: int = 2, keep_runs: int = 99) -> Path:
    """Make the folder of a run that was over at the time ``made``, with a file of that size."""
    folder = Folder(str(base), keep_runs)
    descriptor, name = folder.create("0-0.json")
    os.truncate(descriptor, size)
    os.close(descriptor)
    folder.end()
    path = Path(name).parent
    _backdate(path, made)
    return path


def _runs(base: Path) -> set[Path]:
    return set(base.glob("run-*"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary directory of this test's own."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder of the user's, with files in it, and see that they are all there in the end."""
    path = tmp_path / "theirs"
    (path / "run-0badcafe").mkdir(parents=True)
    files = {path / "thesis.txt", path / "run-0badcafe" / "0-0.json", path / "run-0badcafe" / "parmagic"}
    for file in files:
        file.write_text("years of work")
    _backdate(path / "run-0badcafe", 1000)
    before = {*path.rglob("*")}
    yield path
    assert {*path.rglob("*")} == before
    assert all(file.read_text() == "years of work" for file in files)


def test_nothing_before_first_use(tmp_path):
    """A run that writes nothing leaves nothing."""
    Folder().end()
    assert list(tmp_path.iterdir()) == []


def test_private_and_ignored(tmp_path):
    """Folders and files are the user's alone, and git ignores them."""
    old = os.umask(0)
    try:
        descriptor, name = Folder().create("0-0.json")
    finally:
        os.umask(old)
    os.close(descriptor)
    path = Path(name)
    assert path.parents[1] == tmp_path / ".parmagic"
    assert {_mode(path.parents[0]), _mode(path.parents[1])} == {0o700}
    assert {_mode(file) for file in path.parent.iterdir()} == {0o600}
    assert (tmp_path / ".parmagic" / ".gitignore").read_text() == "*\n"


def test_one_folder_per_run():
    """A run keeps its folder; another run has another."""
    one, two = Folder(), Folder()
    assert one.path == one.path != two.path


@pytest.mark.parametrize("ignored", ["mine\n", None])
def test_the_users_ignore_file_stays(tmp_path, ignored):
    """In a folder that was there before, an ignore file is neither overwritten nor made."""
    (tmp_path / ".parmagic").mkdir()
    ignore = tmp_path / ".parmagic" / ".gitignore"
    if ignored is not None:
        ignore.write_text(ignored)
    assert Folder().path.is_dir()
    assert (ignore.read_text() if ignore.exists() else None) == ignored


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_newest_runs_are_kept(tmp_path, keep):
    """Only so many runs are kept, the newest always among them; other files are never touched."""
    old = [_run(tmp_path / "base", 1000 + number) for number in range(5)]
    (tmp_path / "base" / "mine.txt").write_text("x")
    newest = Folder(str(tmp_path / "base"), keep).path
    kept = max(keep, 1)
    assert _runs(tmp_path / "base") == {newest, *old[5 - (kept - 1) :]}
    assert (tmp_path / "base" / "mine.txt").exists()


@pytest.mark.parametrize(("last", "stay"), [(100, 4), (400, 2), (401, 1), (5000, 1)])
def test_only_so_many_bytes_are_kept(tmp_path, last, stay):
    """When a run is over, the oldest go until all files together are small enough; its own stay however large they are."""
    old = [_run(tmp_path / "base", 1000 + number, size=300) for number in range(3)]
    folder = Folder(str(tmp_path / "base"), keep_bytes=1000 if last == 100 else 700)
    descriptor, _ = folder.create("0-0.json")
    os.truncate(descriptor, last)
    os.close(descriptor)
    folder.end()
    assert _runs(tmp_path / "base") == {folder.path, *old[3 - (stay - 1) :]}


def test_only_marked_folders_are_removed(theirs):
    """Folders of the user's that are called as ours are, old as they may be, stay; so does one that the user has renamed or filled."""
    mine, renamed, filled = _run(theirs, 2000), _run(theirs, 2001), _run(theirs, 2002)
    (filled / "notes.txt").write_text("the user's own")
    saved = renamed.rename(theirs / "run-00000001")
    try:
        newest = Folder(str(theirs), 1).path
        assert _runs(theirs) == {newest, saved, filled, theirs / "run-0badcafe"}
        assert not mine.exists()
        assert [file.name for file in filled.iterdir()] == ["notes.txt"]
    finally:
        for path in _runs(theirs) - {theirs / "run-0badcafe"}:
            subprocess.run(["/bin/rm", "-r", path], check=True)


def test_no_link_is_followed(tmp_path, theirs):
    """Neither a run's folder that is a link to the user's, nor a link within one: what it leads to stays."""
    base = tmp_path / "base"
    linked = _run(base, 2000)
    (linked / "0-0.json").unlink()
    (linked / "0-0.json").symlink_to(theirs / "thesis.txt")
    _backdate(linked, 2000)
    (base / "run-deadbeef").symlink_to(theirs / "run-0badcafe")
    newest = Folder(str(base), 1).path
    assert _runs(base) == {newest, base / "run-deadbeef"}


def test_a_link_in_place_of_a_file_is_not_written_to(theirs):
    """What a run writes does not go where a link leads."""
    folder = Folder()
    (folder.path / "0-0.json").symlink_to(theirs / "thesis.txt")
    with pytest.raises(OSError, match="symbolic link"):
        folder.create("0-0.json")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_what_belongs_to_others_stays(tmp_path):
    """A folder with our mark that is another user's is none of ours, nor is one whose mark is."""
    base = tmp_path / "base"
    folder, mark = _run(base, 1000), _run(base, 1001)
    os.chown(folder, NOBODY, -1)
    os.chown(mark / "parmagic", NOBODY, -1)
    assert {folder, mark} <= _runs(Folder(str(base), 1).path.parent)


def test_a_run_that_goes_on_keeps_its_files(tmp_path):
    """Another process's newer runs do not push out one that is not over; they do when its process has gone."""
    script = "from parmagic.system.files import Folder; import sys; print(Folder('base').path, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        path = Path(other.stdout.readline().strip())
        _backdate(path, 1000)
        _run(tmp_path / "base", 2000, keep_runs=1)
        assert path.is_dir()
    _run(tmp_path / "base", 2001, keep_runs=1)
    assert not path.exists()


def test_many_remove_at_once(tmp_path):
    """Runs that end at the same time, and remove the same folders, disturb each other in nothing."""
    for number in range(30):
        _run(tmp_path / "base", 1000 + number)
    errors, together = [], threading.Barrier(4)

    def one() -> None:
        try:
            together.wait()
            _run(tmp_path / "base", 3000, keep_runs=5)
        except Exception as error:  # noqa: BLE001  (whatever it is, it fails the test)
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    newest = Folder(str(tmp_path / "base"), 5).path
    assert len(_runs(newest.parent)) == 5


def test_what_cannot_be_removed_breaks_nothing(tmp_path):
    """Where a folder lies in place of a run's file, its run is left as it is."""
    old = _run(tmp_path / "base", 1000)
    (old / "1-0.json").mkdir()
    (old / "1-0.json" / "mine.txt").touch()
    assert Folder(str(tmp_path / "base"), 1).path.is_dir()
    assert (old / "1-0.json" / "mine.txt").exists()


def test_a_folder_of_the_users_choice(tmp_path, monkeypatch):
    """The configured folder is used; ``~`` is the home, which keeps its own ignore file, or none."""
    assert Folder(str(tmp_path / "traces")).path.parent == tmp_path / "traces"
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Folder("~").path.parent == tmp_path / "home"
    assert not (tmp_path / "home" / ".gitignore").exists()


def _in_the_way(tmp_path: Path, what: str) -> None:
    base = tmp_path / ".parmagic"
    if what == "is a link":
        base.symlink_to(tmp_path / "theirs")
    elif what == "is no folder":
        base.write_text("a file")
    else:
        base.mkdir()
        base.chmod({"can be written to by every user": 0o1777, "can be written to by a group of users": 0o770}[what])
        os.chown(base, -1, _a_group_with_others())


def _is_mine(group: int) -> bool:
    """Tell whether a group is this user's own; it has no name, and so has not, where a container's user is none that the system knows."""
    with suppress(KeyError):
        return grp.getgrgid(group).gr_name == pwd.getpwuid(os.getuid()).pw_name
    return False


def _a_group_with_others() -> int:
    """Return a group that is not this user's alone, which this user may give to a folder."""
    mine = {*os.getgroups(), os.getgid()} if os.getuid() else {group.gr_gid for group in grp.getgrall()}
    return next((gid for gid in sorted(mine) if not _is_mine(gid)), -1)


@pytest.mark.parametrize(
    "what", ["is a link", "is no folder", "can be written to by every user", "can be written to by a group of users"]
)
def test_elsewhere_where_the_folder_is_no_good(tmp_path, temporary, theirs, what):
    """A base that is a link, or that others may write to, is not used, nor is a file: the temporary directory is, and a note says why."""
    if what.endswith("users") and _a_group_with_others() < 0:
        pytest.skip("this user has no other group")
    _in_the_way(tmp_path, what)
    folder = Folder(keep_runs=1)
    path = folder.path
    assert path == folder.path
    assert path.parent == temporary / f"parmagic-{os.getuid()}"
    assert (_mode(path), _mode(path.parent)) == (0o700, 0o700)
    assert [f".parmagic {what} (" in note for note in folder.notes] == [True]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_another_users_folder_is_not_used(tmp_path, temporary):
    """Neither in the working directory, nor in the temporary one, where anybody may have made one of our name."""
    for base in (tmp_path / ".parmagic", temporary / "parmagic-0"):
        base.mkdir()
        os.chown(base, NOBODY, -1)
    folder = Folder()
    path = folder.path
    assert path.parent.parent == temporary
    assert path.parent.name != "parmagic-0"
    assert _mode(path.parent) == 0o700
    assert ".parmagic belongs to another user" in folder.notes[0]


def test_a_private_group_may_write(tmp_path):
    """A folder that Debian's umask of 002 made is the user's alone, as its group has no other member; with an access list it may not be."""
    base = tmp_path / "base"
    base.mkdir()
    base.chmod(0o770)
    if not _is_mine(base.stat().st_gid):
        pytest.skip("this user has no private group")
    folder = Folder(str(base))
    assert folder.path.parent == base
    assert folder.notes == []
    entries = ((0x01, 7, 0xFFFFFFFF), (0x02, 7, NOBODY), (0x04, 7, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    packed = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + may.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, may, who in entries
    )
    try:
        os.setxattr(base, "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access lists")
    other = Folder(str(base))
    assert other.path.parent != base
    assert "a group of users" in other.notes[0]


def test_elsewhere_where_it_cannot_be_written_to(tmp_path, temporary):
    """Where the base cannot be made, the note has the system's reason."""
    folder = Folder(str(tmp_path / "not there" / "base"))
    assert folder.path.parent.parent == temporary
    assert "cannot be used (No such file or directory)" in folder.notes[0]


def test_elsewhere_where_the_working_directory_is_gone(tmp_path, temporary):
    """A deleted working directory is no reason to fail."""
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    folder = Folder()
    assert temporary in folder.path.parents
    assert "the working directory is gone" in folder.notes[0]


def test_a_run_tells_where_its_files_went(ip, tmp_path, temporary, theirs):
    """The note about a folder that is not used is one of the run's, once, from threads and from processes; the functions are there."""
    (tmp_path / ".parmagic").symlink_to(theirs)
    ip("def called(n): return n")
    run = ip("%parallel threads=2 procs=2 -q --once --trace full sum(called(k) for k in range(9000)) for n in range(4)")
    assert [note for note in run.notes if ".parmagic is a link" in note] == [note for note in run.notes if "temporary directory" in note]
    assert len([note for note in run.notes if ".parmagic is a link" in note]) == 1
    written = [trace.path for timeline in run._study.timelines for trace in timeline.traces if trace.path]  # not of a process that got no item
    assert {Path(path).parents[1] for path in written} == {temporary / f"parmagic-{os.getuid()}"}
    assert all(calls.names for _, found in run._study.functions() for calls in found)


def test_a_run_limits_the_bytes_of_all(ip, tmp_path):
    """``%config ParallelMagics.keep_bytes`` holds after every run, and the newest run's files stay."""
    ip("%config ParallelMagics.keep_bytes = 1")
    ip("def called(n): return n")
    for _ in range(2):
        run = ip("%parallel threads=1 -q --once --trace full sum(called(k) for k in range(9000)) for n in range(2)")
    assert [*_runs(tmp_path / ".parmagic")] == [Path(run._study.timelines[0].traces[0].path).parent]
    assert not [*(tmp_path / ".parmagic").glob("run-*/running")]


@pytest.mark.parametrize("half", [None, ""], ids=["no mark", "an empty one"])
def test_a_folder_whose_maker_was_killed_is_marked_at_the_end(tmp_path, half):
    """Whatever kills a worker while it makes the run's folder: the folder counts as the run's, and is removed as such later."""
    first = Folder(str(tmp_path / "base"), 1)
    begun = tmp_path / "base" / first._name
    begun.mkdir(parents=True, mode=0o700)
    begun.parent.chmod(0o700)
    if half is not None:
        (begun / "parmagic").write_text(half)
    first.end()
    assert (begun / "parmagic").read_text() == first._name
    second = Folder(str(tmp_path / "base"), 1)
    os.close(second.create("0-0.json")[0])
    second.end()
    assert [path.name for path in (tmp_path / "base").glob("run-*")] == [second._name]


def _ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_leaves_no_folder_without_a_mark(tmp_path):
    """Whichever line it strikes while a folder is made, also behind the run's end: one that were never marked would stay for good."""
    line = 0
    while True:
        folder = Folder(str(tmp_path / "runs"))
        folder.end()  # what a worker writes that was left behind
        try:
            at_line(line, lambda frame: frame.f_code.co_filename == files.__file__, _ctrl_c, partial(getattr, folder, "path"))
            break
        except KeyboardInterrupt:
            made = [each for each in (tmp_path / "runs").glob("run-*") if not (each / "parmagic").exists()]
            assert made == [], line
        line += 1
    assert line > 20


def test_who_is_killed_while_it_removes_a_folder_leaves_nothing(tmp_path):
    """At whichever line: the next run removes the rest."""
    base, line, code = tmp_path / "runs", 0, 9
    while code == 9:
        first = Folder(str(base), 1)
        os.close(first.create("0-0.json")[0])
        first.end()
        second = Folder(str(base), 1)
        child = os.fork()
        if not child:
            at_line(line, lambda frame: frame.f_code.co_filename == files.__file__, lambda: os._exit(9), partial(getattr, second, "path"))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        second.end()
        third = Folder(str(base), 1)
        assert third.path.exists()
        third.end()
        assert [each.name for each in base.iterdir() if each.name != ".gitignore"] == [third._name], line
        line += 1
    assert (code, line > 40) == (0, True)
