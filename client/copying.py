"""Copying: files and trees, from here to the server, back, and from there to there; as cp(1) does.

Rules of this file:

* What can not be copied is told of, and the rest is copied.
* A new file has the mode of its source, less the umask; an old one keeps its own.
* In a tree, symbolic links stay links, and what is neither file, directory nor link is left out.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from .attributes import Stat
from .filesystem import FileSystem
from .pipeline import in_order
from .transfer import Progress, copy, fetch, send

#: Stands for standard input, or output.
STANDARD = "-"


class Tree(Protocol):
    """What copying needs of the files here, or there."""

    async def stat(self, path: str, *, follow: bool = True) -> "Stat | os.stat_result": ...
    async def listdir(self, path: str) -> list[str]: ...
    async def mkdir(self, path: str, mode: int) -> None: ...
    async def readlink(self, path: str) -> str: ...
    async def symlink(self, target: str, path: str) -> None: ...
    async def chmod(self, path: str, mode: int) -> None: ...
    async def chown(self, path: str, uid: int, gid: int) -> None: ...
    async def utime(self, path: str, ns: tuple[int, int]) -> None: ...


class Here:
    """The files of this machine."""

    async def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        return os.stat(path, follow_symlinks=follow)

    async def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    async def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    async def readlink(self, path: str) -> str:
        return os.readlink(path)

    async def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    async def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    async def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid)

    async def utime(self, path: str, ns: tuple[int, int]) -> None:
        os.utime(path, ns=ns)


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and whose it is."""

    tree: Tree
    path: str

    def __str__(self) -> str:
        return self.path if isinstance(self.tree, Here) else f":{self.path}"

    @property
    def is_standard(self) -> bool:
        """Whether it is standard input or output."""
        return isinstance(self.tree, Here) and self.path == STANDARD

    @property
    def name(self) -> str:
        return os.path.basename(self.path.rstrip("/"))

    def inside(self, name: str) -> "Place":
        return Place(self.tree, os.path.join(self.path, name))

    async def is_dir(self) -> bool:
        """Whether it is a directory, or leads to one."""
        try:
            return stat.S_ISDIR((await self.tree.stat(self.path)).st_mode)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies.

    Attributes:
        recursive: directories, too.
        preserve: mode, times and, as far as it is allowed, owners.
        expect: is told of bytes that are to be copied.
        progress: is told of bytes that have been copied.
        complain: is told what can not be copied, and why.
    """

    recursive: bool
    preserve: bool
    expect: Progress
    progress: Progress
    complain: Callable[[OSError], object]

    async def into(self, sources: list[Place], target: Place) -> None:
        """Copy all: into ``target`` if that is a directory, else in its place.

        Raises:
            OSError: there are several sources and no directory.
        """
        inside = not target.is_standard and await target.is_dir()
        if not inside and (len(sources) > 1 or (target.path.endswith("/") and not self.recursive)):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        for source in sources:
            await self.one(source, target.inside(source.name) if inside else target, top=True)

    async def one(self, source: Place, target: Place, top: bool = False) -> None:
        """Copy a file, a link or a tree; ``top``: it was named by the user."""
        try:
            if source.is_standard:
                await self._data(source, target, 0o666)
                return
            follow = top and not self.recursive
            found = await source.tree.stat(source.path, follow=follow)
            await self._refuse_itself(source, found, target)
            if stat.S_ISDIR(found.st_mode):
                await self._tree(source, found, target)
                return
            if stat.S_ISLNK(found.st_mode):
                await target.tree.symlink(await source.tree.readlink(source.path), target.path)
                return
            if not follow and not stat.S_ISREG(found.st_mode):
                raise _refused(errno.EOPNOTSUPP, "special files are not copied", source)
            self.expect(found.st_size)
            await self._data(source, target, stat.S_IMODE(found.st_mode))
            await self._keep(found, target)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.complain(error)

    async def _refuse_itself(self, source: Place, found: Any, target: Place) -> None:
        if type(source.tree) is not type(target.tree) or target.is_standard:
            return
        above = target.path
        while stat.S_ISDIR(found.st_mode) and above.strip("/"):
            above = os.path.dirname(above.rstrip("/")) or "/"
            if _same(found, await source.tree.stat(above)):
                raise _refused(errno.EINVAL, "can not be copied into itself", source)
        try:
            there = await target.tree.stat(target.path)
        except OSError:
            return
        if _same(found, there):
            raise _refused(errno.EINVAL, "is the same file", source)

    async def _tree(self, source: Place, found: Any, target: Place) -> None:
        if not self.recursive:
            raise _refused(errno.EISDIR, "a directory, and not -r", source)
        if not await target.is_dir():
            mode = stat.S_IMODE(found.st_mode)
            await target.tree.mkdir(target.path, _unmasked(mode) | stat.S_IRWXU)
        names = await source.tree.listdir(source.path)
        work = (self.one(source.inside(name), target.inside(name)) for name in names)
        async with aclosing(in_order(work)) as results:
            async for _ in results:
                pass
        await self._keep(found, target)

    async def _data(self, source: Place, target: Place, mode: int) -> None:
        there, path = target.tree, target.path
        if not isinstance(there, FileSystem):
            assert isinstance(source.tree, FileSystem)
            async with await source.tree.open(source.path) as file:
                with _opened(target, mode) as to:
                    await fetch(file, to, self.progress)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        if isinstance(source.tree, FileSystem):
            async with (
                await source.tree.open(source.path) as file,
                await there.open(path, flags, _unmasked(mode)) as new,
            ):
                await copy(file, new, self.progress)
            return
        from_ = sys.stdin.fileno() if source.is_standard else source.path
        with open(from_, "rb", closefd=not source.is_standard) as data:
            async with await there.open(path, flags, _unmasked(mode)) as new:
                await send(data, new, self.progress)

    async def _keep(self, found: Any, target: Place) -> None:
        """What ``preserve`` says."""
        if not self.preserve or target.is_standard:
            return
        tree, path = target.tree, target.path
        with suppress(PermissionError):
            await tree.chown(path, found.st_uid, found.st_gid)
        await tree.chmod(path, stat.S_IMODE(found.st_mode))
        await tree.utime(path, (found.st_atime_ns, found.st_mtime_ns))


def _opened(target: Place, mode: int) -> Any:
    """A file here to write."""
    if target.is_standard:
        return open(sys.stdout.fileno(), "wb", closefd=False)
    return open(target.path, "wb", opener=lambda path, flags: os.open(path, flags, mode))


def _unmasked(mode: int) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask & 0o777


def _same(one: Any, other: Any) -> bool:
    """Whether it is one file: on one file system of this machine, or of the server."""
    keys = "st_ino", "st_dev", "st_gen"
    return [getattr(one, key, 0) for key in keys] == [getattr(other, key, 0) for key in keys]


def _refused(code: int, why: str, place: Place) -> OSError:
    return OSError(code, why, str(place))
