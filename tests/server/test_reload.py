"""reload: what a running server takes on of a configuration that has changed, and what it tells."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from server.address import Unix
from server.certificates import certificates_of
from server.config import load
from server.listener import Server
from server.manager import Manager
from server.observability import configure_logging
from server.reload import Reload
from server.store import Store
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.paging import swap_file
from tmpfs_core.memory import Memory
from tmpfs_core.swap import Swap

from .certificates import Authority
from .peer import DEFAULT, GUARD, ROOT, SocketPeer
from .spilling import pump

MIB = 1 << 20
GIVEN = {
    "TMPFS9P_SIZE": "32m",
    "TMPFS9P_RAM": "16m",
    "TMPFS9P_SWAP": "/swap",
    "TMPFS9P_SWAP_SIZE": "16m",
    "TMPFS9P_LOG_FORMAT": "json",
}


class World:
    """A server with a configuration file, in 16 MiB of RAM and 16 MiB of swap."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
        self._capsys = capsys
        self._file = folder / "t9.toml"
        self._listens_at = folder / "notify"
        self.write(text)
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(self._listens_at))
        self.notices.setblocking(False)
        config = self._read()
        self.swap = Swap([swap_file(4096)])
        self.store = Store(Memory(4096, self.swap), DEFAULT.max_depth)
        self.server = Server(self.store, MIB, DEFAULT, (), certificates_of(config))
        manager = Manager({"NOTIFY_SOCKET": str(self._listens_at)})
        self.reload = Reload(
            config, self._read, configure_logging, self.store, self.server, manager
        )
        self._running = asyncio.get_running_loop().create_task(self.reload.run())

    def write(self, text: str) -> None:
        self._file.write_text(text)

    def _read(self) -> Any:
        return load({}, GIVEN, self._file)

    async def hang_up(self, text: str) -> list[dict[str, Any]]:
        """Reload with this configuration; what was logged."""
        self.write(text)
        self.reload.ask()
        await self.told("RELOADING=1")
        self.status = (await self.told("READY=1"))[1].removeprefix("STATUS=")
        return [json.loads(line) for line in self._capsys.readouterr().err.splitlines()]

    async def told(self, word: str) -> list[str]:
        """The next that the manager is told, which is this."""
        async with asyncio.timeout(GUARD):
            text = await asyncio.get_running_loop().sock_recv(self.notices, 4096)
        words = text.decode().split("\n")
        assert words[0] == word
        return words

    def export(self, name: str) -> Any:
        return self.store.exports.get(name.encode())

    def names(self) -> list[str]:
        return [export.name for export in self.store.exports]

    async def end(self) -> None:
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        for export in list(self.store.exports):
            await self.store.remove(export.name, force=True)
        await self.server.stop()
        self.swap.close()
        self.notices.close()


@pytest.fixture
async def make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Callable[..., Any]]:
    worlds: list[World] = []

    async def make(text: str = "") -> World:
        configure_logging("json", "info")
        worlds.append(world := World(tmp_path, capsys, text))
        for export in world.reload.config.exports:
            await world.store.add(export)
        return world

    yield make
    for world in worlds:
        await world.end()
    structlog.reset_defaults()


def events(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was logged but for the last line, which says that the configuration was reloaded."""
    assert logs[-1]["event"] == "configuration reloaded"
    return [(line["event"], line.get("export", "")) for line in logs[:-1]]


async def test_exports_come_and_go(make: Callable[..., Any]) -> None:
    world = await make("[export.a]\n[export.b]\nsize = '1m'\n")
    logs = await world.hang_up("[export.b]\nsize = '1m'\n[export.c]\nram = '1m'\nmode = '700'\n")
    assert events(logs) == [("export removed", "/a"), ("export added", "/c")]
    assert world.names() == ["", "b", "c"]
    assert world.export("c").mount.root.mode & 0o7777 == 0o700
    assert world.store.ram_of(world.export("c")) == MIB
    assert world.status == "exports served: 3"
    assert events(await world.hang_up("")) == [("export removed", "/b"), ("export removed", "/c")]


async def test_nothing_changes_where_nothing_has(make: Callable[..., Any]) -> None:
    text = "[export.a]\nsize = '1m'\nallow = ['10.0.0.0/8']\n"
    world = await make(text)
    a = world.export("a")
    assert events(await world.hang_up(text)) == []
    assert world.export("a") is a


async def test_an_export_that_is_in_use_goes_when_it_is_not(
    make: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await make("[export.a]\n")
    address = world.server.listen(Unix(str(tmp_path / "t9.sock")))
    peer = await SocketPeer.connect(address)
    await peer.call(m.Tversion(8192, c.VERSION), c.NOTAG)
    await peer.call(m.Tattach(ROOT, c.NOFID, b"", b"a", 0))
    capsys.readouterr()  # that he has come
    logs = await world.hang_up("")
    assert events(logs) == [("export not removed", "/a")]
    assert logs[0]["why"] == "1 client is attached"
    assert world.names() == ["", "a"]
    await peer.close()
    async with asyncio.timeout(GUARD):
        while world.export("a").clients:
            await pump(1)
    capsys.readouterr()
    assert events(await world.hang_up("")) == [("export removed", "/a")]


async def test_exports_of_the_control_socket_are_let_alone(make: Callable[..., Any]) -> None:
    world = await make("[export.a]\n[export.b]\n")
    await world.store.remove("a", force=False)
    config = next(export for export in world.reload.config.exports if export.name == "a")
    await world.store.add(replace(config, name="mine"))
    assert events(await world.hang_up("[export.a]\n[export.b]\n[export.c]\n")) == [
        ("export added", "/c")
    ]
    assert world.names() == ["", "b", "mine", "c"]
    assert events(await world.hang_up("[export.a]\nro = true\n[export.mine]\n")) == [
        ("export removed", "/b"),
        ("export removed", "/c"),
        ("export not changed", "/a"),
        ("export not added", "/mine"),
    ]
    assert events(await world.hang_up("")) == [("export removed", "/a")]
    assert world.names() == ["", "mine"]


async def test_limits_and_policy_change(make: Callable[..., Any]) -> None:
    world = await make("[export.a]\nsize = '1m'\n")
    text = (
        "[export.a]\nsize = '2m'\nnr-inodes = 99\nro = true\nallow = ['10.0.0.0/8']\n"
        "squash = 'root'\nanonuid = 7\nanongid = 8\npermissions = 'server'\n"
    )
    assert events(await world.hang_up(text)) == [("export changed", "/a")]
    a = world.export("a")
    assert (a.mount.blocks.limit, a.mount.inodes.limit) == (512, 99)
    assert (a.readonly, a.squash, a.anonuid, a.anongid) == (True, "root", 7, 8)
    assert (a.permissions, [str(net) for net in a.allow]) == ("server", ["10.0.0.0/8"])
    assert events(await world.hang_up(text)) == []


async def test_what_is_in_use_can_not_be_taken_away(make: Callable[..., Any]) -> None:
    world = await make("[export.a]\nsize = '1m'\nnr-inodes = 9\n")
    mount = world.export("a").mount
    mount.blocks.take(20)
    mount.inodes.take(4)
    text = "[export.a]\nsize = '64k'\nnr-inodes = 4\n"
    for _ in range(2):  # it is tried again with each reload
        logs = await world.hang_up(text)
        assert events(logs) == [("export not changed", "/a")] * 2
        assert [(line["key"], line["why"]) for line in logs[:2]] == [
            ("size", "65536 is less than what is in use"),
            ("nr_inodes", "4 is less than what is in use"),
        ]
    assert (mount.blocks.limit, mount.inodes.limit) == (256, 9)
    mount.blocks.give(20)
    mount.inodes.give(4)
    assert events(await world.hang_up(text)) == [("export changed", "/a")]
    assert (mount.blocks.limit, mount.inodes.limit) == (16, 4)


@pytest.mark.parametrize(
    ("key", "value"), [("ram", "'2m'"), ("mode", "'711'"), ("uid", "5"), ("gid", "6")]
)
async def test_what_an_export_begins_with_stays(
    make: Callable[..., Any], key: str, value: str
) -> None:
    world = await make("[export.a]\n")
    logs = await world.hang_up(f"[export.a]\n{key} = {value}\n")
    assert events(logs) == [("export not changed", "/a")]
    assert (logs[0]["key"], logs[0]["why"]) == (key, "only a new export can have another")


async def test_what_the_host_can_not_give_is_told(make: Callable[..., Any]) -> None:
    world = await make("")
    world.store._shared.ram.take(4000)
    logs = await world.hang_up("[export.a]\nram = '15m'\n")
    assert ("export not added", "/a") in events(logs)
    assert "RAM" in logs[0]["why"]
    world.store._shared.ram.give(4000)


async def test_new_exports_of_the_control_socket_have_the_new_defaults(
    make: Callable[..., Any],
) -> None:
    world = await make("")
    await world.hang_up("mode = '700'\nnr-inodes = 77\n")
    assert (world.reload.config.mode, world.reload.config.nr_inodes) == (0o700, 77)


async def test_the_level_of_the_log_changes(
    make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    world = await make("log-level = 'error'\n")
    log = structlog.get_logger()
    log.debug("unseen")
    await world.hang_up("log-level = 'debug'\n")
    log.debug("seen")
    assert '"seen"' in capsys.readouterr().err
    await world.hang_up("log-level = 'error'\n")
    log.warning("unseen")
    assert not capsys.readouterr().err


async def test_what_only_a_restart_changes_is_named(make: Callable[..., Any]) -> None:
    world = await make("")
    logs = await world.hang_up("msize = '64k'\nmax-fids = 9\nlisten = ['unix:///t9']\n")
    assert events(logs) == [("only a restart changes these", "")]
    assert sorted(logs[0]["keys"]) == ["listen", "max-fids", "msize"]
    assert world.reload.config.msize == MIB


@pytest.mark.parametrize("text", ["size = 'much'", "[export.b", "nonsense = 1"])
async def test_a_configuration_that_is_no_good_changes_nothing(
    make: Callable[..., Any], text: str
) -> None:
    world = await make("[export.a]\n")
    (line,) = await world.hang_up(f"[export.b]\n{text}\n")
    assert (line["event"], line["level"]) == (
        "configuration not reloaded, the old one stays",
        "error",
    )
    assert "t9.toml" in line["why"]
    assert world.names() == ["", "a"]
    assert world.status.startswith("exports served: 2; configuration not reloaded: ")


async def test_a_failure_that_nobody_thought_of_is_survived(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make("")
    monkeypatch.setattr(world.store, "add", None)
    (line,) = [it for it in await world.hang_up("[export.a]\n") if "exception" in it]
    assert line["event"] == "reloading failed unexpectedly"
    monkeypatch.undo()
    assert events(await world.hang_up("[export.a]\n")) == [("export added", "/a")]


# Certificates


def tls(authority: Authority, user: str) -> str:
    cert, key = authority.issue("server", "127.0.0.1")
    return (
        f"listen = 'tls://127.0.0.1:0'\ntls-cert = '{cert}'\ntls-key = '{key}'\n"
        f"tls-ca = '{authority.ca}'\ntls-user = {{ '{user}' = 5 }}\n"
    )


async def test_certificates_and_their_users_change(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    world = await make(tls(authority, "ann"))
    before = world.server.certificates
    assert events(await world.hang_up(tls(authority, "bob"))) == [("certificates reloaded", "")]
    assert world.server.certificates is not before
    certificate = {"subject": ((("commonName", "bob"),),)}
    assert world.server.certificates.user_of(certificate) == ("bob", 5)


async def test_certificates_that_are_no_good_change_nothing(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    world = await make(tls(authority, "ann"))
    before = world.server.certificates
    text = tls(authority, "ann")
    (tmp_path / "server.pem").write_text("half a certif")
    (line,) = await world.hang_up(text + "[export.a]\n")
    assert line["event"] == "configuration not reloaded, the old one stays"
    assert line["why"].startswith("--tls-cert: ")
    assert world.server.certificates is before
    assert world.names() == [""]
