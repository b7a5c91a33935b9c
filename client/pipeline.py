"""Pipeline: several things under way at a time, their results in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

#: How many are under way at a time.
WINDOW = 8


async def in_order(
    work: Iterable[Coroutine[Any, Any, T]], window: int = WINDOW
) -> AsyncGenerator[T, None]:
    """The results of all, of which ``window`` at most are under way.

    Close it (:func:`contextlib.aclosing`): what is under way then is cancelled, and waited for.
    """
    tasks: deque[asyncio.Task[T]] = deque()
    rest = iter(work)
    try:
        while True:
            while len(tasks) < window and (one := next(rest, None)) is not None:
                tasks.append(asyncio.create_task(one))
            if not tasks:
                return
            yield await tasks[0]
            tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
