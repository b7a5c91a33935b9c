"""Read-ahead: what a file that is read from one end to the other will be asked for next.

Rules of this file:

* Chunks are read; two reads that follow one another have the next ones fetched.
* What was fetched is forgotten when it was passed, when it is old, or when the file was written.
* A reply that is short is the end of the file only where the end is supposed to be.
"""

import asyncio
import time
from collections.abc import Awaitable

from server.wire.primitives import Buffer

from .file import File

#: Bytes that are fetched at a time; reads of the kernel are a part of that.
CHUNK = 1 << 19
#: Chunks that are fetched ahead.
AHEAD = 8
#: A first read of so many bytes is by somebody who will go on.
LARGE = 1 << 17


class Reader:
    """Reads a file, and guesses.

    Args:
        limit: seconds for which what was fetched may be taken for what is there.
        head: what the file begins with, all of a chunk or of the file.
    """

    def __init__(self, file: File, limit: float, head: bytes | None) -> None:
        self._file = file
        self._limit = limit
        self._coming: dict[int, asyncio.Future[bytes]] = {}
        self._until = 0.0
        self._next = 0  # where a reader who goes on would
        if head is not None and limit:
            self._coming[0] = asyncio.get_running_loop().create_future()
            self._coming[0].set_result(head)
            self._until = time.monotonic() + limit

    def read(self, size: int, offset: int, end: int) -> Buffer | Awaitable[Buffer]:
        """Up to ``size`` bytes from ``offset`` on, fewer only at the end of the file.

        Args:
            end: where that is supposed to be; nothing is fetched ahead beyond it.
        """
        first, last = offset // CHUNK, (offset + size - 1) // CHUNK
        goes_on = abs(offset - self._next) <= CHUNK // 2 if offset else size >= LARGE
        self._next = offset + size
        if time.monotonic() > self._until:
            self.forget()
        if not self._limit or (not goes_on and first not in self._coming):
            self.forget()
            return self._fetch(size, offset, end)
        if self._coming and min(self._coming) < first - 1:
            for number in [one for one in self._coming if one < first - 1]:
                self._drop(number)
        for number in range(first, last + 1 + AHEAD if goes_on else last + 1):
            if number not in self._coming and (number <= last or number * CHUNK < end):
                work = self._fetch(CHUNK, number * CHUNK, end)
                self._coming[number] = asyncio.ensure_future(work)
                self._until = time.monotonic() + self._limit
        coming = self._coming[first]
        if first == last and coming.done() and not coming.cancelled() and not coming.exception():
            start = offset - first * CHUNK
            return memoryview(coming.result())[start : start + size]
        return self._joined([self._coming[one] for one in range(first, last + 1)], size, offset)

    async def _fetch(self, size: int, offset: int, end: int) -> bytes:
        data = b""
        while len(data) < size:
            asked = min(size - len(data), self._file.data_max)
            part = await self._file.read(asked, offset + len(data))
            data = data + part if data else part
            if len(part) < asked and (not part or offset + len(data) == end):
                break
        return data

    async def _joined(self, chunks: list[asyncio.Future[bytes]], size: int, offset: int) -> Buffer:
        try:
            data = [await chunk for chunk in chunks]
        except BaseException:
            self.forget()
            raise
        start = offset % CHUNK
        if len(data) == 1:
            return memoryview(data[0])[start : start + size]
        if len(data[0]) < CHUNK:
            return data[0][start:]
        return (data[0][start:] + b"".join(data[1:]))[:size]

    def forget(self) -> None:
        """What was fetched may not be right any more, or is not asked for."""
        for number in list(self._coming):
            self._drop(number)

    def _drop(self, number: int) -> None:
        """It may still be waited for, by who has asked before."""
        self._coming.pop(number).add_done_callback(lambda task: task.exception())
