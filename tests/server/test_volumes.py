"""volumes: what is noted, and what the server is told; nothing is mounted here."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.control import ask
from server.mounts import Mounts
from server.volumes import OPTIONS, VolumeError, Volumes, export_of

from .test_main import Running, serving


@pytest.fixture
def control(tmp_path: Path) -> str:
    return str(tmp_path / "control")


@pytest.fixture
def server(control: str) -> Iterator[Running]:
    with serving("--size", "16m", "--listen", "tcp://127.0.0.1:0", "--control", control) as server:
        server.ready()
        yield server


def volumes_of(directory: Path, control: str) -> Volumes:
    """The volumes that are noted in a directory."""
    return Volumes(directory, control, Mounts(directory, lambda options, place: ["false"]))


def exports(control: str) -> dict[str, Any]:
    """What the server has, besides the default export."""
    return {it["name"]: it for it in ask(control, "export ls", {}) if it["name"] != "/"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "v"),
        ({"size": "1g", "ram": "10%"}, "v:size=1g,ram=10%"),
        ({"readonly": ""}, "v:ro=true"),
        ({"readonly": "false", "nr-inodes": "1k"}, "v:ro=false,nr-inodes=1k"),
        ({"mode": "0750", "uid": "5", "gid": "6"}, "v:mode=0750,uid=5,gid=6"),
    ],
)
def test_options_are_those_of_an_export(options: dict[str, str], text: str) -> None:
    assert export_of("v", options) == text


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("v", {"colour": "red"}, f"v: colour: no such option; there are: {', '.join(OPTIONS)}"),
        ("v", {"ro": "true"}, f"v: ro: no such option; there are: {', '.join(OPTIONS)}"),
        ("v", {"size": "much"}, "v: size: 'much' is not allowed; it takes a number of bytes, "),
        ("v", {"size": ""}, "v: size: '' is not allowed; it takes a number of bytes, "),
        ("v", {"size": "1g,ro"}, "v: size: '1g,ro' is not allowed; it takes a number of bytes, "),
        ("v", {"mode": "rwx"}, "v: mode: 'rwx' is not allowed; it takes permission bits in octal"),
        ("v", {"uid": "me"}, "v: uid: 'me' is not allowed; it takes a number from 0 to 4294967294"),
        ("v", {"readonly": "1"}, "v: readonly: '1' is not allowed; it takes true or false"),
        ("/", {}, "'/' is not allowed; it takes a name of letters, digits and _.-"),
        ("/v", {}, "'/v' is not allowed; "),
        ("..", {}, "'..' is not allowed; "),
        ("v\n", {}, "'v\\n' is not allowed; "),
        ("v" * 256, {}, f"'{'v' * 256}' is not allowed; "),
    ],
)
def test_what_can_not_be_is_told(name: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(VolumeError) as caught:
        export_of(name, options)
    assert str(caught.value).startswith(why)


async def test_a_volume_is_an_export(tmp_path: Path, control: str, server: Running) -> None:
    volumes = volumes_of(tmp_path, control)
    await volumes.create("v", {"size": "1m", "readonly": ""})
    await volumes.create("w", {})
    made = exports(control)
    assert [(made[name]["size"], made[name]["ro"]) for name in ("v", "w")] == [
        (1 << 20, True),
        (16 << 20, False),
    ]
    assert volumes.names() == ["v", "w"]
    assert volumes.path("v") == ""
    assert await volumes.status("v") == {
        "holders": 0,
        "size": 1 << 20,
        "used": 0,
        "ram": None,
        "inodes": 1,
        "nr_inodes": made["v"]["nr_inodes"],
        "clients": 0,
    }
    await volumes.remove("v")
    assert list(exports(control)) == ["w"]
    assert volumes.names() == ["w"]


async def test_a_volume_that_is_there_is_not_made_again(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    await volumes.create("v", {"size": "1m"})
    await volumes.create("v", {"size": "1m"})
    with pytest.raises(
        VolumeError, match=r"^v: it is there already, with other options than these"
    ):
        await volumes.create("v", {"size": "2m"})
    assert exports(control)["v"]["size"] == 1 << 20


async def test_an_export_of_others_is_no_volume(
    tmp_path: Path, control: str, server: Running
) -> None:
    ask(control, "export add", {"export": "theirs"})
    volumes = volumes_of(tmp_path, control)
    with pytest.raises(VolumeError, match=r"^theirs: the server has an export of that name"):
        await volumes.create("theirs", {})
    with pytest.raises(VolumeError, match=r"^theirs: no such volume"):
        await volumes.remove("theirs")
    assert volumes.names() == []
    assert list(exports(control)) == ["theirs"]


async def test_what_the_server_refuses_is_told_and_not_noted(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    with pytest.raises(VolumeError, match=r"^v: .*size: 1099511627776 is more than the RAM"):
        await volumes.create("v", {"size": "1t"})
    assert volumes.names() == volumes_of(tmp_path, control).names() == []


async def test_no_such_volume(tmp_path: Path, control: str) -> None:
    volumes = volumes_of(tmp_path, control)
    doing = (
        volumes.remove("v"),
        volumes.mount("v", "one"),
        volumes.unmount("v", "one"),
        volumes.status("v"),
    )
    for one in doing:
        with pytest.raises(VolumeError, match=r"^v: no such volume"):
            await one
    with pytest.raises(VolumeError, match=r"^v: no such volume"):
        volumes.path("v")


async def test_what_is_noted_outlives_the_process(
    tmp_path: Path, control: str, server: Running
) -> None:
    await volumes_of(tmp_path, control).create("v", {"size": "1m"})
    volumes = volumes_of(tmp_path, control)
    with capture_logs() as logs:
        await volumes.reconcile()
    assert logs == []
    await volumes.create("v", {"size": "1m"})
    await volumes.remove("v")
    assert exports(control) == {}


async def test_volumes_that_the_server_has_lost_are_made_again(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    for name in ("v", "w"):
        await volumes.create(name, {"size": "1m"})
        ask(control, "export rm", {"name": name, "force": False})
    lost = {"holders": 0, "server": "it has lost the volume; a mount makes it again"}
    assert await volumes.status("v") == lost
    await volumes.remove("w")
    with capture_logs() as logs:
        await volumes.reconcile()
    event = "the server had lost a volume: made again, empty"
    assert logs == [{"event": event, "log_level": "warning", "volume": "v"}]
    assert list(exports(control)) == ["v"]


async def test_a_server_that_is_not_reachable_is_told(tmp_path: Path, control: str) -> None:
    (tmp_path / "volumes.json").write_text('{"v": {"options": {}, "holders": {}}}')
    volumes = volumes_of(tmp_path, control)
    why = f"the server is not reachable: {control}: No such file or directory"
    for doing in (volumes.create("w", {}), volumes.mount("v", "one"), volumes.remove("v")):
        with pytest.raises(VolumeError) as caught:
            await doing
        assert str(caught.value) == why
    assert volumes.names() == ["v"]
    assert await volumes.status("v") == {"holders": 0, "server": why}
    with capture_logs() as logs:
        await volumes.reconcile()
    assert [(log["event"], log["why"]) for log in logs] == [("volume not as it should be", why)]


async def test_what_can_not_be_mounted_is_told_and_not_held(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    await volumes.create("v", {})
    with pytest.raises(VolumeError, match=r"^v: false failed"):
        await volumes.mount("v", "one")
    assert json.loads((tmp_path / "volumes.json").read_text())["v"]["holders"] == {}


async def test_who_holds_what_is_not_mounted_is_forgotten(
    tmp_path: Path, control: str, server: Running
) -> None:
    """The machine was started anew, say."""
    await volumes_of(tmp_path, control).create("v", {})
    noted = {"v": {"options": {}, "holders": {"one": 1}}}
    (tmp_path / "volumes.json").write_text(json.dumps(noted))
    volumes = volumes_of(tmp_path, control)
    assert (await volumes.status("v"))["holders"] == 0
    await volumes.unmount("v", "one")
    await volumes.remove("v")


async def test_a_state_that_can_not_be_written_changes_nothing(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    (tmp_path / "volumes.new").mkdir()
    with pytest.raises(IsADirectoryError):
        await volumes.create("v", {})
    assert volumes.names() == []
    assert exports(control) == {}


async def test_requests_about_one_volume_wait_for_their_turn(
    tmp_path: Path, control: str, server: Running
) -> None:
    volumes = volumes_of(tmp_path, control)
    again = [volumes.create("v", {}), volumes.remove("v")] * 8
    await asyncio.gather(*again)
    assert volumes.names() == []
    assert exports(control) == {}


@pytest.mark.parametrize("text", ["", "[]", "1", '{"v": []}', '{"v": {"size": 1}}', '{"v": {}}'])
def test_a_file_that_is_no_state_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "volumes.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 the text may be that of json
        volumes_of(tmp_path, "/control")
    assert (tmp_path / "volumes.json").read_text() == text
    assert os.listdir(tmp_path / "mounts") == []
