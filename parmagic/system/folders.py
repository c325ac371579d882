"""Folders that are held open, so that what is done in one cannot be led elsewhere: by no link, nor by another folder in its place."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Self

from parmagic.system.real import close_descriptor, open_descriptor

_BY_DESCRIPTOR = open_descriptor in os.supports_dir_fd and os.listdir in os.supports_fd  # not on Windows
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # whatever lies there in place of a file, opening it must not wait


class Place:
    """A folder, opened by its path, or by its name within another; OSError where it is a link, or none.

    Names are those of what lies in it; where they are links, these are not followed.
    On Windows, which cannot open folders, it is only looked at once.
    """

    def __init__(self, path: str, within: Place | None = None) -> None:
        self.path: str = os.path.join(within.path, path) if within else path  # noqa: PTH118  (text: a name, most of the time)
        self._descriptor: int | None = None
        if _BY_DESCRIPTOR:
            beside = within._descriptor if within else None  # noqa: SLF001  (another of ourselves)
            self._descriptor = open_descriptor(path, os.O_RDONLY | _FOLDER | _NO_LINK, dir_fd=beside)
        elif not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise NotADirectoryError(20, "Not a directory", self.path)

    def __enter__(self) -> Self:
        """Hold it open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        self.close()

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            close_descriptor(self._descriptor)
            self._descriptor = None

    def about(self, name: str | None = None) -> os.stat_result:
        """Return what the system knows of the folder, or of what has that name in it."""
        if name is None:
            return os.lstat(self.path) if self._descriptor is None else os.fstat(self._descriptor)
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def names(self) -> list[str]:
        """Return the names of all that lies in it."""
        return os.listdir(self.path if self._descriptor is None else self._descriptor)  # noqa: PTH208

    def open(self, name: str, flags: int) -> int:
        """Open a file in it; one that is made is its owner's alone."""
        return open_descriptor(self._at(name), flags | _NO_LINK | _AT_ONCE, 0o600, dir_fd=self._descriptor)

    def write(self, name: str, text: str) -> None:
        """Make a file in it; FileExistsError where something has that name."""
        with open(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)

    def read(self, name: str, most: int = 100) -> str:
        """Return the beginning of a file of this user's; OSError where it is no such file."""
        with open(self.open(name, os.O_RDONLY), "rb") as file:  # noqa: PTH123
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or not _is_mine(about):
                raise PermissionError(1, "not a file of this user's", name)
            return file.read(most).decode("utf-8", "replace")

    def make_folder(self, name: str) -> None:
        """Make a folder in it, its owner's alone."""
        os.mkdir(self._at(name), 0o700, dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file, or a link itself."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def rename(self, name: str, new: str) -> None:
        """Give something in it another name."""
        os.rename(self._at(name), self._at(new), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove a folder that is empty."""
        os.rmdir(self._at(name), dir_fd=self._descriptor)

    def why_not_ours(self) -> str:
        """Say why this folder is not this user's alone to write to; nothing where it is."""
        about = self.about()
        if not _is_mine(about):
            return "belongs to another user"
        if not hasattr(os, "geteuid"):
            return ""  # modes mean nothing here
        if about.st_mode & stat.S_IWOTH:
            return "can be written to by every user"
        if about.st_mode & stat.S_IWGRP and not (_is_private(about.st_gid) and not self._has_acl()):
            return "can be written to by a group of users"
        return ""

    def _has_acl(self) -> bool:
        """Tell whether there is an access list: what the mode says of the group is then the most that anybody on it may."""
        with suppress(OSError, AttributeError):  # there is none, or there are none here
            return bool(os.getxattr(self._descriptor or self.path, "system.posix_acl_access"))
        return False

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name) if self._descriptor is None else name  # noqa: PTH118


def user() -> int:
    """Return the number of the user that files are made as; 0 where users have none."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _is_mine(about: os.stat_result) -> bool:
    return about.st_uid == user()


def _is_private(group: int) -> bool:
    """Tell whether this is the group of this user alone, as Debian gives one to everybody: called after the user, and of no other."""
    import grp  # noqa: PLC0415  (neither is there on Windows)
    import pwd  # noqa: PLC0415  (as grp)

    try:
        me, them = pwd.getpwuid(user()), grp.getgrgid(group)
    except KeyError:
        return False
    return me.pw_gid == group and them.gr_name == me.pw_name and set(them.gr_mem) <= {me.pw_name}
