"""device: what a kernel asks, from the other end of a socket that keeps messages apart."""

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client.fuse import protocol
from client.fuse.device import FLAGS, SMALL, TURN, Answer, Device
from client.fuse.protocol import Request

from .kernel import Kernel

IO_MAX = 1 << 18
LOOKUP, FORGET, MKDIR, SYMLINK, GETATTR = 1, 2, 9, 6, 3


class Answers:
    """What a file system answers; ``asked`` has what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.waits = asyncio.Event()
        self.held: list[memoryview] = []
        self.interruptible = False

    def may_be_interrupted(self, unique: int) -> bool:
        return self.interruptible

    def lookup(self, request: Request, name: bytes) -> Answer:
        who = request.uid, request.gid, request.pid
        self.asked.append((request.unique, request.inode, who, name))
        if name == b"none":
            raise FileNotFoundError(errno.ENOENT, "none")
        if name == b"lost":
            raise ConnectionResetError(errno.ECONNRESET, "lost")
        return b"entry"

    def forget(self, request: Request, times: int) -> None:
        self.asked.append((request.inode, times))

    def symlink(self, request: Request, name: bytes, target: bytes) -> Answer:
        self.asked.append((name, target))
        return [b"en", b"try"]

    async def mkdir(self, request: Request, mode: int, umask: int, name: bytes) -> Answer:
        self.asked.append((mode, umask, name))
        await self.waits.wait()
        if name == b"full":
            raise OSError(errno.ENOSPC, "full")
        return b"entry"

    def getattr(self, request: Request) -> Answer:
        raise ValueError("a mistake")

    def write(
        self, request: Request, fh: int, offset: int, size: int, how: int, data: memoryview
    ) -> Answer:
        self.asked.append((fh, offset, size, how))
        self.held.append(data)
        return protocol.SIZE.pack(size)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
async def kernel(answers: Answers) -> AsyncIterator[Kernel]:
    kernel = Kernel()
    device = Device(kernel.descriptor, IO_MAX, answers)
    serving = asyncio.create_task(device.serve())
    await asyncio.sleep(0)
    yield kernel
    device.end()
    await serving
    kernel.close()


async def test_both_agree_on_what_they_can(kernel: Kernel) -> None:
    await kernel.ask(2, protocol.INIT, struct.pack("=IIII48x", 7, 99, 131072, 0xFFFFFFFF))
    unique, error, told = await kernel.answer()
    major, minor, ahead, flags, *_, io_max, _, pages = protocol.INIT_OUT.unpack(told)
    assert (unique, error, major, minor, ahead) == (2, 0, 7, protocol.MINOR, 131072)
    assert flags == FLAGS
    assert (io_max, pages) == (IO_MAX, IO_MAX // os.sysconf("SC_PAGESIZE"))
    await kernel.ask(4, protocol.INIT, struct.pack("=IIII48x", 8, 0, 0, 0))
    assert await kernel.answer() == (4, errno.EPROTO, b"")


async def test_requests_are_taken_apart(kernel: Kernel, answers: Answers) -> None:
    await kernel.ask(2, LOOKUP, b"name\0")
    assert await kernel.answer() == (2, 0, b"entry")
    await kernel.ask(4, SYMLINK, b"link\0a/target\0")
    assert await kernel.answer() == (4, 0, b"entry")
    await kernel.ask(6, FORGET, struct.pack("=Q", 3))
    await kernel.ask(8, LOOKUP, b"name\0")
    assert await kernel.answer() == (8, 0, b"entry")
    lookup = 2, 7, (1, 2, 3), b"name"
    assert answers.asked[:3] == [lookup, (b"link", b"a/target"), (7, 3)]


async def test_others_have_their_turn_however_much_is_asked(answers: Answers) -> None:
    kernel = Kernel()
    device = Device(kernel.descriptor, IO_MAX, answers)
    for number in range(TURN + 20):
        await kernel.ask(number, LOOKUP, b"name\0")
    device._readable()
    assert len(answers.asked) == TURN
    device._readable()
    assert len(answers.asked) == TURN + 20
    os.close(kernel.descriptor)
    kernel.close()


async def test_what_is_refused_is_an_errno(kernel: Kernel) -> None:
    for body, error in ((b"none\0", errno.ENOENT), (b"lost\0", errno.EIO)):
        await kernel.ask(2, LOOKUP, body)
        assert await kernel.answer() == (2, error, b"")
    await kernel.ask(4, 4095)
    assert await kernel.answer() == (4, errno.ENOSYS, b"")


async def test_who_asks_when_there_is_a_mistake_is_answered_too(kernel: Kernel) -> None:
    mistakes: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
    await kernel.ask(2, GETATTR)
    assert await kernel.answer() == (2, errno.EIO, b"")
    assert [str(mistake) for mistake in mistakes] == ["a mistake"]


async def test_what_waits_keeps_nobody_else_waiting(kernel: Kernel, answers: Answers) -> None:
    await kernel.ask(2, MKDIR, struct.pack("=II", 0o755, 0o22) + b"full\0")
    await kernel.ask(4, MKDIR, struct.pack("=II", 0o755, 0o22) + b"d\0")
    await kernel.ask(6, LOOKUP, b"name\0")
    assert await kernel.answer() == (6, 0, b"entry")
    answers.waits.set()
    assert await kernel.answer() == (2, errno.ENOSPC, b"")
    assert await kernel.answer() == (4, 0, b"entry")
    made = [asked for asked in answers.asked if len(asked) == 3]
    assert made == [(0o755, 0o22, b"full"), (0o755, 0o22, b"d")]


async def test_who_is_interrupted_is_told_if_that_may_be(kernel: Kernel, answers: Answers) -> None:
    await kernel.ask(2, MKDIR, struct.pack("=II", 0o755, 0) + b"d\0")
    await kernel.ask(3, protocol.INTERRUPT, struct.pack("=Q", 2))
    await kernel.ask(4, LOOKUP, b"name\0")
    assert await kernel.answer() == (4, 0, b"entry")
    answers.interruptible = True
    await kernel.ask(3, protocol.INTERRUPT, struct.pack("=Q", 99))
    await kernel.ask(3, protocol.INTERRUPT, struct.pack("=Q", 2))
    assert await kernel.answer() == (2, errno.EINTR, b"")


@pytest.mark.parametrize("size", [5, SMALL + 5])
async def test_what_is_written_stays_until_it_is_done_with(
    kernel: Kernel, answers: Answers, size: int
) -> None:
    written = [bytes([number]) * size for number in range(3)]
    for number, data in enumerate(written):
        head = struct.pack("=QQIIQII", 11, number, size, 4, 0, 0, 0)
        await kernel.ask(2 * number + 2, protocol.WRITE, head + data)
        assert (await kernel.answer())[:2] == (2 * number + 2, 0)
    assert answers.asked == [(11, number, size, 4) for number in range(3)]
    assert [bytes(data) for data in answers.held] == written
