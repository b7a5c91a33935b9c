"""The fsspec file system, for pandas, dask and others: ``tmpfs9p://HOST[:PORT]/PATH``.

Rules of this file:

* Paths are those of the export, and begin with ``/``.
* Symbolic links are followed; what leads nowhere is of type "link".
"""

import os
import stat
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import IO, Any, TypeVar

from fsspec.asyn import AsyncFileSystem, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import infer_storage_options

from .address import PORT
from .attributes import SECOND, Stat
from .file import File
from .filesystem import FileSystem
from .sync import BUFFER, SyncFile, flags_of
from .transfer import copy, fetch, send

T = TypeVar("T")

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
CREATE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Tmpfs9pFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An export of a server.

    Args:
        host, port: where it is, over TCP.
        address: where else it is, as ``unix:///PATH``; see :mod:`.address`.
        auto_mkdir: whoever writes a file makes the directories above it.
        options: others of :class:`.FileSystem` and of fsspec's file systems.
    """

    protocol = "tmpfs9p"
    root_marker = "/"
    mirror_sync_methods = True

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        address: str | None = None,
        aname: str = "/",
        uname: str | None = None,
        uid: int | None = None,
        auto_mkdir: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        name = f"[{host}]" if ":" in host else host
        self.auto_mkdir = auto_mkdir
        self.files = FileSystem(
            address or f"tcp://{name}:{port}", aname=aname, uname=uname, uid=uid
        )

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = os.fspath(path)
        if text.startswith("tmpfs9p://"):
            text = infer_storage_options(text)["path"]
        return "/" + text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        parts = infer_storage_options(path)
        return {key: parts[key] for key in ("host", "port") if key in parts}

    def close(self) -> None:
        """End the connection."""
        self.run(self.files.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on this file system's loop."""

        async def run() -> T:
            return await work

        return sync(self.loop, run)  # type: ignore[no-any-return]

    def soon(self, work: Callable[[], object]) -> None:
        """Have this file system's loop do this, before all that is asked for later."""
        self.loop.call_soon_threadsafe(work)

    # What is there

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return await self._described(path, await self.files.stat(path, follow=False))

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if not detail:
            try:
                return [_inside(path, name) for name in await self.files.listdir(path)]
            except NotADirectoryError:
                return [path]
        try:
            found = await self.files.stats(path)
        except NotADirectoryError:
            return [await self._info(path)]
        return [await self._described(_inside(path, name), one) for name, one in found.items()]

    async def _described(self, path: str, found: Stat) -> dict[str, Any]:
        info: dict[str, Any] = {"islink": found.is_symlink}
        if found.is_symlink:
            info["destination"] = await self.files.readlink(path)
            try:
                found = await self.files.stat(path)
            except OSError:
                info["type"] = "link"
        kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
        return {
            "name": path,
            "size": found.st_size,
            "type": kinds.get(stat.S_IFMT(found.st_mode), "other"),
            "mode": found.st_mode,
            "uid": found.st_uid,
            "gid": found.st_gid,
            "ino": found.st_ino,
            "nlink": found.st_nlink,
            "mtime": found.st_mtime_ns / SECOND,
            "created": found.st_birthtime_ns / SECOND,
        } | info

    # Whole files

    async def _writable(self, path: str, flags: int) -> File:
        """Open a file to write; its directories are made if they shall be."""
        try:
            return await self.files.open(path, flags)
        except FileNotFoundError:
            if not self.auto_mkdir or not flags & os.O_CREAT:
                raise
        await self.files.makedirs(os.path.dirname(path), exist_ok=True)
        return await self.files.open(path, flags)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        async with await self.files.open(self._strip_protocol(path)) as file:
            if start is None and end is None:
                return await file.read_all()
            size = (await file.stat()).st_size
            first, stop, _step = slice(start, end).indices(size)
            return await file.pread(max(stop - first, 0), first)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        flags = CREATE_NEW if mode == "create" else CREATE
        async with await self._writable(self._strip_protocol(path), flags) as file:
            await file.pwrite(value, 0)

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **_: Any,
    ) -> None:
        rpath = self._strip_protocol(rpath)
        if os.path.isdir(lpath):
            await self.files.makedirs(rpath, exist_ok=True)
            return
        flags = CREATE_NEW if mode == "create" else CREATE
        with open(lpath, "rb") as source:
            callback.set_size(os.fstat(source.fileno()).st_size)
            async with await self._writable(rpath, flags) as file:
                await send(source, file, callback.relative_update)

    async def _get_file(
        self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        found = await self.files.stat(rpath)
        if found.is_dir:
            os.makedirs(lpath, exist_ok=True)
            return
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        callback.set_size(found.st_size)
        async with await self.files.open(rpath) as file:
            with open(lpath, "wb") as target:
                await fetch(file, target, callback.relative_update)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if (await self.files.stat(path1)).is_dir:
            await self.files.makedirs(path2, exist_ok=True)
            return
        async with (
            await self.files.open(path1) as source,
            await self._writable(path2, CREATE) as target,
        ):
            await copy(source, target, lambda _: None)

    # Names

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        path = self._strip_protocol(path)
        if create_parents:
            await self.files.makedirs(path)
        else:
            await self.files.mkdir(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self.files.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    async def _rmdir(self, path: str) -> None:
        await self.files.rmdir(self._strip_protocol(path))

    async def _rm_file(self, path: str, **_: Any) -> None:
        await self.files.unlink(self._strip_protocol(path))

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        **_: Any,
    ) -> None:
        for one in await self._expand_path(path):
            if not (await self.files.stat(one, follow=False)).is_dir:
                await self.files.unlink(one)
            elif recursive:
                await self.files.rmtree(one)
            else:
                raise IsADirectoryError(f"{one} is a directory; recursive=True removes it")

    async def _mv(self, path1: str, path2: str, **_: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.auto_mkdir:
            await self.files.makedirs(os.path.dirname(path2), exist_ok=True)
        await self.files.rename(path1, path2)

    rmdir = sync_wrapper(_rmdir)
    mv = sync_wrapper(_mv)

    def created(self, path: str) -> datetime:
        """When a file was made."""
        return _time(self.info(path)["created"])

    def modified(self, path: str) -> datetime:
        """When what is in a file was changed last."""
        return _time(self.info(path)["mtime"])

    # Open files

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **_: Any,
    ) -> IO[bytes]:
        if not autocommit:
            raise NotImplementedError("there are no transactions")
        flags = flags_of(mode)
        file = self.run(self._writable(self._strip_protocol(path), flags))
        return SyncFile(self, file, flags).buffered(block_size or BUFFER)


def _inside(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
