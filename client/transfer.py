"""Transfer: whole files, from here to the server and back, and from one file there to another."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from .file import File
from .pipeline import WINDOW

#: Bytes that are moved at a time: as much as keeps a pipeline of the largest messages full.
CHUNK = WINDOW << 20

#: Is told how many more bytes have been moved.
Progress = Callable[[int], object]


async def fetch(file: File, target: BinaryIO, progress: Progress) -> None:
    """Write what is in a file there to one here."""
    await _move(
        lambda place: file.pread(CHUNK, place),
        lambda data, _: asyncio.to_thread(target.write, data),
        progress,
    )


async def send(source: BinaryIO, file: File, progress: Progress) -> None:
    """Write what is in a file here to one there."""
    await _move(lambda _: asyncio.to_thread(source.read, CHUNK), file.pwrite, progress)


async def copy(source: File, target: File, progress: Progress) -> None:
    """Write what is in a file there to another; it passes through here, as 9P has no copying."""
    await _move(lambda place: source.pread(CHUNK, place), target.pwrite, progress)


async def _move(
    read: Callable[[int], Awaitable[bytes]],
    write: Callable[[bytes, int], Awaitable[object]],
    progress: Progress,
) -> None:
    place = 0
    while data := await read(place):
        await write(data, place)
        place += len(data)
        progress(len(data))
