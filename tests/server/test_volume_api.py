"""volume_api: requests of an engine over HTTP, and what is none; nothing is mounted here."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web
from structlog.testing import capture_logs

from server.mounts import Mounts
from server.volume_api import CONTENT_TYPE, application
from server.volumes import Volumes

from .test_main import Running, serving

NONE = "v: no such volume"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    options = ("--listen", "tcp://127.0.0.1:0", "--control", str(tmp_path / "control"))
    with serving("--size", "16m", *options) as server:
        server.ready()
        yield server


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    mounts = Mounts(tmp_path, lambda options, place: ["false"])
    return Volumes(tmp_path, str(tmp_path / "control"), mounts)


@pytest.fixture
async def session(tmp_path: Path, volumes: Volumes) -> AsyncIterator[ClientSession]:
    """Requests to the API, which is at an address of its own."""
    runner = web.AppRunner(application(volumes))
    await runner.setup()
    path = str(tmp_path / "plugin")
    await web.UnixSite(runner, path).start()
    async with ClientSession("http://plugin", connector=UnixConnector(path)) as session:
        yield session
    await runner.cleanup()


async def post(session: ClientSession, path: str, body: bytes | None = None) -> tuple[int, Any]:
    async with session.post(f"/{path}", data=body) as response:
        assert response.content_type == CONTENT_TYPE
        return response.status, json.loads(await response.read())


async def ask(session: ClientSession, what: str, **fields: Any) -> tuple[int, Any]:
    return await post(session, f"VolumeDriver.{what}", json.dumps(fields).encode())


async def test_it_says_what_it_is(session: ClientSession) -> None:
    said = await post(session, "Plugin.Activate")
    assert said == (200, {"Implements": ["VolumeDriver"], "Err": ""})
    capable = await post(session, "VolumeDriver.Capabilities", b"")
    assert capable == (200, {"Capabilities": {"Scope": "local"}, "Err": ""})


async def test_volumes_come_and_go(session: ClientSession, server: Running) -> None:
    assert await ask(session, "Create", Name="v", Opts={"size": "1m"}) == (200, {"Err": ""})
    assert await ask(session, "Create", Name="w", Opts=None) == (200, {"Err": ""})
    listed = [{"Name": name, "Mountpoint": ""} for name in ("v", "w")]
    assert await post(session, "VolumeDriver.List") == (200, {"Volumes": listed, "Err": ""})
    status, found = await ask(session, "Get", Name="v")
    assert (status, found["Err"]) == (200, "")
    assert found["Volume"].pop("Status")["size"] == 1 << 20
    assert found["Volume"] == listed[0]
    assert await ask(session, "Path", Name="v") == (200, {"Mountpoint": "", "Err": ""})
    assert await ask(session, "Unmount", Name="v", ID="one") == (200, {"Err": ""})
    assert await ask(session, "Remove", Name="v") == (200, {"Err": ""})
    assert await ask(session, "Get", Name="v") == (500, {"Err": NONE})


@pytest.mark.parametrize("what", ["Remove", "Mount", "Unmount", "Path", "Get"])
async def test_no_such_volume(session: ClientSession, what: str) -> None:
    assert await ask(session, what, Name="v", ID="one") == (500, {"Err": NONE})


async def test_what_can_not_be_done_is_told_and_logged(
    session: ClientSession, server: Running
) -> None:
    why = "v: colour: no such option; there are: size, ram, nr-inodes, mode, uid, gid, readonly"
    with capture_logs() as logs:
        status, told = await ask(session, "Create", Name="v", Opts={"colour": "red"})
    assert (status, told) == (500, {"Err": why})
    path = "/VolumeDriver.Create"
    assert logs == [{"event": "refused", "log_level": "info", "path": path, "why": why}]


@pytest.mark.parametrize(
    ("what", "body", "why"),
    [
        ("Create", b"{", "Expecting property name"),
        ("Create", b"\xff", "'utf-8' codec can't decode"),
        ("Create", b"[]", "not an object"),
        ("Create", b"[" * 100_000, "maximum recursion depth exceeded"),
        ("Create", b"{}", "Name: not given; it takes a string"),
        ("Create", b'{"Name": 1}', "Name: not given; it takes a string"),
        ("Create", b'{"Name": "v", "Opts": []}', "Opts: not an object of strings"),
        ("Create", b'{"Name": "v", "Opts": [1]}', "Opts: not an object of strings"),
        ("Create", b'{"Name": "v", "Opts": {"size": 1}}', "Opts: not an object of strings"),
        ("Mount", b'{"Name": "v"}', "ID: not given; it takes a string"),
    ],
)
async def test_what_is_no_request(session: ClientSession, what: str, body: bytes, why: str) -> None:
    status, told = await post(session, f"VolumeDriver.{what}", body)
    assert status == 400
    assert told["Err"].startswith(f"/VolumeDriver.{what}: {why}")


async def test_what_the_system_refuses_is_told(
    session: ClientSession, server: Running, tmp_path: Path
) -> None:
    (tmp_path / "volumes.new").mkdir()
    told = {"Err": f"{tmp_path}/volumes.new: Is a directory"}
    assert await ask(session, "Create", Name="v") == (500, told)


async def test_a_failure_of_its_own_is_logged(
    session: ClientSession, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "names", lambda: 1 / 0)
    with capture_logs() as logs:
        told = await post(session, "VolumeDriver.List")
    assert told == (500, {"Err": "the plugin failed; its log tells why"})
    assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
