"""Chaos in one process, on a server whose swap fails and whose clock steps now and then.

Rules of this file:

* What the server would do in threads is done at once, so that a seed repeats the same run.
* The verdict: all clients agree, and of what the server held nothing is left.
"""

import contextlib
import errno
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any
from unittest import mock

from server.address import Tcp
from tests.server.peer import SocketPeer
from tests.server.spilling import MSIZE, spilling, until
from tests.tmpfs_core.support import no_berth_is_taken

from .plan import Round
from .run import run

#: Frames of RAM and of swap (2 MiB, 8 MiB), less than the workers' files may take.
RAM, SWAP = 512, 2048


class Inline(Executor):
    """Does what is submitted at once."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class Machine:
    """A disk that fails, and a clock that steps.

    Attributes:
        broken: how often writing to swap fails, from 0 to 1; what was written can be read.
        clock: by how much the clock is wrong, in ns.
    """

    def __init__(self, seed: int) -> None:
        self.broken = 0.0
        self.clock = 0
        self._rng = random.Random(seed)
        self._pwritev, self._preadv, self._time_ns = os.pwritev, os.preadv, time.time_ns

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, mine in (
                ("os.pwritev", self._write),
                ("os.preadv", self._read),
                ("tmpfs_core.node.now", self._now),
                ("tmpfs_core.vnops.now", self._now),
                ("tmpfs_core.xattr.now", self._now),
            ):
                stack.enter_context(mock.patch(name, mine))
            yield

    def _now(self) -> int:
        return self._time_ns() + self.clock

    def _write(self, fd: int, views: list[memoryview], offset: int) -> int:
        if self._rng.random() < self.broken:
            code = self._rng.choice((errno.EIO, errno.ENOSPC))
            raise OSError(code, os.strerror(code))
        return self._pwritev(fd, views[: self._rng.randint(1, len(views))], offset)

    def _read(self, fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and self._rng.random() < 0.5:  # "not cached"
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._preadv(fd, views[: self._rng.randint(1, len(views))], offset)


async def inside(place: Path, seed: int, rounds: Iterable[Round]) -> Counter[str]:
    """Go through these rounds; what was done, and how often.

    Raises:
        Exception: the verdict, if it is bad.
    """
    machine = Machine(seed)
    async with spilling(place, RAM, SWAP) as world:
        world.pager._threads.shutdown()
        world.pager._threads = Inline()  # type: ignore[assignment]
        address = world.server.listen(Tcp("127.0.0.1", 0))

        async def connect() -> SocketPeer:
            return await (await SocketPeer.connect(address)).begin(MSIZE)

        async def prepare(this: Round) -> None:
            machine.clock = this.clock
            if machine.broken != this.broken:
                machine.broken = this.broken
                world.memory.retry()
            world.logs.clear()

        with machine.installed():
            count = await run(rounds, connect, prepare)
        last = await world.begin()
        await until(lambda: len(world.server._connections) == 1, last)
        assert no_berth_is_taken(world.memory.arena)
        world.spill.check()
        world.spill.nothing_is_left()
    return count
