"""Chaos against a server in a process of its own: ``python -m tests.chaos.outside``.

Its arguments: the address and the port, the process, the seed, and for how many seconds.  What was
done, and how often, is a line of JSON in the end.  The clients use the export PREY.
"""

import asyncio
import itertools
import json
import os
import resource
import signal
import sys
import time

import uvloop

from server.address import Tcp
from tests.server.peer import SocketPeer
from tests.server.spilling import MSIZE, STATFS

from .plan import Round, plan
from .run import run

PREY = b"prey"


async def outside(address: Tcp, pid: int, seed: int, seconds: float) -> dict[str, int]:
    async def connect() -> SocketPeer:
        return await (await SocketPeer.connect(address)).begin(MSIZE, PREY)

    async def prepare(this: Round) -> None:
        if this.machine == "descriptors":
            await out_of_descriptors(address, pid, await connect())
        elif this.machine == "frozen":
            await frozen(pid, await connect())

    end = time.monotonic() + seconds
    rounds = itertools.takewhile(lambda _: time.monotonic() < end, plan(seed))
    return await run(rounds, connect, prepare)


async def out_of_descriptors(address: Tcp, pid: int, served: SocketPeer) -> None:
    """Who is served goes on to be; who comes meanwhile is served when there are some again."""
    few = len(os.listdir(f"/proc/{pid}/fd")) + 3
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        waiting = [await SocketPeer.connect(address) for _ in range(10)]
        for _ in range(200):
            await served.call(STATFS)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    for peer in waiting:
        await peer.begin(MSIZE, PREY)
        await peer.close()
    await served.close()


async def frozen(pid: int, peer: SocketPeer) -> None:
    """The process stands still while requests come in."""
    os.kill(pid, signal.SIGSTOP)
    try:
        for tag in range(100):
            peer.send(STATFS, tag)
        await peer.writer.drain()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [(await peer.reply())[0] for _ in range(100)] == list(range(100))
    await peer.close()


def main() -> None:
    host, port, pid, seed, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        work = outside(Tcp(host, int(port)), int(pid), int(seed), float(seconds))
        print(json.dumps(runner.run(work)))


if __name__ == "__main__":
    main()
