"""pyroute2's client of plain 9P2000, written by others, against the server."""

from collections.abc import AsyncIterator

import pytest
from pyroute2.plan9 import msg_tversion
from pyroute2.plan9.client import Plan9ClientSocket

from server.config import Tcp
from server.limits import Limits
from server.listener import Server
from server.wire import constants as c
from tmpfs_core.mount import Mount

from .peer import store_of


@pytest.fixture
async def address(mount: Mount) -> AsyncIterator[tuple[str, int]]:
    """Where a server listens."""
    server = Server(store_of(mount), 1 << 20, Limits())
    bound = server.listen(Tcp("127.0.0.1", 0))
    assert isinstance(bound, Tcp)
    yield bound.host, bound.port
    await server.stop()


async def test_plain_9p2000_is_answered_unknown_and_the_connection_stays(
    address: tuple[str, int],
) -> None:
    client = Plan9ClientSocket(address=address)
    for _ in range(2):
        answer = await client.version()
        assert (answer["version"], answer["msize"]) == ("unknown", 8192)

    request = msg_tversion()
    request["msize"] = 8192
    request["version"] = c.VERSION.decode()
    answer = await client.request(request, tag=c.NOTAG)
    assert (answer["version"], answer["msize"]) == ("9P2000.L", 8192)
    client.close()
