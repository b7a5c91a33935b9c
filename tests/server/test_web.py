"""web: metrics and health by HTTP, for clients that behave and others that do not."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from server import web as web_module
from server.address import Tcp, Unix
from server.identity import Peer
from server.listener import ListenError
from server.metrics import Metrics
from server.network import Cid
from server.web import Web

from .peer import GUARD
from .watched import Watched, watched

ANY_PORT = Tcp("127.0.0.1", 0)


class World:
    """A server and its web, which is ready as ``ready`` says."""

    def __init__(self, served: Watched) -> None:
        self.served = served
        self.ready = True
        self.web = Web(ANY_PORT, (), Metrics(served.status), lambda: self.ready)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and text of a response."""
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with session.request(method, url, timeout=aiohttp.ClientTimeout(GUARD)) as reply:
                assert reply.headers["Connection"] == "close"
                return reply.status, await reply.text()

    @property
    def port(self) -> int:
        assert isinstance(self.web.address, Tcp)
        return self.web.address.port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(web_module, "PACE", 0.0)
    async with watched(tmp_path) as served:
        world = World(served)
        yield world
        await world.web.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end."""
    async with asyncio.timeout(GUARD):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_metrics(world: World) -> None:
    await world.served.begin()
    status, text = await world.ask("/metrics")
    assert status == 200
    assert 'tmpfs9p_requests_total{type="Tversion"} 1.0' in text


async def test_health(world: World) -> None:
    assert await world.ask("/healthz") == (200, "ok\n")


async def test_readiness_ends_before_the_server_does(world: World) -> None:
    assert await world.ask("/readyz") == (200, "ready\n")
    world.ready = False
    assert await world.ask("/readyz") == (503, "stopping\n")
    assert await world.ask("/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)]
)
async def test_there_is_nothing_else(world: World, path: str, method: str, status: int) -> None:
    assert (await world.ask(path, method))[0] == status


async def test_what_fails_unexpectedly_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, accept: str) -> None:
        raise KeyError(accept)

    monkeypatch.setattr(Metrics, "text", fail)
    with capture_logs() as logs:
        assert (await world.ask("/metrics"))[0] == 500
    assert [line["event"] for line in logs] == ["metrics: a request failed unexpectedly"]


@pytest.mark.parametrize("data", [b"junk\r\n\r\n", b"\x16\x03\x01" * 100, b"GET /" + b"x" * 20_000])
async def test_junk_is_refused_without_a_word_in_the_log(
    world: World, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await world.connect()
    writer.write(data)
    assert (await rest(reader)).startswith(b"HTTP/1.0 400 ")
    writer.close()
    assert capfd.readouterr().err == ""


async def test_who_takes_too_long_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "PATIENCE", 0.05)
    for data in (
        b"",
        b"GET /healthz HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ):
        reader, writer = await world.connect()
        writer.write(data)
        await rest(reader)
        writer.close()


async def test_a_connection_is_for_one_request(world: World) -> None:
    reader, writer = await world.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert (await rest(reader)).count(b"HTTP/1.1 200 OK") == 1
    writer.close()


async def test_there_are_so_many_connections_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "CONNECTIONS", 2)
    idle = [await world.connect() for _ in range(2)]
    reader, writer = await world.connect()
    assert await rest(reader) == b""
    for _, other in (*idle, (reader, writer)):
        other.close()
    while True:  # as soon as one of the two is gone
        try:
            assert await world.ask("/healthz") == (200, "ok\n")
            break
        except aiohttp.ClientError:
            continue


async def test_closing_ends_what_is_open(world: World) -> None:
    reader, writer = await world.connect()
    assert await world.ask("/healthz") == (200, "ok\n")  # so the other is taken, too
    await world.web.close()
    assert await rest(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await world.connect()


async def test_a_unix_socket(world: World, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    web = Web(Unix(str(path)), (), Metrics(world.served.status), lambda: True)
    web.give(os.getuid(), os.getgid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://tmpfs9p/readyz") as reply,
    ):
        assert await reply.text() == "ready\n"
    await web.close()
    assert not path.exists()


# Who may connect


async def test_an_exposed_address_takes_an_allowed_network(world: World) -> None:
    metrics = Metrics(world.served.status)
    for allow in ((), (Cid(3),)):  # that of a virtual machine is none of TCP's
        with pytest.raises(ListenError, match=r"tcp://0\.0\.0\.0:0: others .*add --allow CIDR"):
            Web(Tcp("0.0.0.0", 0), allow, metrics, lambda: True)
    web = Web(Tcp("0.0.0.0", 0), (ip_network("192.0.2.0/24"),), metrics, lambda: True)
    await web.close()


@pytest.mark.parametrize(
    ("network", "answer"), [("192.0.2.0/24", b"HTTP/1.1 200"), ("198.51.100.0/24", b"")]
)
async def test_others_are_let_in_from_allowed_networks(
    world: World, monkeypatch: pytest.MonkeyPatch, network: str, answer: bytes
) -> None:
    stranger = Peer("192.0.2.1:5", None, True, ip_address("192.0.2.1"))
    monkeypatch.setattr(web_module, "peer_of", lambda _: stranger)
    web = Web(ANY_PORT, (ip_network(network),), Metrics(world.served.status), lambda: True)
    assert isinstance(web.address, Tcp)
    reader, writer = await asyncio.open_connection("127.0.0.1", web.address.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await rest(reader))[:12] == answer
    writer.close()
    await web.close()


async def test_it_goes_on_when_accepting_has_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "ACCEPT_PAUSE", 0.0)
    calls = 0

    def peer_of(sock: socket.socket) -> Peer:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(24, "Too many open files")
        return Peer("local", None, True, None)

    monkeypatch.setattr(web_module, "peer_of", peer_of)
    with capture_logs() as logs:
        reader, writer = await world.connect()
        assert await rest(reader) == b""
        writer.close()
        assert await world.ask("/healthz") == (200, "ok\n")
    assert [line["event"] for line in logs] == ["metrics: accept failed"]
