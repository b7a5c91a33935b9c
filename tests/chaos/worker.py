"""A client that works, and checks all that it reads.

Rules of this file:

* What it reads must be what it wrote, held against a bytearray for each file.  It may be refused
  space or memory (SHORT), and then nothing has changed.
* Its files are its own.
"""

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import ROOT, SocketPeer
from tests.server.spilling import MSIZE, truncation

from .plan import Act

#: Bytes that a file may have; files of a worker.
FILE_MAX, FILES = 2 << 20, 4
#: What a client may be refused where RAM and swap are full, or swap fails.
SHORT = {errno.ENOSPC, errno.ENOMEM}

Connect = Callable[[], Awaitable[SocketPeer]]


async def vanish(rng: random.Random, peer: SocketPeer) -> None:
    """Let the server work for a moment; then end the connection, perhaps with a reset."""
    for _ in range(rng.randrange(20)):
        await asyncio.sleep(0)
    if rng.random() < 0.5:
        peer.reset()
    else:
        peer.abort()


class Worker:
    """One of several; ``connect`` gives a client that has attached ROOT."""

    def __init__(self, number: int, connect: Connect, count: Counter[str]) -> None:
        self._connect = connect
        self._count = count
        self._names = [b"%d.%d" % (number, i) for i in range(FILES)]
        self._model: dict[bytes, bytearray] = {}
        self._fids: dict[bytes, int] = {}
        self._peer: SocketPeer | None = None

    async def do(self, act: Act) -> None:
        """Do this with one of the files, as far as it is not refused."""
        rng = random.Random(act.seed)
        if self._peer is None:
            self._peer = await self._connect()
            self._fids.clear()
        name = rng.choice(self._names)
        action = getattr(self, f"_{act.kind}")
        self._count[act.kind] += 1
        try:
            await action(rng, self._peer, name, await self._open(self._peer, name))
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._count["refused"] += 1

    async def verify(self) -> None:
        """All that was written is there; then remove it."""
        peer = await self._connect()
        for name, expected in self._model.items():
            fid = await peer.open(name)
            assert await peer.size(fid) == len(expected)
            got = bytearray()
            while data := (await peer.call(m.Tread(fid, len(got), MSIZE))).data:
                got += data
            assert got == expected, name
            await peer.call(m.Tunlinkat(ROOT, name, 0))
        await peer.close()
        if self._peer is not None:
            await self._peer.close()

    async def _open(self, peer: SocketPeer, name: bytes) -> int:
        if name not in self._fids:
            if name in self._model:
                self._fids[name] = await peer.open(name)
            else:
                self._fids[name] = await peer.create(name)
                self._model[name] = bytearray()
        return self._fids[name]

    async def _write(self, rng: random.Random, peer: SocketPeer, name: bytes, fid: int) -> None:
        data = rng.randbytes(rng.choice((1, 100, 4096, 65536, 300_000, MSIZE - c.IOHDRSZ)))
        at = rng.randrange(FILE_MAX - len(data))
        at -= at % rng.choice((1, 4096, 65536))
        count = (await peer.call(m.Twrite(fid, at, data))).count
        self._put(name, at, data[:count])

    async def _burst(self, rng: random.Random, peer: SocketPeer, name: bytes, fid: int) -> None:
        """Many requests at once, none of whose ranges overlap, so that their order is one."""
        step = 20_000
        asked: dict[int, tuple[int, bytes | None]] = {}
        for tag, place in enumerate(rng.sample(range(FILE_MAX // step), 100)):
            data = rng.randbytes(rng.randrange(1, step)) if rng.random() < 0.5 else None
            asked[tag] = place * step, data
        before = bytes(self._model[name])
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
                self._put(name, at, data[: reply.count])
            elif isinstance(reply, m.Rread):
                at = asked[tag][0]
                if at + 1000 <= len(before):
                    assert reply.data == before[at : at + len(reply.data)], (name, at)
            else:
                assert isinstance(reply, m.Rflush)

    async def _read(self, rng: random.Random, peer: SocketPeer, name: bytes, fid: int) -> None:
        model = self._model[name]
        at, count = rng.randrange(FILE_MAX), rng.choice((1, 5000, 65536, MSIZE))
        data = (await peer.call(m.Tread(fid, at, count))).data
        assert data == model[at : at + len(data)], (name, at)
        assert data or at >= len(model)

    async def _truncate(self, rng: random.Random, peer: SocketPeer, name: bytes, fid: int) -> None:
        size, model = rng.randrange(FILE_MAX), self._model[name]
        await peer.call(truncation(fid, size))
        del model[size:]
        model.extend(bytes(size - len(model)))

    async def _remove(self, _: random.Random, peer: SocketPeer, name: bytes, fid: int) -> None:
        await peer.call(m.Tunlinkat(ROOT, name, 0))
        del self._model[name]
        await peer.call(m.Tclunk(self._fids.pop(name)))

    async def _vanish(self, rng: random.Random, peer: SocketPeer, _: bytes, fid: int) -> None:
        """In the middle of a write, or of many reads; the work goes on with a new client."""
        if rng.random() < 0.5:
            frame = m.Twrite(fid, 0, rng.randbytes(MSIZE - c.IOHDRSZ)).frame(1)
            peer.feed(frame[: rng.randrange(len(frame))])
        else:
            for tag in range(1000):
                peer.send(m.Tread(fid, tag * 2000, MSIZE), tag)
        self._peer = None
        await vanish(rng, peer)

    def _put(self, name: bytes, at: int, data: bytes) -> None:
        model = self._model[name]
        model.extend(bytes(max(0, at - len(model))))
        model[at : at + len(data)] = data
