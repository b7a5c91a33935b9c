"""listener: addresses, accepting, and the orderly end."""

import asyncio
import contextlib
import errno
import os
import pwd
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server import listener
from server.address import Tcp, Unix
from server.handover import ABLE, ASKED
from server.identity import Peer as Identity
from server.limits import Limits
from server.listener import ListenError, Server
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.support import put
from tmpfs_core import vnops
from tmpfs_core.access import ROOT as SUPERUSER
from tmpfs_core.mount import Mount

from .peer import ROOT, SocketPeer, raises_errno, store_of

ANY_PORT = Tcp("127.0.0.1", 0)
DAEMON = pwd.getpwnam("daemon").pw_uid
STATFS = m.Tstatfs(ROOT)


@pytest.fixture
async def server(mount: Mount) -> AsyncIterator[Server]:
    """A server that listens nowhere yet."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    server = Server(store_of(mount), 1 << 20, Limits())
    yield server
    await server.stop()
    assert not failures
    assert not mount.orphans


async def is_served(address: Tcp | Unix) -> bool:
    peer = await (await SocketPeer.connect(address)).begin()
    await peer.close()
    return True


# Addresses


async def test_port_0_becomes_a_port_that_is_free(server: Server) -> None:
    bound = server.listen(ANY_PORT)
    assert isinstance(bound, Tcp)
    assert bound.host == "127.0.0.1"
    assert bound.port != 0
    assert await is_served(bound)


async def test_a_host_may_be_a_name(server: Server) -> None:
    bound = server.listen(Tcp("localhost", 0))
    assert isinstance(bound, Tcp)
    assert bound.host == "localhost"
    assert await is_served(bound)


async def test_a_host_may_be_an_ipv6_address(server: Server) -> None:
    try:
        bound = server.listen(Tcp("::1", 0))
    except ListenError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with capture_logs() as logs:
        assert await is_served(bound)
    assert logs[0]["peer"].startswith("[::1]:")


async def test_a_unix_socket(server: Server, tmp_path: Path) -> None:
    address = Unix(str(tmp_path / "t9.sock"))
    assert server.listen(address) == address
    assert await is_served(address)


async def test_a_socket_that_listens_already_may_be_served(server: Server) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    bound = server.listen_at(sock)
    assert bound == Tcp(*sock.getsockname())
    assert await is_served(bound)


async def test_a_socket_with_an_abstract_name_may_be_served(server: Server) -> None:
    name = f"tmpfs9p-test-{os.getpid()}"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0{name}")
    sock.listen()
    assert server.listen_at(sock) == Unix(f"@{name}")
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"\0{name}")
    peer = await SocketPeer(*await asyncio.open_unix_connection(sock=client)).begin()
    await peer.close()


async def test_several_addresses_serve_one_file_system(server: Server, tmp_path: Path) -> None:
    unix, tcp = Unix(str(tmp_path / "t9.sock")), server.listen(ANY_PORT)
    server.listen(unix)
    one = await (await SocketPeer.connect(unix)).begin()
    other = await (await SocketPeer.connect(tcp)).begin()
    await one.create(b"file", b"data")
    assert (await other.call(m.Tread(await other.open(b"file"), 0, 10))).data == b"data"
    for peer in (one, other):
        await peer.close()


async def test_clients_are_logged_with_their_address(server: Server, tmp_path: Path) -> None:
    unix, tcp = Unix(str(tmp_path / "t9.sock")), server.listen(ANY_PORT)
    server.listen(unix)
    with capture_logs() as logs:
        peers = [await (await SocketPeer.connect(address)).begin() for address in (unix, tcp)]
    host, port = peers[1].writer.get_extra_info("sockname")
    assert [line["peer"] for line in logs] == ["unix", f"{host}:{port}"]
    for peer in peers:
        await peer.close()


async def test_the_server_offers_its_msize(server: Server) -> None:
    peer = await SocketPeer.connect(server.listen(ANY_PORT))
    version = await peer.call(m.Tversion(0xFFFFFFFF, c.VERSION), c.NOTAG)
    assert version.msize == 1 << 20
    await peer.close()


async def test_small_replies_are_not_held_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nagle's algorithm is off: else a reply could wait for an acknowledgement."""
    seen: list[tuple[object, ...]] = []
    real = socket.socket.setsockopt

    def setsockopt(sock: socket.socket, *args: int) -> None:
        seen.append((sock.getsockname(), *args))
        real(sock, *args)

    bound = server.listen(ANY_PORT)
    assert isinstance(bound, Tcp)
    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    assert await is_served(bound)
    assert ((bound.host, bound.port), socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in seen


async def connect_and_wait(address: Tcp | Unix) -> None:
    peer = await SocketPeer.connect(address)
    for _ in range(20):
        await asyncio.sleep(0)
    await peer.close()


# Who may connect

ALLOWED = ip_network("192.0.2.0/24")  # of nobody (RFC 5737)


def remote(host: str) -> Identity:
    return Identity(f"{host}:700", None, True, ip_address(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
async def test_an_address_beyond_this_machine_is_refused_unless_it_is_said_for_whom(
    server: Server, mount: Mount, host: str
) -> None:
    with pytest.raises(ListenError, match=r"others than this machine.*add --allow CIDR"):
        server.listen(Tcp(host, 0))
    other = Server(store_of(mount), 8192, Limits(), [ALLOWED])
    assert other.listen(Tcp(host, 0))
    await other.stop()


async def test_it_is_the_address_that_counts_and_not_its_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("0.0.0.0", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    with pytest.raises(ListenError, match=r"tcp://localhost:0: .*add --allow CIDR"):
        server.listen(Tcp("localhost", 0))


async def test_the_clients_of_this_machine_may_always_connect(mount: Mount) -> None:
    server = Server(store_of(mount), 8192, Limits(), [ALLOWED])
    bound = server.listen(Tcp("0.0.0.0", 0))
    assert isinstance(bound, Tcp)
    assert await is_served(Tcp("127.0.0.1", bound.port))
    await server.stop()


async def test_clients_from_elsewhere_are_dropped_and_logged_once(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(store_of(mount), 8192, Limits(), [ALLOWED])
    bound = server.listen(ANY_PORT)
    monkeypatch.setattr(listener, "peer_of", lambda _: remote("192.0.2.7"))
    assert await is_served(bound)
    monkeypatch.setattr(listener, "peer_of", lambda _: remote("198.51.100.9"))
    with capture_logs() as logs:
        for _ in range(3):
            peer = await SocketPeer.connect(bound)
            assert await peer.is_dropped()
            await peer.close()
    assert logs == [
        {
            "event": "client refused",
            "log_level": "warning",
            "peer": "198.51.100.9:700",
            "why": "not in --allow",
            "more_since_the_last": 0,
        }
    ]
    await server.stop()


def test_refusals_are_counted_while_they_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, now = listener.Refusals(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with capture_logs() as logs:
        for _ in range(4):
            refusals.log("peer", "why")
        now += listener.REFUSALS_PAUSE
        refusals.log("peer", "why")
    assert [line["more_since_the_last"] for line in logs] == [0, 3]


#: Becomes the user, connects, and hands the connected socket to who started it.
AS_USER = """
import os, socket, sys
uid, family, address = sys.argv[1:]
with socket.socket(fileno=0) as starter:
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
    sock = socket.socket(int(family))
    sock.connect(eval(address))
    socket.send_fds(starter, [b"x"], [sock.fileno()])
"""


async def peer_of_user(address: Tcp | Unix, uid: int) -> SocketPeer:
    """A peer whose socket a process of this user has made."""
    unix = isinstance(address, Unix)
    family = int(socket.AF_UNIX if unix else socket.AF_INET)
    name = address.path if isinstance(address, Unix) else (address.host, address.port)
    ours, its = socket.socketpair()
    with ours, its:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", AS_USER, str(uid), str(family), repr(name)),
            stdin=its.fileno(),
        )
        assert await process.wait() == 0
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return SocketPeer(*await asyncio.open_connection(sock=socket.socket(fileno=fds[0])))


@pytest.fixture(params=["unix", "tcp"])
async def confined(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[SocketPeer]:
    """A peer of another user of this machine, whose version is agreed on."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        unix = Unix(f"{folder}/t9.sock")
        peer = await peer_of_user(
            server.listen(unix if request.param == "unix" else ANY_PORT), DAEMON
        )
        await peer.call(m.Tversion(8192, c.VERSION), c.NOTAG)
        yield peer
        await peer.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_only_who_is_trusted_may_hand_pipes_over(server: Server) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        address = server.listen(Unix(f"{folder}/t9.sock"))
        for uid, answer in ((0, ABLE), (DAEMON, m.Rlerror(errno.EPROTO).frame(c.NOTAG))):
            peer = await peer_of_user(address, uid)
            peer.feed(ASKED)
            assert await peer.reader.readexactly(len(answer)) == answer
            await peer.close()


async def test_every_user_may_connect_and_attaches_as_himself(confined: SocketPeer) -> None:
    for uid in (0, DAEMON + 1):
        with raises_errno(errno.EPERM):
            await confined.call(m.Tattach(ROOT, c.NOFID, b"", b"", uid))
    for name in (b"root", b"nobody"):
        with raises_errno(errno.EPERM):
            await confined.call(m.Tattach(ROOT, c.NOFID, name, b"", c.NONUNAME))
    await confined.call(m.Tattach(ROOT, c.NOFID, b"", b"", DAEMON))


async def test_a_user_has_his_own_files_and_those_of_his_groups_and_no_others(
    confined: SocketPeer, mount: Mount
) -> None:
    mount.root.mode = stat.S_IFDIR | 0o1777
    group = pwd.getpwuid(DAEMON).pw_gid
    for name, mode, gid in ((b"secret", 0o600, group), (b"shared", 0o640, group)):
        file = vnops.create(mount.root, name, mode, SUPERUSER, gid).node
        put(file, b"data")
    await confined.call(m.Tattach(ROOT, c.NOFID, b"", b"", DAEMON))
    for name, flags in ((b"secret", c.O_RDONLY), (b"secret", c.O_RDWR), (b"shared", c.O_RDWR)):
        with raises_errno(errno.EACCES):
            await confined.open(name, flags)
    for name in (b"secret", b"shared"):
        with raises_errno(errno.EPERM):
            await confined.call(m.Tunlinkat(ROOT, name, 0))
    shared = await confined.open(b"shared", c.O_RDONLY)
    assert (await confined.call(m.Tread(shared, 0, 10))).data == b"data"
    own = await confined.create(b"own", b"mine")
    assert (await confined.call(m.Tread(own, 0, 10))).data == b"mine"
    attributes = await confined.call(m.Tgetattr(own, c.GETATTR_BASIC))
    assert (attributes.uid, attributes.gid) == (DAEMON, group)
    with raises_errno(errno.EPERM):
        await confined.call(m.Tsetattr(own, c.SETATTR_UID, 0, 0, 0, 0, 0, 0, 0, 0))
    await confined.call(m.Tunlinkat(ROOT, b"own", 0))


# Addresses that can not be


async def test_a_port_in_use_is_refused_by_name(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"tcp://127.0.0.1:{port}: Address already in use"):
            server.listen(Tcp("127.0.0.1", port))


async def test_a_host_that_nobody_knows_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ListenError, match="tcp://nowhere:1: Name or service not known"):
        server.listen(Tcp("nowhere", 1))


@pytest.mark.parametrize("host", ["a..b", "x" * 64], ids=["empty label", "long label"])
async def test_a_host_that_is_no_name_is_refused(server: Server, host: str) -> None:
    with pytest.raises(ListenError, match=host):
        server.listen(Tcp(host, 1))


async def test_an_address_of_another_machine_is_refused(server: Server) -> None:
    with pytest.raises(ListenError, match="Cannot assign requested address"):
        server.listen(Tcp("192.0.2.1", 0))


async def test_a_path_that_is_too_long_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="path too long"):
        server.listen(Unix(str(tmp_path / ("x" * 200))))


async def test_a_path_with_a_nul_is_refused(server: Server) -> None:
    with pytest.raises(ListenError):
        server.listen(Unix("/tmp/a\0b"))


async def test_a_folder_that_is_missing_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        server.listen(Unix(str(tmp_path / "missing" / "t9.sock")))


async def test_a_socket_that_nobody_serves_any_more_is_replaced(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "t9.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.is_socket()
    server.listen(Unix(str(path)))
    assert await is_served(Unix(str(path)))


async def test_a_socket_that_another_server_has_is_left_alone(
    server: Server, mount: Mount, tmp_path: Path
) -> None:
    address = Unix(str(tmp_path / "t9.sock"))
    server.listen(address)
    with pytest.raises(ListenError, match="another server listens there"):
        Server(store_of(mount), 8192, Limits()).listen(address)
    assert await is_served(address)


async def test_a_server_too_busy_to_accept_is_a_server_all_the_same(
    server: Server, tmp_path: Path
) -> None:
    path = str(tmp_path / "t9.sock")
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:  # until its queue is full
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        socket.setdefaulttimeout(0.2)  # rather than wait for ever
        stack.callback(socket.setdefaulttimeout, None)
        with pytest.raises(ListenError, match="another server listens there"):
            server.listen(Unix(path))


async def test_a_file_that_is_no_socket_is_left_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        server.listen(Unix(str(path)))
    assert path.read_text() == "precious"


# Accepting


class Accept:
    """A double of accept(2) that fails with these errnos first; 0: MemoryError."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.calls = 0
        self.called = asyncio.Event()
        self._real = socket.socket.accept

    def __call__(self, sock: socket.socket) -> tuple[socket.socket, object]:
        self.calls += 1
        self.called.set()
        if self.codes:
            code = self.codes.pop(0)
            if not code:
                raise MemoryError
            raise OSError(code, os.strerror(code))
        return self._real(sock)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def accept(sock: socket.socket) -> tuple[socket.socket, object]:
            return self(sock)

        monkeypatch.setattr(socket.socket, "accept", accept)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, 0])
async def test_accepting_pauses_when_the_process_is_out_of_something(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    accept = Accept(code, code)
    accept.install(monkeypatch)
    monkeypatch.setattr(listener, "ACCEPT_PAUSE", 0.001)
    bound = server.listen(ANY_PORT)
    with capture_logs() as logs:
        assert await is_served(bound)
    lines = [line for line in logs if line["event"] == "accept failed"]
    assert [line["why"] for line in lines] == [os.strerror(code or errno.ENOMEM)] * 2


async def test_while_accepting_pauses_nobody_is_accepted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Accept(errno.EMFILE)
    accept.install(monkeypatch)
    bound = server.listen(ANY_PORT)
    with capture_logs() as logs:
        await connect_and_wait(bound)
        await connect_and_wait(bound)
    assert accept.calls == 1
    assert [line["event"] for line in logs] == ["accept failed"]


async def test_the_clients_there_are_are_served_while_accepting_pauses(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = server.listen(ANY_PORT)
    peer = await (await SocketPeer.connect(bound)).begin()
    Accept(errno.EMFILE).install(monkeypatch)
    await connect_and_wait(bound)
    await peer.call(STATFS)
    await peer.close()


async def test_a_pause_may_end_after_the_server_has_stopped(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Accept(errno.EMFILE)
    accept.install(monkeypatch)
    bound = server.listen(ANY_PORT)
    (door,) = server._doors
    peer = await SocketPeer.connect(bound)
    await accept.called.wait()
    await server.stop()
    server._resume_accepting(door)  # what the loop does at the end of the pause
    assert accept.calls == 1
    assert await peer.is_dropped()
    await peer.close()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ECONNABORTED])
async def test_a_client_that_went_before_it_was_accepted_is_nothing_to_tell(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    bound = server.listen(ANY_PORT)
    Accept(code).install(monkeypatch)
    with capture_logs() as logs:
        assert await is_served(bound)
    assert {line["log_level"] for line in logs} == {"info"}


async def test_a_client_that_went_when_it_was_accepted_is_nothing_to_tell(server: Server) -> None:
    bound = server.listen(ANY_PORT)
    assert isinstance(bound, Tcp)
    with socket.create_connection((bound.host, bound.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with capture_logs() as logs:
        assert await is_served(bound)
    assert [line["event"] for line in logs] == ["client connected", "client gone"]


async def refused(address: Tcp | Unix) -> bool:
    """Whether a client is turned away."""
    peer = await SocketPeer.connect(address)
    dropped = await peer.is_dropped()
    await peer.close()
    return dropped


@pytest.mark.parametrize("key", ["max_connections", "max_connections_per_peer"])
async def test_one_connection_too_many_is_closed_and_that_is_logged_once(
    mount: Mount, key: str
) -> None:
    server = Server(store_of(mount), 8192, Limits(**{key: 2}))
    bound = server.listen(ANY_PORT)
    peers = [await (await SocketPeer.connect(bound)).begin() for _ in range(2)]
    with capture_logs() as logs:
        for _ in range(5):
            assert await refused(bound)
        assert [line["why"] for line in logs] == [f"more than --{key.replace('_', '-')}"]
        await peers[0].call(STATFS)
        await peers.pop().close()
        while len(server._connections) > 1:
            await peers[0].call(STATFS)
        assert await is_served(bound)
    await server.stop()
    for peer in peers:
        await peer.close()


# A client that is there already


async def test_a_client_that_is_there_is_served_until_it_has_gone(server: Server) -> None:
    near, far = socket.socketpair()
    ended = asyncio.Event()
    server.adopt(near, ended.set)
    peer = await SocketPeer(*await asyncio.open_unix_connection(sock=far)).begin()
    assert not ended.is_set()
    await peer.close()
    await ended.wait()


async def test_one_that_may_not_come_in_has_gone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = socket.socketpair()
    ended = asyncio.Event()
    monkeypatch.setattr(listener, "peer_of", lambda _: remote("192.0.2.7"))
    with far, capture_logs() as logs:
        server.adopt(near, ended.set)
        assert far.recv(1) == b""
    assert ended.is_set()
    assert [line["why"] for line in logs] == ["not in --allow"]


async def test_one_that_has_gone_before_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: socket.socket) -> Identity:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(listener, "peer_of", gone)
    near, far = socket.socketpair()
    with near, far, pytest.raises(ListenError, match="stdio: Transport endpoint is not connected"):
        server.adopt(near, lambda: None)


# Stopping


async def test_stopping_ends_every_connection(server: Server) -> None:
    bound = server.listen(ANY_PORT)
    peers = [await (await SocketPeer.connect(bound)).begin() for _ in range(5)]
    await server.stop()
    for peer in peers:
        assert await peer.is_dropped()
        await peer.close()


async def test_stopping_closes_the_addresses(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    tcp, _ = server.listen(ANY_PORT), server.listen(Unix(str(path)))
    await server.stop()
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await SocketPeer.connect(tcp)


async def test_stopping_bears_that_its_socket_was_removed(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    server.listen(Unix(str(path)))
    path.unlink()
    await server.stop()
    assert not path.exists()


async def test_the_port_of_a_server_that_has_stopped_is_free_at_once(
    server: Server, mount: Mount
) -> None:
    before = Server(store_of(mount), 8192, Limits())
    bound = before.listen(ANY_PORT)
    peer = await (await SocketPeer.connect(bound)).begin()
    await before.stop()  # its end of the connection lingers in the kernel
    assert await peer.is_dropped()
    await peer.close()
    assert server.listen(bound) == bound
    assert await is_served(bound)


async def test_stopping_leaves_the_socket_of_a_server_that_came_after(
    server: Server, mount: Mount, tmp_path: Path
) -> None:
    path = tmp_path / "t9.sock"
    before = Server(store_of(mount), 8192, Limits())
    before.listen(Unix(str(path)))
    path.unlink()
    server.listen(Unix(str(path)))
    await before.stop()
    assert await is_served(Unix(str(path)))


async def test_stopping_twice_is_stopping_once(server: Server) -> None:
    server.listen(ANY_PORT)
    await server.stop()
    await server.stop()


async def ask_for_much(server: Server, path: Path) -> SocketPeer:
    """A peer for which 4 MB are under way that it does not read."""
    server.listen(Unix(str(path)))
    peer = await (await SocketPeer.connect(Unix(str(path)))).begin()
    file = await peer.create(b"file", b"x" * 900_000)
    for tag in range(5):
        peer.send(m.Tread(file, 0, 900_000), tag)
    for _ in range(20):
        await asyncio.sleep(0)
    return peer


async def test_stopping_waits_for_replies_under_way(server: Server, tmp_path: Path) -> None:
    peer = await ask_for_much(server, tmp_path / "t9.sock")
    stopping = asyncio.create_task(server.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stopping.done()
    for expected in range(5):
        tag, reply = await peer.reply()
        assert (tag, len(m.Rread.frame(reply, 0))) == (expected, 900_000 + 11)
    assert await peer.is_dropped()
    assert not stopping.done()
    await peer.close()
    await stopping


async def test_stopping_does_not_wait_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "GRACE", 0.0)
    peer = await ask_for_much(server, tmp_path / "t9.sock")
    await server.stop()
    assert await peer.last_replies() == []  # not even the first came whole
    await peer.close()


async def test_stopping_drops_requests_that_wait(server: Server) -> None:
    bound = server.listen(ANY_PORT)
    holder = await (await SocketPeer.connect(bound)).begin()
    waiter = await (await SocketPeer.connect(bound)).begin()
    exclusive = c.LOCK_TYPE_WRLCK
    await holder.call(m.Tlock(await holder.create(b"file"), exclusive, 0, 0, 0, 1, b"a"))
    fid = await waiter.open(b"file")
    waiter.send(m.Tlock(fid, exclusive, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"b"), 5)
    await waiter.call(STATFS)
    await server.stop()
    for peer in (holder, waiter):
        assert await peer.is_dropped()
        await peer.close()
