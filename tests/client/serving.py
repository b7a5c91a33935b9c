"""Serving: a server in a thread, for what has no event loop."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.address import Tcp, Unix
from server.limits import Limits
from server.listener import Server
from tests.server.peer import store_of
from tmpfs_core.mount import Mount


@dataclass
class Serving:
    """Where a server is: addresses as the client has them."""

    unix: str
    tcp: str


@contextmanager
def serving(mount: Mount, directory: Path) -> Iterator[Serving]:
    """Serve a file system meanwhile, and log nothing: standard output is that of commands."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Server, Serving]:
        server = Server(store_of(mount), 1 << 20, Limits())
        unix = server.listen(Unix(str(directory / "served")))
        return server, Serving(str(unix), str(server.listen(Tcp("127.0.0.1", 0))))

    server, where = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield where
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        structlog.reset_defaults()
