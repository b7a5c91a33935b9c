"""Clients that harm nobody but themselves, or should not.

Rules of this file:

* Each attack is a function of a generator of random numbers and of what connects.  It leaves no
  file behind, and checks what it is told; who has not vanished by then does so at its end.
* It may be refused space or memory (SHORT), but only by those that it asked for some.
"""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tests.server.peer import ROOT, SocketPeer
from tests.server.spilling import MSIZE, STATFS, replies
from tests.server.test_handlers_locks import tlock

from .plan import ATTACKS, Act
from .worker import SHORT, Connect, vanish

Attack = Callable[[random.Random, Connect], Awaitable[None]]


async def attack(act: Act, connect: Connect) -> None:
    """Do it, as far as it is not refused; then all its clients are gone."""
    peers: list[SocketPeer] = []

    async def come() -> SocketPeer:
        peers.append(await connect())
        return peers[-1]

    try:
        await KINDS[act.kind](random.Random(act.seed), come)
    except OSError as error:
        if error.errno not in SHORT:
            raise
    finally:
        for peer in peers:
            peer.abort()


async def nameless(rng: random.Random, peer: SocketPeer) -> int:
    """An open file that has no name any more."""
    name = b"attack.%x" % rng.getrandbits(64)
    fid = await peer.create(name)
    await peer.call(m.Tunlinkat(ROOT, name, 0))
    return fid


async def comings(rng: random.Random, connect: Connect) -> None:
    """Clients come and go."""
    for _ in range(50):
        peer = await connect()
        peer.send(STATFS)
        await vanish(rng, peer)


async def crowd(rng: random.Random, connect: Connect) -> None:
    """Many at once, each with a file of its own."""

    async def work(seed: int) -> None:
        peer, own = await connect(), random.Random(seed)
        fid = await nameless(own, peer)
        data = own.randbytes(1000)
        assert (await peer.call(m.Twrite(fid, 5, data))).count == len(data)
        assert (await peer.call(m.Tread(fid, 0, MSIZE))).data == bytes(5) + data

    done = await asyncio.gather(
        *(work(rng.getrandbits(32)) for _ in range(100)), return_exceptions=True
    )
    for error in filter(None, done):
        if not isinstance(error, OSError) or error.errno not in SHORT:
            raise error


async def flushes(rng: random.Random, connect: Connect) -> None:
    """Every lock that is waited for is flushed, and the flushes, too."""
    holder, peer = await connect(), await connect()
    name = b"attack.%x" % rng.getrandbits(64)
    held = await holder.create(name)
    lock = await peer.open(name)
    await holder.call(m.Tunlinkat(ROOT, name, 0))
    await holder.call(tlock(held))
    count = rng.randrange(1, 200)
    for tag in range(count):
        peer.send(tlock(lock, proc=tag + 2, flags=c.LOCK_FLAGS_BLOCK), tag)
    for tag in range(count):
        peer.send(m.Tflush(tag), 1000 + tag)
        peer.send(m.Tflush(1000 + tag), 2000 + tag)
    answered = list(await replies(peer, 2 * count))
    assert sorted(answered) == [*range(1000, 1000 + count), *range(2000, 2000 + count)]
    assert all(answered.index(1000 + tag) < answered.index(2000 + tag) for tag in range(count))
    await vanish(rng, peer)
    await vanish(rng, holder)


async def garbage(rng: random.Random, connect: Connect) -> None:
    """What is no message."""
    peer = await connect()
    peer.feed(rng.randbytes(rng.randrange(1, 5000)))
    await vanish(rng, peer)


async def half_closed(rng: random.Random, connect: Connect) -> None:
    """Sends no more, and gets all its answers."""
    peer = await connect()
    count = rng.randrange(1, 500)
    for tag in range(count):
        peer.send(STATFS, tag)
    peer.writer.write_eof()
    assert list(await replies(peer, count)) == list(range(count))
    assert await peer.is_dropped()


async def half_sent(rng: random.Random, connect: Connect) -> None:
    """Writes whose ends never come."""
    peers = [await connect() for _ in range(10)]
    for peer in peers:
        fid = await nameless(rng, peer)
        frame = m.Twrite(fid, 0, bytes(MSIZE - c.IOHDRSZ)).frame(1)
        peer.feed(frame[: rng.randrange(len(frame))])
    for peer in peers:
        await vanish(rng, peer)


async def locks(rng: random.Random, connect: Connect) -> None:
    """Vanishes with up to 1000 requests in flight, some of them flushed."""
    peer = await connect()
    lock = await nameless(rng, peer)
    for tag in range(rng.randrange(1000)):
        peer.send(tlock(lock, proc=tag, flags=c.LOCK_FLAGS_BLOCK), tag)
        peer.send(m.Tflush(rng.randrange(1000)), 1000 + tag)
    await vanish(rng, peer)


async def one_fid(rng: random.Random, connect: Connect) -> None:
    """A fid is used by 100 requests at once, and clunked in the middle."""
    peer = await connect()
    fid = await nameless(rng, peer)
    middle = rng.randrange(100)
    for tag in range(100):
        requests: list[Message] = [m.Tread(fid, 0, MSIZE), m.Tgetattr(fid, c.GETATTR_ALL)]
        requests += [m.Twrite(fid, tag * 500, bytes(500))]
        peer.send(m.Tclunk(fid) if tag == middle else rng.choice(requests), tag)
    for tag, reply in (await replies(peer, 100)).items():
        if tag > middle:
            assert reply == m.Rlerror(errno.EBADF)
        else:
            assert not isinstance(reply, m.Rlerror) or reply.ecode in SHORT | {errno.EBADF}


async def unread(rng: random.Random, connect: Connect) -> None:
    """Asks for much, and reads none of it."""
    peer = await connect()
    fid = await nameless(rng, peer)
    await peer.call(m.Twrite(fid, 0, rng.randbytes(100_000)))
    for tag in range(200):
        peer.send(m.Tread(fid, 0, MSIZE), tag)
    await vanish(rng, peer)


KINDS: dict[str, Attack] = {kind: globals()[kind] for kind in ATTACKS}
