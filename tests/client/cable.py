"""Cable: what a client's connection runs through in a test, which can cut it at any request."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from server.address import Unix
from server.wire.codec import HEADER, Message


class Cable:
    """Carries connections to a server.

    Attributes:
        path: the unix socket that takes them.
        requests: how many of each type (T-message) have passed.
        connections: how many there were.
    """

    def __init__(self, path: str, server: Unix) -> None:
        self.path = path
        self.requests: Counter[int] = Counter()
        self.connections = 0
        self._server = server
        self._cut_at: type[Message] | None = None
        self._before = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()
        self._listening: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    async def plug(self) -> None:
        """Take connections from now on."""
        self._listening = await asyncio.start_unix_server(self._carry, self.path)

    async def unplug(self) -> None:
        """Cut all connections, and take no more."""
        assert self._listening is not None
        self._listening.close()
        self.cut()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Cut all connections."""
        for end in self._ends:
            end.transport.abort()

    def cut_at(self, kind: type[Message], *, before: bool = False) -> None:
        """Cut once when the next such request comes: the server gets it, unless ``before``; its
        reply is lost."""
        self._cut_at = kind
        self._before = before

    async def passed(self, kind: type[Message]) -> None:
        """Wait until one more such request has passed."""
        before = self.requests[kind.TYPE]
        while self.requests[kind.TYPE] == before:
            self._news.clear()
            await self._news.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        to_server = await asyncio.open_unix_connection(self._server.path)
        self._ends |= {writer, to_server[1]}
        for way in (self._requests(reader, *to_server), self._replies(to_server[0], writer)):
            task = asyncio.create_task(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(
        self,
        source: asyncio.StreamReader,
        replies: asyncio.StreamReader,
        target: asyncio.StreamWriter,
    ) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await source.readexactly(HEADER.size)
                size, kind, _ = HEADER.unpack(head)
                body = await source.readexactly(size - HEADER.size)
                self.requests[kind] += 1
                self._news.set()
                if self._cut_at is not None and kind == self._cut_at.TYPE:
                    self._cut_at = None
                    if not self._before:
                        replies.feed_data = lambda data: self.cut()  # type: ignore[method-assign]
                        target.write(head + body)
                    else:
                        self.cut()
                    return
                target.write(head + body)
        target.close()

    async def _replies(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 20):
                target.write(data)
        target.close()
