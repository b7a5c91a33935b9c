"""listener: virtual machines that come by vsock(7)."""

import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server import listener
from server.address import CID_ANY, Tcp, Unix, Vsock
from server.limits import Limits
from server.listener import ListenError, Server
from server.network import network
from tmpfs_core.mount import Mount

from .peer import store_of
from .test_listener import is_served, refused

MACHINES = Vsock(CID_ANY, 5640)


class VirtualSocket(socket.socket):
    """A double of vsock(7), which few machines have: a unix socket that has the names of one."""

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_VSOCK

    def accept(self) -> tuple[socket.socket, object]:
        return VirtualSocket(fileno=self._accept()[0]), self.getpeername()  # type: ignore[attr-defined]

    def getpeername(self) -> tuple[int, int]:
        return 3, 1023


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Unix:
    """Where a double listens, instead of what is listened on."""

    def bound(family: int, name: tuple[int, int]) -> socket.socket:
        assert (family, name) == (socket.AF_VSOCK, (CID_ANY, 5640))
        sock = VirtualSocket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "double"))
        sock.listen()
        sock.setblocking(False)
        return sock

    monkeypatch.setattr(listener, "_bound", bound)
    return Unix(str(tmp_path / "double"))


@pytest.mark.parametrize("allow", ["cid:3", "cid:any"])
async def test_a_virtual_machine_comes_if_it_is_allowed(
    mount: Mount, virtual: Unix, allow: str
) -> None:
    server = Server(store_of(mount), 8192, Limits(), [network(allow)])
    assert server.listen(MACHINES) == MACHINES
    with capture_logs() as logs:
        assert await is_served(virtual)
    await server.stop()
    assert logs[0]["peer"] == "vsock://3:1023"


async def test_one_that_is_not_allowed_is_turned_away(mount: Mount, virtual: Unix) -> None:
    server = Server(store_of(mount), 8192, Limits(), [network("cid:4"), network("0.0.0.0/0")])
    server.listen(MACHINES)
    with capture_logs() as logs:
        assert await refused(virtual)
    await server.stop()
    assert [(line["peer"], line["why"]) for line in logs] == [("vsock://3:1023", "not in --allow")]


@pytest.mark.usefixtures("virtual")
@pytest.mark.parametrize("allow", [[], ["10.0.0.0/8"]])
async def test_virtual_machines_come_nowhere_unless_it_is_said_which(
    mount: Mount, allow: list[str]
) -> None:
    server = Server(store_of(mount), 8192, Limits(), [network(text) for text in allow])
    with pytest.raises(ListenError, match=r"vsock://any:5640: .*: add --allow cid:N"):
        server.listen(MACHINES)
    await server.stop()


async def test_virtual_machines_that_may_come_let_nobody_else_in(mount: Mount) -> None:
    server = Server(store_of(mount), 8192, Limits(), [network("cid:any")])
    with pytest.raises(ListenError, match="add --allow CIDR"):
        server.listen(Tcp("0.0.0.0", 0))
    await server.stop()
