"""A chaos run: the rounds of a plan against one server, and the verdict of its clients."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from tests.server.peer import GUARD

from .attacks import attack
from .plan import CALM, CLIENTS, Round
from .worker import Connect, Worker


async def run(
    rounds: Iterable[Round], connect: Connect, prepare: Callable[[Round], Awaitable[None]]
) -> Counter[str]:
    """Go through these rounds, then look at all files; what was done, and how often.

    Args:
        rounds: what happens.
        connect: gives a client that has attached ROOT.
        prepare: has the machine be as a round wants it.

    Raises:
        Exception: something was not as it must be; a note says in which round.
    """
    count: Counter[str] = Counter()
    workers = [Worker(number, connect, count) for number in range(CLIENTS)]
    for this in rounds:
        count["rounds"] += 1
        count.update(act.kind for act in this.attacks)
        try:
            async with asyncio.timeout(GUARD), asyncio.TaskGroup() as group:
                await prepare(this)
                for worker, act in zip(workers, this.work, strict=True):
                    group.create_task(worker.do(act))
                for act in this.attacks:
                    group.create_task(attack(act, connect))
        except BaseException as error:
            error.add_note(f"in {this}")
            raise
    await prepare(CALM)
    for worker in workers:
        await worker.verify()
    return count
