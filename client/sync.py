"""The synchronous face: the same file system, for programs without an event loop.

Rules of this file:

* A thread of its own runs the loop; any threads may use the file system at the same time.
* A method does what that of :class:`.FileSystem` with its name does, and returns its result.
* Who is interrupted (KeyboardInterrupt) has his request flushed.
* Closing a file waits for nothing. A reader is closed without even letting another thread run: as a
  program ends, pyarrow's threads close what they read, and abort it if they lose the interpreter.
"""

import asyncio
import io
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache, update_wrapper
from queue import SimpleQueue
from typing import IO, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from server.wire.primitives import Buffer

from .attributes import Stat
from .file import File
from .filesystem import FileSystem, Path

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes that a file reads ahead, or keeps until they are written.
BUFFER = 262144

_MODES = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


class _Plain(Generic[P, T]):
    """A method that waits for that of :class:`.FileSystem`."""

    def __init__(self, method: Callable[Concatenate[FileSystem, P], Coroutine[Any, Any, T]]):
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, fs: None, _: type) -> Self: ...

    @overload
    def __get__(self, fs: "SyncFileSystem", _: type) -> Callable[P, T]: ...

    def __get__(self, fs: "SyncFileSystem | None", _: type) -> Self | Callable[P, T]:
        if fs is None:
            return self
        there = fs

        def wait(*args: P.args, **kwargs: P.kwargs) -> T:
            return there.run(self._method(there.asynchronous, *args, **kwargs))

        return update_wrapper(wait, self._method)


class SyncFileSystem:
    """A file system on a server; ``with`` connects, and ends the connection.

    Attributes:
        asynchronous: the same, for coroutines that :meth:`run` runs.

    Args:
        address, options: as :class:`.FileSystem` has them.

    Raises:
        ValueError: the address is none.
        OSError: it can not be reached, or refuses.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.asynchronous = self.run(_connected(address, options))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it whatever is open; more than once does nothing."""
        if not self._loop.is_closed():
            self.run(self.asynchronous.close())
            self._stop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that uses :attr:`asynchronous`."""
        if self._loop.is_closed():
            work.close()
            raise ValueError("the file system is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, work: Callable[[], object]) -> None:
        """Have the loop do this, before all that is asked for later."""
        with suppress(RuntimeError):  # it is closed, and with it all that was open
            self._loop.call_soon_threadsafe(work)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(
        self,
        path: Path,
        mode: str = "r",
        buffering: int = BUFFER,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a file, as the function :func:`open` does.

        Args:
            buffering: bytes to read ahead, or to keep until they are written; 0: none.

        Raises:
            ValueError: no such mode.
            OSError: it is refused.
        """
        if "b" not in mode and not buffering:
            raise ValueError("text needs a buffer")
        flags = flags_of(mode)
        file = self.run(self.asynchronous.open(path, flags))
        binary = SyncFile(self, file, flags).buffered(buffering)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    chmod = _Plain(FileSystem.chmod)
    chown = _Plain(FileSystem.chown)
    exists = _Plain(FileSystem.exists)
    getxattr = _Plain(FileSystem.getxattr)
    link = _Plain(FileSystem.link)
    listdir = _Plain(FileSystem.listdir)
    listxattr = _Plain(FileSystem.listxattr)
    makedirs = _Plain(FileSystem.makedirs)
    mkdir = _Plain(FileSystem.mkdir)
    mknod = _Plain(FileSystem.mknod)
    read_bytes = _Plain(FileSystem.read_bytes)
    readlink = _Plain(FileSystem.readlink)
    removexattr = _Plain(FileSystem.removexattr)
    rename = _Plain(FileSystem.rename)
    rmdir = _Plain(FileSystem.rmdir)
    rmtree = _Plain(FileSystem.rmtree)
    scandir = _Plain(FileSystem.scandir)
    setxattr = _Plain(FileSystem.setxattr)
    stat = _Plain(FileSystem.stat)
    stats = _Plain(FileSystem.stats)
    statvfs = _Plain(FileSystem.statvfs)
    symlink = _Plain(FileSystem.symlink)
    truncate = _Plain(FileSystem.truncate)
    unlink = _Plain(FileSystem.unlink)
    utime = _Plain(FileSystem.utime)
    write_bytes = _Plain(FileSystem.write_bytes)


def flags_of(mode: str) -> int:
    """The flags with which a file is opened in one of :func:`open`'s modes.

    Raises:
        ValueError: it is none.
    """
    kind = mode.replace("b", "").replace("t", "").replace("+", "")
    if kind not in _MODES or len(set(mode)) != len(mode) or {"b", "t"} <= set(mode):
        raise ValueError(f"{mode!r} is no mode")
    flags = _MODES[kind]
    return flags & ~os.O_ACCMODE | os.O_RDWR if "+" in mode else flags


class Runner(Protocol):
    """Runs a coroutine, and waits for its result; or does a thing, and does not wait."""

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...

    def soon(self, work: Callable[[], object]) -> None: ...


class SyncFile(io.RawIOBase):
    """An open file without a buffer; the rest of :mod:`io` works on top of it."""

    def __init__(self, fs: Runner, file: File, flags: int) -> None:
        self._fs = fs
        self._file = file
        self._access = flags & os.O_ACCMODE
        self._place = 0
        if file.appends:
            self.seek(0, os.SEEK_END)

    def buffered(self, size: int) -> IO[bytes]:
        """It with a buffer of so many bytes, if any."""
        made: Any = self
        if size and self._access == os.O_RDWR:
            made = io.BufferedRandom(self, size)
        elif size:
            made = (io.BufferedReader if self.readable() else io.BufferedWriter)(self, size)
        return cast(IO[bytes], made)

    @property
    def name(self) -> str:
        return os.fsdecode(self._file.path)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self.writable() or self._file.is_locked:
                self._let_go()
            else:
                _readers().put(self)

    def _let_go(self) -> None:
        self._fs.soon(self._file.let_go)

    def readable(self) -> bool:
        return self._access != os.O_WRONLY

    def writable(self) -> bool:
        return self._access != os.O_RDONLY

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._fs.run(self._file.pread(len(view), self._place))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self._fs.run(self._file.read_all(self._place))
        self._place += len(data)
        return data

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        done = self._fs.run(self._file.pwrite(data, self._place))
        self._place = self.stat().st_size if self._file.appends else self._place + done
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        if start is None:
            start = self.stat().st_size
        if start + offset < 0:
            raise ValueError(f"there is no place {start + offset}")
        self._place = start + offset
        return self._place

    def truncate(self, size: int | None = None) -> int:
        size = self._place if size is None else size
        self._fs.run(self._file.truncate(size))
        return size

    def stat(self) -> Stat:
        """Its attributes."""
        return self._fs.run(self._file.stat())

    def sync(self) -> None:
        """As :meth:`.File.sync`."""
        self._fs.run(self._file.sync())

    def lock(
        self, start: int = 0, length: int = 0, *, exclusive: bool = True, wait: bool = True
    ) -> bool:
        """As :meth:`.File.lock`."""
        return self._fs.run(self._file.lock(start, length, exclusive=exclusive, wait=wait))

    def unlock(self, start: int = 0, length: int = 0) -> None:
        """As :meth:`.File.unlock`."""
        self._fs.run(self._file.unlock(start, length))


@cache
def _readers() -> "SimpleQueue[SyncFile]":
    """Takes files that are closed, but for telling the server."""
    readers: SimpleQueue[SyncFile] = SimpleQueue()

    def let_go() -> None:
        while True:
            readers.get()._let_go()

    threading.Thread(target=let_go, daemon=True).start()
    return readers


os.register_at_fork(after_in_child=_readers.cache_clear)


async def _connected(address: str, options: dict[str, Any]) -> FileSystem:
    return await FileSystem(address, **options).__aenter__()
