"""Chaos: clients that work and clients that attack, on a server whose swap fails now and then.

    python -m tests.chaos [--seed N] [--seconds M]

Rules of this file:

* What a working client reads must be what it wrote, held against a bytearray for each file.  It may
  be refused space or memory, and then nothing has changed.
* Everything is in one loop and drawn from one seed, and what the server would do in threads is done
  at once.  So a seed repeats the same run, as far as the kernel's sockets and the server's timers
  do: a failure may take several runs of its seed to come again.
"""

import argparse
import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import GUARD, ROOT, SocketPeer
from tests.server.spilling import MSIZE, STATFS, Spilling, spilling, truncation
from tests.server.test_handlers_locks import tlock
from tests.tmpfs_core.support import no_berth_is_taken

#: Frames of RAM and of swap (2 MiB, 8 MiB); bytes that a file may have.
RAM, SWAP, FILE_MAX = 512, 2048, 2 << 20
CLIENTS, FILES = 4, 4
#: What a client may be refused where RAM and swap are full, or swap fails.
SHORT = {errno.ENOSPC, errno.ENOMEM}


class Inline(Executor):
    """Does what is submitted at once."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class Disk:
    """Fails as often as ``odds`` says when something is written to swap; what was, can be read."""

    def __init__(self, rng: random.Random) -> None:
        self.odds = 0.0
        self._rng = rng
        self._pwritev, self._preadv = os.pwritev, os.preadv

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with mock.patch("os.pwritev", self._write), mock.patch("os.preadv", self._read):
            yield

    def _write(self, fd: int, views: list[memoryview], offset: int) -> int:
        if self._rng.random() < self.odds:
            code = self._rng.choice((errno.EIO, errno.ENOSPC))
            raise OSError(code, os.strerror(code))
        return self._pwritev(fd, views[: self._rng.randint(1, len(views))], offset)

    def _read(self, fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and self._rng.random() < 0.5:  # "not cached"
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._preadv(fd, views[: self._rng.randint(1, len(views))], offset)


class Worker:
    """A client that checks all that it reads."""

    def __init__(self, run: "Chaos", number: int) -> None:
        self._run = run
        self._rng = run.rng
        self._names = [b"%d.%d" % (number, i) for i in range(FILES)]
        self._model: dict[bytes, bytearray] = {}
        self._fids: dict[bytes, int] = {}
        self._peer: SocketPeer | None = None

    async def step(self) -> None:
        rng = self._rng
        if self._peer is None:
            self._peer = await self._run.world.begin()
            self._fids.clear()
        name = rng.choice(self._names)
        work = [self._write, self._write, self._read, self._read, self._burst, self._truncate]
        rare = [self._remove, self._leave]
        action = rng.choice(rare if rng.random() < 0.1 else work)
        self._run.count[action.__name__.strip("_")] += 1
        try:
            await action(self._peer, name, await self._open(self._peer, name))
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._run.count["refused"] += 1

    async def verify(self) -> None:
        """All that was written is there."""
        peer = await self._run.world.begin()
        for name, expected in self._model.items():
            fid = await peer.open(name)
            assert await peer.size(fid) == len(expected)
            got = bytearray()
            while data := (await peer.call(m.Tread(fid, len(got), MSIZE))).data:
                got += data
            assert got == expected, name
            await peer.call(m.Tunlinkat(ROOT, name, 0))
        await peer.close()

    async def _open(self, peer: SocketPeer, name: bytes) -> int:
        if name not in self._fids:
            if name in self._model:
                self._fids[name] = await peer.open(name)
            else:
                self._fids[name] = await peer.create(name)
                self._model[name] = bytearray()
        return self._fids[name]

    async def _write(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        rng, model = self._rng, self._model[name]
        data = rng.randbytes(rng.choice((1, 100, 4096, 65536, 300_000, MSIZE - c.IOHDRSZ)))
        at = rng.randrange(FILE_MAX - len(data))
        at -= at % rng.choice((1, 4096, 65536))
        count = (await peer.call(m.Twrite(fid, at, data))).count
        self._put(model, at, data[:count])

    async def _burst(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        """Many requests at once, none of whose ranges overlap, so that their order is one."""
        rng, model = self._rng, self._model[name]
        step = 20_000
        asked: dict[int, tuple[int, bytes | None]] = {}
        for tag, place in enumerate(rng.sample(range(FILE_MAX // step), 40)):
            data = rng.randbytes(rng.randrange(1, step)) if rng.random() < 0.5 else None
            asked[tag] = place * step, data
        before = bytes(model)
        for tag, (at, data) in asked.items():
            peer.send(m.Tread(fid, at, 1000) if data is None else m.Twrite(fid, at, data), tag)
        reads = [tag for tag, (_, data) in asked.items() if data is None]
        flushed = rng.sample(reads, len(reads) // 3)  # a write that is flushed may have been done
        for tag in flushed:
            peer.send(m.Tflush(tag), 1000 + tag)
            peer.send(m.Tflush(1000 + tag), 2000 + tag)
        due = {*asked} - {*flushed} | {base + tag for base in (1000, 2000) for tag in flushed}
        while due:
            tag, reply = await peer.reply()
            due.discard(tag)
            if isinstance(reply, m.Rlerror):
                assert reply.ecode in SHORT, reply
            elif isinstance(reply, m.Rwrite):
                at, data = asked[tag]
                assert data is not None
                self._put(model, at, data[: reply.count])
            elif isinstance(reply, m.Rread):
                at = asked[tag][0]
                if at + 1000 <= len(before):
                    assert reply.data == before[at : at + len(reply.data)], (name, at)
            else:
                assert isinstance(reply, m.Rflush)

    async def _read(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        model = self._model[name]
        at, count = self._rng.randrange(FILE_MAX), self._rng.choice((1, 5000, 65536, MSIZE))
        data = (await peer.call(m.Tread(fid, at, count))).data
        assert data == model[at : at + len(data)], (name, at)
        assert data or at >= len(model)

    async def _truncate(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        size, model = self._rng.randrange(FILE_MAX), self._model[name]
        await peer.call(truncation(fid, size))
        del model[size:]
        model.extend(bytes(size - len(model)))

    async def _remove(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        await peer.call(m.Tunlinkat(ROOT, name, 0))
        del self._model[name]
        await peer.call(m.Tclunk(self._fids.pop(name)))

    async def _leave(self, peer: SocketPeer, name: bytes, fid: int) -> None:
        """Vanish in the middle of a write, or of many reads; the work goes on with a new client."""
        if self._rng.random() < 0.5:
            frame = m.Twrite(fid, 0, self._rng.randbytes(MSIZE - c.IOHDRSZ)).frame(1)
            peer.feed(frame[: self._rng.randrange(len(frame))])
        else:
            for tag in range(100):
                peer.send(m.Tread(fid, tag * 10_000, MSIZE), tag)
        for _ in range(self._rng.randrange(20)):
            await asyncio.sleep(0)
        peer.abort()
        self._peer = None

    @staticmethod
    def _put(model: bytearray, at: int, data: bytes) -> None:
        model.extend(bytes(max(0, at - len(model))))
        model[at : at + len(data)] = data


class Chaos:
    """One run.

    Attributes:
        count: what was done, and how often.
    """

    def __init__(self, seed: int, place: Path) -> None:
        self.rng = random.Random(seed)
        self.count: Counter[str] = Counter()
        self.world: Spilling
        self._place = place

    async def run(self, steps: int, seconds: float = 1e9) -> None:
        """Go on for so many steps, or as long; then all files must be what they should be.

        Raises:
            AssertionError: they are not, or something is left.
        """
        end = time.monotonic() + seconds
        disk = Disk(self.rng)
        async with spilling(self._place, RAM, SWAP) as self.world:
            world = self.world
            world.pager._threads.shutdown()
            world.pager._threads = Inline()  # type: ignore[assignment]
            workers = [Worker(self, number) for number in range(CLIENTS)]
            with disk.installed():
                for step in range(steps):
                    if time.monotonic() > end:
                        break
                    if step % 50 == 0:
                        disk.odds = self.rng.choice((0.0, 0.0, 0.1, 1.0))
                        world.memory.retry()
                    if self.rng.random() < 0.1:
                        await self._attack()
                    async with asyncio.timeout(GUARD):
                        await asyncio.gather(*(worker.step() for worker in workers))
                    world.logs.clear()
                disk.odds = 0.0
                world.memory.retry()
                for worker in workers:
                    await worker.verify()
            for peer in world.peers:
                peer.abort()
            other = await world.begin()
            while len(world.server._connections) > 1:
                await other.call(STATFS)
            assert no_berth_is_taken(world.memory.arena)
            world.spill.check()
            world.spill.nothing_is_left()

    async def _attack(self) -> None:
        """A client that harms nobody else."""
        rng = self.rng
        peer = await self.world.begin()
        lock = await peer.create(b"attack")
        await peer.call(m.Tunlinkat(ROOT, b"attack", 0))
        attack = rng.choice(("locks", "garbage", "unread", "reset", "gone"))
        self.count[attack] += 1
        if attack == "locks":
            for tag in range(rng.randrange(200)):
                peer.send(tlock(lock, proc=tag, flags=c.LOCK_FLAGS_BLOCK), tag)
                peer.send(m.Tflush(rng.randrange(200)), 1000 + tag)
        elif attack == "garbage":
            peer.feed(rng.randbytes(rng.randrange(1, 5000)))
        elif attack == "unread":
            for tag in range(100):
                peer.send(m.Tgetattr(lock, c.GETATTR_ALL), tag)
        elif attack == "reset":
            sock = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        peer.abort()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=1 << 60)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as place,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        chaos = Chaos(given.seed, Path(place))
        runner.run(chaos.run(given.steps, given.seconds))
    print(dict(chaos.count.most_common()))


if __name__ == "__main__":
    main()
