"""Read-ahead: what a file that is read from one end to the other will be asked for next.

Rules of this file:

* Chunks of the largest message are read; two that follow one another have the next ones fetched.
* What was fetched is forgotten when it was passed, when it is old, or when the file was written.
"""

import asyncio
import time

from .file import File

#: Chunks that are fetched ahead.
AHEAD = 4


class Reader:
    """Reads a file, and guesses.

    Args:
        chunk: bytes that are read at a time.
        limit: seconds for which what was fetched may be taken for what is there.
    """

    def __init__(self, file: File, chunk: int, limit: float) -> None:
        self._file = file
        self._chunk = chunk
        self._limit = limit
        self._coming: dict[int, asyncio.Task[bytes]] = {}
        self._until = 0.0
        self._next = 0  # where a reader who goes on would

    async def read(self, size: int, offset: int, end: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on, fewer only at the end of the file.

        Args:
            end: where that is supposed to be; nothing is fetched ahead beyond it.
        """
        first, last = offset // self._chunk, (offset + size - 1) // self._chunk
        goes_on = offset > 0 and abs(offset - self._next) <= self._chunk // 2
        self._next = offset + size
        if time.monotonic() > self._until:
            self.forget()
        if (not goes_on and first not in self._coming) or not self._limit:
            self.forget()
            return await self._file.pread(size, offset)
        for number in [one for one in self._coming if one < first - 1]:
            self._drop(number)
        for number in range(first, last + 1 + AHEAD):
            if number not in self._coming and (number <= last or number * self._chunk < end):
                work = self._file.pread(self._chunk, number * self._chunk)
                self._coming[number] = asyncio.create_task(work)
                self._until = time.monotonic() + self._limit
        chunks = [self._coming[number] for number in range(first, last + 1)]
        try:
            data = [await chunk for chunk in chunks]
        except BaseException:
            self.forget()
            raise
        start = offset - first * self._chunk
        if len(data) == 1:
            return data[0][start : start + size]
        if len(data[0]) < self._chunk:
            return data[0][start:]
        return (data[0][start:] + b"".join(data[1:]))[:size]

    def forget(self) -> None:
        """What was fetched may not be right any more, or is not asked for."""
        for number in list(self._coming):
            self._drop(number)

    def _drop(self, number: int) -> None:
        """It may still be waited for, by who has asked before."""
        self._coming.pop(number).add_done_callback(lambda task: task.exception())
