"""tls: clients with certificates, and others, at a listener that wants them."""

import asyncio
import errno
import os
import pwd
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server import listener
from server.address import Tcp, Tls
from server.certificates import Certificates
from server.identity import Peer as Identity
from server.limits import Limits
from server.listener import ListenError, Server
from server.tls import CHUNK, why_not
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.paging import pattern
from tmpfs_core.mount import Mount

from .certificates import Authority
from .peer import GUARD, ROOT, SocketPeer, raises_errno, store_of

DAEMON = pwd.getpwnam("daemon").pw_uid
STATFS = m.Tstatfs(ROOT)
MSIZE = 1 << 20
USERS = {"root@here": 0, "daemon": DAEMON, "bob": 6}

MakeServer = Callable[..., tuple[Server, Tls]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificates(authority: Authority) -> Certificates:
    return Certificates(*authority.issue("server", "127.0.0.1"), authority.ca, USERS)


@pytest.fixture
async def make(mount: Mount, certificates: Certificates) -> AsyncIterator[MakeServer]:
    """Makes servers, with these limits and these networks allowed; and where they listen."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    servers: list[Server] = []

    def make(allow: Any = (), host: str = "127.0.0.1", **limits: int) -> tuple[Server, Tls]:
        server = Server(store_of(mount), MSIZE, Limits(**limits), allow, certificates)
        servers.append(server)
        bound = server.listen(Tls(host, 0))
        assert isinstance(bound, Tls)
        assert bound.port
        return server, Tls("127.0.0.1", bound.port)

    yield make
    for server in servers:
        await server.stop()
        assert not server._per_peer
    assert not failures
    assert not mount.orphans


async def until(true: Callable[[], object]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(GUARD):
        while not true():  # noqa: ASYNC110 nothing tells when
            await asyncio.sleep(0)


async def connect(address: Tls, context: ssl.SSLContext) -> SocketPeer:
    """A client that has shaken hands as far as it can tell."""
    async with asyncio.timeout(GUARD):
        streams = await asyncio.open_connection(address.host, address.port, ssl=context)
    return SocketPeer(*streams)


async def begun(address: Tls, context: ssl.SSLContext, uid: int = 0) -> SocketPeer:
    peer = await connect(address, context)
    await peer.call(m.Tversion(MSIZE, c.VERSION), c.NOTAG)
    await peer.call(m.Tattach(ROOT, c.NOFID, b"", b"", uid))
    return peer


async def refusal(address: Tls, context: ssl.SSLContext) -> str:
    """Why the server says it does not let this client in."""
    with capture_logs() as logs:
        try:
            peer = await connect(address, context)
            peer.send(m.Tversion(MSIZE, c.VERSION), c.NOTAG)
            await peer.reader.read()
            peer.writer.close()
            await peer.writer.wait_closed()
        except (ssl.SSLError, ConnectionError):
            pass
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert line["event"] == "client refused"
    assert not [line for line in logs if line["event"] == "client connected"]
    return str(line["why"])


# Who he is


async def test_who_has_a_certificate_of_root_is_trusted(
    make: MakeServer, authority: Authority
) -> None:
    _, address = make()
    peer = await begun(address, authority.client("root@here"))
    for fid, uid in enumerate((DAEMON, 5), start=1):
        await peer.call(m.Tattach(fid, c.NOFID, b"", b"", uid))
    await peer.close()


async def test_any_other_acts_as_himself_and_his_permissions_are_checked(
    make: MakeServer, authority: Authority
) -> None:
    _, address = make()
    admin = await begun(address, authority.client("root@here"))
    await admin.call(m.Tmkdir(ROOT, b"private", 0o700, 0))
    peer = await begun(address, authority.client(common="daemon"), DAEMON)
    for uid in (0, DAEMON + 1):
        with raises_errno(errno.EPERM):
            await peer.call(m.Tattach(5, c.NOFID, b"", b"", uid))
    private = 7
    await peer.call(m.Twalk(ROOT, private, [b"private"]))
    with raises_errno(errno.EACCES):
        await peer.call(m.Twalk(private, private + 1, [b"file"]))
    file = await peer.create(b"file")
    assert (await peer.call(m.Tgetattr(file, c.GETATTR_ALL))).uid == DAEMON
    for one in (admin, peer):
        await one.close()


async def test_the_log_names_the_certificate(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    with capture_logs() as logs:
        await (await begun(address, authority.client("daemon"), DAEMON)).close()
    assert str(logs[0]["peer"]).startswith("127.0.0.1:")
    assert str(logs[0]["peer"]).endswith(" daemon")


async def test_a_certificate_of_nobody_is_refused(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    why = await refusal(address, authority.client("carol"))
    assert why == "no --tls-user has a name of its certificate: ['carol']"


async def test_a_certificate_of_several_is_refused(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    why = await refusal(address, authority.client("bob", "root@here"))
    assert why == "the names of its certificate are of several users: ['bob', 'root@here']"


async def test_who_shows_no_certificate_is_refused(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    context = ssl.create_default_context(cafile=authority.ca)
    assert await refusal(address, context) == "peer did not return a certificate"


async def test_who_is_certified_by_another_authority_is_refused(
    make: MakeServer, authority: Authority, tmp_path: Path
) -> None:
    _, address = make()
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*other.issue("client", "root@here"))
    assert await refusal(address, context) == "unable to get local issuer certificate"


async def test_who_does_not_trust_the_server_has_that_logged(
    make: MakeServer, tmp_path: Path
) -> None:
    _, address = make()
    (tmp_path / "other").mkdir()
    with capture_logs() as logs:
        with pytest.raises(ssl.SSLCertVerificationError):
            await raw(address, Authority(tmp_path / "other").client("root@here"))
        await until(lambda: logs)
    assert [line["why"] for line in logs] == ["tlsv1 alert unknown ca"]


async def test_tls_1_2_is_refused(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    context = authority.client("root@here")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await refusal(address, context) == "unsupported protocol"


@pytest.mark.parametrize(
    "data", [m.Tversion(MSIZE, c.VERSION).frame(c.NOTAG), b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)]
)
async def test_garbage_instead_of_a_handshake_is_refused(make: MakeServer, data: bytes) -> None:
    server, address = make()
    peer = await SocketPeer.connect(address)
    with capture_logs() as logs:
        peer.feed(data)
        await until(lambda: logs)
        alert = await peer.reader.read()  # until the server has ended
        await peer.close()
    assert alert[:1] in {b"", b"\x15"}  # an alert, RFC 8446 B.1
    assert [line["event"] for line in logs] == ["client refused"]
    assert not server._connections


async def test_a_handshake_that_does_not_end_is_ended(make: MakeServer) -> None:
    _, address = make(version_timeout=0)
    peer = await SocketPeer.connect(address)
    with capture_logs() as logs:
        assert await peer.is_dropped()
    assert [line["why"] for line in logs] == ["took too long to shake hands"]
    await peer.close()


async def test_who_goes_away_while_shaking_hands_is_refused(make: MakeServer) -> None:
    server, address = make()
    with capture_logs() as logs:
        peer = await SocketPeer.connect(address)
        await peer.close()
        await until(lambda: logs and not server._per_peer)
    assert [line["why"] for line in logs] == [os.strerror(errno.ECONNRESET)]


async def test_who_can_not_be_served_for_want_of_descriptors_is_refused(
    make: MakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def socketpair() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    _, address = make()
    monkeypatch.setattr(socket, "socketpair", socketpair)
    assert await refusal(address, authority.client("root@here")) == os.strerror(errno.EMFILE)


# Where he is


async def test_it_takes_no_networks_to_listen_beyond_this_machine(make: MakeServer) -> None:
    server, _ = make(host="0.0.0.0")
    with pytest.raises(ListenError, match="add --allow"):
        server.listen(Tcp("0.0.0.0", 0))


@pytest.mark.parametrize(
    ("allow", "is_let_in"), [("", True), ("192.0.2.0/24", True), ("198.51.100.0/24", False)]
)
async def test_networks_count_where_they_are_given(
    make: MakeServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    allow: str,
    is_let_in: bool,
) -> None:
    _, address = make([ip_network(allow)] if allow else [])
    remote = Identity("192.0.2.7:700", None, True, ip_address("192.0.2.7"))
    monkeypatch.setattr(listener, "peer_of", lambda _: remote)
    context = authority.client("daemon")
    if is_let_in:
        peer = await begun(address, context, DAEMON)
        with raises_errno(errno.EPERM):
            await peer.call(m.Tattach(5, c.NOFID, b"", b"", 0))
        await peer.close()
    else:
        assert await refusal(address, context) == "not in --allow"


async def test_who_has_not_shaken_hands_counts_as_a_client(
    make: MakeServer, authority: Authority
) -> None:
    server, address = make(max_connections=2)
    strangers = [await SocketPeer.connect(address) for _ in range(2)]
    await until(lambda: server._per_peer.total() == 2)
    assert await refusal(address, authority.client("root@here")) == "more than --max-connections"
    for stranger in strangers:
        await stranger.close()
    await until(lambda: not server._per_peer)
    await (await begun(address, authority.client("root@here"))).close()


# What is carried


async def test_large_messages_go_both_ways(make: MakeServer, authority: Authority) -> None:
    _, address = make()
    peer = await begun(address, authority.client("root@here"))
    size = MSIZE - c.IOHDRSZ
    file = await peer.create(b"file")
    for place in range(8):
        written = await peer.call(m.Twrite(file, place * size, pattern(place, size)))
        assert written.count == size
    for place in range(8):
        peer.send(m.Tread(file, place * size, size), place)
    for place in range(8):
        tag, reply = await peer.reply()
        assert (tag, reply) == (place, m.Rread(pattern(place, size)))
    await peer.close()


async def test_a_client_that_does_not_read_is_not_read_from_and_others_go_on(
    make: MakeServer, authority: Authority
) -> None:
    server, address = make()
    context = authority.client("root@here")
    slow, other = await begun(address, context), await begun(address, context)
    size = MSIZE - c.IOHDRSZ
    file = await slow.create(b"file", pattern(1, size))
    slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
    for tag in range(30):
        slow.send(m.Tread(file, 0, size), tag)
    while not any(one._unsent for one in server._connections):
        await other.call(STATFS)
    for _ in range(100):
        await other.call(STATFS)
    (stuck,) = (one for one in server._connections if one._unsent)
    assert not stuck._reading
    assert stuck._unsent_size < 3 * MSIZE  # a turn's replies
    slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
    for expected in range(30):
        tag, reply = await slow.reply()
        assert (tag, reply) == (expected, m.Rread(pattern(1, size)))
    for peer in (slow, other):
        await peer.close()


class Raw:
    """A client that ciphers by itself, and so can end its half of the connection."""

    def __init__(self, peer: SocketPeer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def run(self, step: Callable[[], Any]) -> Any:
        """Do something for which more may have to come first."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                result = None
            finally:
                self.peer.feed(self._outgoing.read())
            if result is not None:
                return result
            async with asyncio.timeout(GUARD):
                data = await self.peer.reader.read(CHUNK)
            if not data:
                raise ConnectionError("ended without a word")
            self._incoming.write(data)

    def shake_hands(self) -> bool:
        self.tls.do_handshake()
        return True

    def end(self) -> None:
        """Send close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.peer.feed(self._outgoing.read())


async def raw(address: Tls, context: ssl.SSLContext) -> Raw:
    """A client that has shaken hands."""
    client = Raw(await SocketPeer.connect(address), context)
    try:
        await client.run(client.shake_hands)
    except ssl.SSLError:
        await client.peer.close()
        raise
    return client


async def test_who_has_ended_his_half_gets_the_answers_and_the_end(
    make: MakeServer, authority: Authority
) -> None:
    server, address = make()
    client = await raw(address, authority.client("root@here"))
    request = m.Tversion(MSIZE, c.VERSION).frame(c.NOTAG)
    await client.run(lambda: client.tls.write(request))
    client.end()
    reply = await client.run(lambda: client.tls.read(CHUNK))
    assert reply == m.Rversion(MSIZE, c.VERSION).frame(c.NOTAG)
    with pytest.raises(ssl.SSLZeroReturnError):  # a close_notify
        await client.run(lambda: client.tls.read(CHUNK))
    assert await client.peer.reader.read() == b""
    await client.peer.close()
    await until(lambda: not server._per_peer)


async def test_what_is_broken_on_its_way_ends_the_connection(
    make: MakeServer, authority: Authority
) -> None:
    server, address = make()
    client = await raw(address, authority.client("root@here"))
    with capture_logs() as logs:
        client.peer.feed(bytes([23, 3, 3, 0, 32]) + bytes(32))
        await until(lambda: not server._per_peer)
    (failed,) = (line for line in logs if line["event"] == "tls failed")
    assert failed["why"] == "decryption failed or bad record mac"
    await client.peer.close()


async def test_after_a_protocol_error_the_client_sees_an_orderly_end(
    make: MakeServer, authority: Authority
) -> None:
    _, address = make()
    client = await raw(address, authority.client("root@here"))
    await client.run(lambda: client.tls.write(b"\1\0\0\0nonsense"))
    assert await client.run(lambda: client.tls.read(CHUNK) or "the end") == "the end"
    await client.peer.close()


async def test_who_takes_no_answers_after_the_end_is_left(
    make: MakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LINGER", 0.0)
    server, address = make()
    client = await raw(address, authority.client("root@here"))
    await client.run(lambda: client.tls.write(b"\1\0\0\0nonsense"))
    await until(lambda: not server._per_peer)  # although the client keeps its end
    await client.peer.close()


# The end


async def test_stopping_answers_what_has_come_in(make: MakeServer, authority: Authority) -> None:
    server, address = make()
    peer = await begun(address, authority.client("root@here"))
    size = MSIZE - c.IOHDRSZ
    file = await peer.create(b"file", pattern(1, size))
    for tag in range(5):
        peer.send(m.Tread(file, 0, size), tag)
    await until(lambda: any(one._unsent for one in server._connections))
    stopping = asyncio.create_task(server.stop())
    for expected in range(5):
        tag, reply = await peer.reply()
        assert (tag, reply) == (expected, m.Rread(pattern(1, size)))
    assert await peer.is_dropped()
    await peer.close()
    async with asyncio.timeout(GUARD):
        await stopping


async def test_stopping_does_not_wait_for_handshakes(
    make: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = make()
    peer = await SocketPeer.connect(address)
    await until(lambda: server._greeting)
    await server.stop()
    assert await peer.is_dropped()
    await peer.close()


# New certificates


def serial(peer: SocketPeer) -> object:
    return peer.writer.get_extra_info("peercert")["serialNumber"]


async def test_new_certificates_are_for_new_connections(
    make: MakeServer, authority: Authority
) -> None:
    server, address = make()
    context = authority.client("root@here")
    before = await begun(address, context)
    server.certificates = Certificates(*authority.issue("server", "127.0.0.1"), authority.ca, USERS)
    after = await begun(address, context)
    assert serial(before) != serial(after)
    for peer in (before, after):
        await peer.call(STATFS)
        await peer.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "MemoryError"),
        (ValueError("what can not be read"), "what can not be read"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    ],
)
def test_what_is_wrong_is_told_in_words(error: Exception, words: str) -> None:
    assert why_not(error) == words
