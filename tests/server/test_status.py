"""status: what is told of a server, its exports, its memories and its clients."""

import errno
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server import status as status_module
from server.meter import Meter
from server.status import Status
from server.wire import messages as m
from server.wire.codec import HEADER
from tmpfs_core.frames import FRAME

from .peer import ROOT, raises_errno
from .spilling import Spilling
from .test_handlers_locks import tlock
from .watched import MIB, Watched, watched


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Watched]:
    async with watched(tmp_path) as world:
        yield world


async def test_a_new_server_has_done_nothing(world: Watched) -> None:
    now = world.status.summary()
    for key in ("connections", "connections_ended", "fids", "locks", "waiting", "received", "sent"):
        assert now[key] == 0
    assert (now["requests"], now["pid"]) == ({}, os.getpid())
    assert await world.status.clients() == []


async def test_it_is_json(world: Watched) -> None:
    await (await world.begin()).create(b"file")
    now = {**world.status.summary(), "clients": await world.status.clients()}
    assert json.loads(json.dumps(now)) == {**now, "bounds": list(now["bounds"])}


async def test_time_goes_by(world: Watched) -> None:
    before = world.status.summary()["uptime"]
    assert 0 < before < world.status.summary()["uptime"]


async def test_exports_share_a_memory_or_have_their_own(world: Watched) -> None:
    peer = await world.begin()
    await peer.create(b"file", bytes(5 * FRAME))
    now = world.status.summary()
    assert [(it["name"], it["memory"], it["size"], it["used"]) for it in now["exports"]] == [
        ("/", "shared", 4 * MIB, 5 * FRAME),
        ("more", "shared", 4 * MIB, 0),
        ("own", "/own", MIB, 0),
    ]
    assert [(it["name"], it["ram"], it["resident"]) for it in now["memories"]] == [
        ("shared", 8 * MIB, 5 * FRAME),
        ("/own", MIB, 0),
    ]


async def test_what_an_export_has_in_swap_is_told_of_it(small: Spilling) -> None:
    peer = await small.begin()
    await peer.create(b"file", bytes(range(256)) * 16)
    status = Status(small.server, small.store, Meter())
    (export,) = status.summary()["exports"]
    assert (export["used"], export["swapped"]) == (FRAME, 0)
    small.spill.page_out_all()
    (export,) = status.summary()["exports"]
    assert (export["used"], export["swapped"]) == (FRAME, FRAME)
    (memory,) = status.summary()["memories"]
    assert (memory["resident"], memory["swapped"], memory["paged_out"]) == (0, FRAME, 1)


async def test_requests_are_told_by_type_with_how_they_ended(world: Watched) -> None:
    peer = await world.begin()
    with raises_errno(errno.ENOENT):
        await peer.call(m.Tunlinkat(ROOT, b"missing", 0))
    requests = world.status.summary()["requests"]
    assert list(requests) == ["Tunlinkat", "Tversion", "Tattach"]
    assert requests["Tunlinkat"]["errors"] == {"ENOENT": 1}
    assert requests["Tversion"]["count"] == 1
    assert len(requests["Tversion"]["buckets"]) == len(world.status.summary()["bounds"]) + 1


async def test_all_that_is_no_request_is_told_under_one_name(world: Watched) -> None:
    peer = await world.begin()
    for kind in (5, m.Rread.TYPE, 255):
        peer.feed(HEADER.pack(7, kind, 1))
        assert (await peer.reply())[1] == m.Rlerror(errno.EOPNOTSUPP)
    world.meter.refused(255, 4000)
    requests = world.status.summary()["requests"]
    assert requests["unknown"]["count"] == 3
    assert requests["unknown"]["errors"] == {"EOPNOTSUPP": 3, "4000": 1}


async def test_what_clients_hold_is_told_of_each_and_of_all(world: Watched) -> None:
    one = await world.begin()
    await world.begin(b"own")
    fid = await one.create(b"file", b"data")
    await one.call(tlock(fid))
    now = world.status.summary()
    assert (now["connections"], now["fids"], now["locks"], now["waiting"]) == (2, 3, 1, 0)
    clients = {client["exports"][0]: client for client in await world.status.clients()}
    holds = {name: (it["fids"], it["locks"], it["requests"]) for name, it in clients.items()}
    assert holds == {"/": (2, 1, 6), "own": (1, 0, 2)}
    for key in ("received", "sent"):
        assert now[key] == sum(client[key] for client in clients.values()) > 0
    assert {client["uid"] for client in clients.values()} == {os.getuid()}
    assert len({client["fd"] for client in clients.values()}) == 2


async def test_bytes_stay_counted_when_a_client_has_gone(world: Watched) -> None:
    peer = await world.begin()
    await peer.create(b"file", bytes(1000))
    before = world.status.summary()
    other = await world.begin()
    await peer.close()
    while len(world.server.clients) > 1:
        await other.call(m.Tstatfs(ROOT))
    await other.close()
    await world.server.stop()
    now = world.status.summary()
    assert now["received"] > before["received"]
    assert now["sent"] > before["sent"]
    assert (now["connections"], now["connections_ended"], now["fids"]) == (0, 2, 0)


async def test_a_large_write_and_a_large_read_are_counted_in_bytes(world: Watched) -> None:
    peer = await world.begin()
    fid = await peer.create(b"file", bytes(500_000))
    assert 500_000 < world.status.summary()["received"] < 501_000
    assert len((await peer.call(m.Tread(fid, 0, 500_000))).data) == 500_000
    assert 500_000 < world.status.summary()["sent"] < 501_000


async def test_clients_are_told_in_slices(world: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        await world.begin()
    monkeypatch.setattr(status_module, "SLICE", 2)
    assert len(await world.status.clients()) == 5
    monkeypatch.setattr(status_module, "CLIENTS", 3)
    assert len(await world.status.clients()) == 3


async def test_who_is_not_let_in_is_counted(world: Watched) -> None:
    world.server.refusals.log("somebody", "not in --allow")
    world.server.refusals.log("somebody", "not in --allow")
    assert world.status.summary()["connections_refused"] == 2
