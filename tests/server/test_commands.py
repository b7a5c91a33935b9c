"""commands: what the control socket offers, on a store."""

import errno
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.commands import Add, List, Remove, Show, commands
from server.config import load
from server.control import Command
from server.limits import Limits
from server.listener import Server
from server.meter import Meter
from server.status import Status
from server.store import Store
from server.usage import ConfigError
from tmpfs_core.memory import Memory

from .peer import raises_errno

MIB = 1 << 20


@pytest.fixture
async def table() -> AsyncIterator[dict[str, Command]]:
    """The commands of a server with 4 MiB of RAM, whose exports have 1 MiB."""
    store = Store(Memory(1024), 100)
    meter = Meter()
    server = Server(store, 8192, Limits(), meter=meter)
    config = load({"size": ["1m"], "mode": ["700"], "nr-inodes": ["9"]}, {}, None)
    yield commands(store, lambda: config, Status(server, store, meter))
    await server.stop()


async def run(table: dict[str, Command], name: str, arguments: object) -> Any:
    assert isinstance(arguments, table[name].takes)
    result = await table[name].run(arguments)
    return json.loads(json.dumps(result))


async def test_an_export_is_added_listed_and_removed(table: dict[str, Command]) -> None:
    text = "x:ram=1m,ro,allow=10.0.0.0/8+::1/128,squash=root,anonuid=1,anongid=2,permissions=server"
    made = await run(table, "export add", Add(text))
    assert made == {
        "name": "x",
        "memory": "/x",
        "size": MIB,
        "used": 0,
        "swapped": 0,
        "ram": MIB,
        "inodes": 1,
        "nr_inodes": 9,
        "clients": 0,
        "ro": True,
        "allow": ["10.0.0.0/8", "::1/128"],
        "squash": "root",
        "anonuid": 1,
        "anongid": 2,
        "permissions": "server",
    }
    shared = await run(table, "export add", Add("/"))
    assert (shared["name"], shared["ram"]) == ("/", None)
    assert await run(table, "export ls", List()) == [made, shared]
    for name in ("/x", "/"):
        assert await run(table, "export rm", Remove(name, force=False)) is None
    assert await run(table, "export ls", List()) == []


async def test_what_can_not_be_is_refused(table: dict[str, Command]) -> None:
    await run(table, "export add", Add("x"))
    with raises_errno(errno.EEXIST):
        await run(table, "export add", Add("x"))
    with raises_errno(errno.ENOENT):
        await run(table, "export rm", Remove("y", force=True))
    with pytest.raises(ConfigError, match="add: y: size: 'z' is not allowed"):
        await run(table, "export add", Add("y:size=z"))
    with pytest.raises(ConfigError, match=r"rm: '\.\.' is not allowed"):
        await run(table, "export rm", Remove("..", force=False))


async def test_a_status_tells_of_the_server_and_of_its_clients(table: dict[str, Command]) -> None:
    await run(table, "export add", Add("x"))
    status = await run(table, "status", Show())
    assert [export["name"] for export in status["exports"]] == ["x"]
    assert (status["connections"], status["clients"]) == (0, [])
