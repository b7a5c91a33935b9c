"""Server: listening sockets, the connections they accept, and their orderly end."""

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from .address import Address, Listened, Stdio, Tcp, Tls, Unix, VhostUser, Vsock
from .certificates import Certificates
from .connection import Buffers, Connection, Replies
from .fids import Client
from .guest import Guest
from .identity import Peer, address_of, certified, peer_of, vouched_for
from .limits import Limits
from .meter import Meter
from .network import Cid, Network, is_among
from .room import Room
from .session import Session
from .spin import Spin
from .store import Store
from .tls import LINGER, Stream, why_not
from .unixsocket import BACKLOG, UnixSocket
from .watch import Watch

log = structlog.get_logger()

#: Seconds until accepting is tried again when the process is out of descriptors or memory.
ACCEPT_PAUSE = 0.5
#: Seconds that a blocking lock request waits before the client is told to ask again.
LOCK_WAIT = 60.0
#: Seconds in which clients that are not let in are counted rather than logged.
REFUSALS_PAUSE = 10.0
#: Seconds that stopping waits for requests that have come in to be answered, and the answers taken.
GRACE = 5.0


class ListenError(Exception):
    """An address that can not be listened on; says which and why."""


Where = TypeVar("Where", bound=Listened)

#: What serves a client that has come in: its socket, who it is, and under what it is counted.
Welcome = Callable[[socket.socket, Peer, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Door:
    """A listening socket, and what serves the clients that come in there.

    Attributes:
        allow: the networks whose clients may connect; those of this machine always may.
        secure: they have to prove who they are; so they may be anywhere, unless ``allow`` says.
    """

    sock: socket.socket
    welcome: Welcome
    allow: tuple[Network, ...] = ()
    secure: bool = False


@dataclass(slots=True)
class Past:
    """Clients that have gone, and the bytes that were received from and sent to them."""

    clients: int = 0
    received: int = 0
    sent: int = 0

    def add(self, client: Connection | Guest) -> None:
        self.clients += 1
        self.received += client.received
        self.sent += client.sent


class Server:
    """Serves exports on any number of addresses.

    Args:
        store: what is served.
        msize: the largest message offered, in bytes.
        limits: what clients may hold.
        allow: the networks whose clients may connect; those of this machine always may.
        certificates: for TLS.
        meter: counts requests, if somebody wants to know.

    Attributes:
        certificates: those for the connections to come.
        past: who was served.
        refusals: who was not let in.
    """

    def __init__(
        self,
        store: Store,
        msize: int,
        limits: Limits,
        allow: Collection[Network] = (),
        certificates: Certificates | None = None,
        meter: Meter | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._store = store
        self._msize = msize
        self._limits = limits
        self._networks = tuple(it for it in allow if not isinstance(it, Cid))
        self._cids = tuple(it for it in allow if isinstance(it, Cid))
        self.certificates = certificates
        self._meter = meter
        self.past = Past()
        self.refusals = Refusals()
        self._state = Room(limits.state_bytes, loop.call_soon)
        self._requests = Room(limits.request_bytes, loop.call_soon)
        self._buffers = Buffers(self._requests)
        self._replies = Replies(limits.reply_bytes)
        self._spin = Spin(loop.call_soon)
        self._doors: list[Door] = []
        self._unix: list[UnixSocket] = []
        #: Who was accepted when nothing was left to ask who he is.
        self._strangers: dict[Door, socket.socket] = {}
        self._connections: set[Connection] = set()
        self._guests: set[Guest] = set()
        self._watch = Watch(self._connections, loop.call_later)
        #: Who is about to say who he is by TLS, and all who speak it.
        self._greeting: set[asyncio.Task[None]] = set()
        self._relays: set[asyncio.Task[None]] = set()
        #: The clients there are, those that are not yet or no longer served too.
        self._per_peer: Counter[str] = Counter()
        self._empty = asyncio.Event()

    def listen(self, address: Where) -> Where:
        """Accept clients at ``address`` from now on; the address with the port it really has.

        Raises:
            ListenError: it can not be bound, or anybody could come in there.
        """
        with told_of(address):
            door = self._door(address)
        self._open(door, address)
        if isinstance(address, Tcp):
            return replace(address, port=door.sock.getsockname()[1])
        return address

    def listen_at(self, sock: socket.socket) -> Address:
        """Accept clients at a socket that listens already; its address.

        Raises:
            ListenError: anybody could come in there.
        """
        sock.setblocking(False)
        name = sock.getsockname()
        address: Address
        match sock.family:
            case socket.AF_UNIX:
                address = Unix(os.fsdecode(name).replace("\0", "@"))
                door = Door(sock, self._welcome)
            case socket.AF_VSOCK:
                address = Vsock(*name)
                door = Door(sock, self._welcome, self._cids)
            case _:
                address = Tcp(*name[:2])
                door = Door(sock, self._welcome, self._networks)
        self._open(door, address)
        return address

    def _open(self, door: Door, address: Listened) -> None:
        """Accept clients there from now on.

        Raises:
            ListenError: anybody could come in.
        """
        if not door.allow and not door.secure:
            require_private(door.sock, address)
        self._doors.append(door)
        self._resume_accepting(door)

    def give(self, uid: int, gid: int) -> None:
        """Have the unix sockets belong to this user and group.

        Raises:
            OSError: as chown(2).
        """
        for unix in self._unix:
            unix.give(uid, gid)

    async def stop(self) -> None:
        """Accept nobody any more, answer what has come in, and end all connections.

        Locks that are waited for are not.  All that takes at most ``GRACE`` seconds.
        """
        for door in self._doors:
            asyncio.get_running_loop().remove_reader(door.sock)
            door.sock.close()
        for sock in self._strangers.values():
            sock.close()
        self._doors.clear()
        self._strangers.clear()
        for unix in self._unix:
            unix.close()
        for task in self._greeting:
            task.cancel()
        await asyncio.sleep(0)  # requests that will wait begin to
        for client in self.clients:
            client.finish()
        if self._per_peer:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._empty.wait()
        for client in self.clients:
            client.close("server stops")
        relays = list(self._relays)
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        await self._store.close()

    def _door(self, address: Listened) -> Door:
        """What is listened at, and who serves there.

        Raises:
            OSError, ValueError: it can not be bound.
        """
        match address:
            case Tls():
                return Door(bound_tcp(address), self._greet, self._networks, secure=True)
            case Tcp():
                return Door(bound_tcp(address), self._welcome, self._networks)
            case Vsock():
                sock = _bound(socket.AF_VSOCK, (address.cid, address.port))
                return Door(sock, self._welcome, self._cids)
            case Unix():  # every user may connect, for the kernel tells who he is
                return Door(self._bound_unix(UnixSocket(address.path, mode=0o666)), self._welcome)
            case VhostUser():
                unix = UnixSocket(address.path, mode=0o600, owner=address.user)
                return Door(self._bound_unix(unix), partial(self._plug_in, address))

    def _bound_unix(self, unix: UnixSocket) -> socket.socket:
        self._unix.append(unix)
        return unix.sock

    def _resume_accepting(self, door: Door) -> None:
        if door in self._doors:
            asyncio.get_running_loop().add_reader(door.sock, self._accept, door)
        if door in self._strangers:
            self._accept(door)

    def _accept(self, door: Door) -> None:
        sock = self._strangers.pop(door, None)
        try:
            if sock is None:
                sock, _ = door.sock.accept()
            peer = peer_of(sock)
        except (OSError, MemoryError) as error:
            code = error.errno if isinstance(error, OSError) else errno.ENOMEM
            if code == errno.ENOTCONN and sock is not None:  # it has gone since
                sock.close()
                return
            if sock is not None:
                self._strangers[door] = sock
            elif code in {errno.EAGAIN, errno.ECONNABORTED}:
                return
            log.error("accept failed", why=os.strerror(code or 0), again_in_s=ACCEPT_PAUSE)
            loop = asyncio.get_running_loop()
            loop.remove_reader(door.sock)
            loop.call_later(ACCEPT_PAUSE, self._resume_accepting, door)
            return
        self._let_in(sock, peer, door)

    def adopt(self, sock: socket.socket, ended: Callable[[], None]) -> None:
        """Serve a client whose connection is there already; ``ended`` is called when it has gone.

        Raises:
            ListenError: it has gone before.
        """
        try:
            peer = peer_of(sock)
        except OSError as error:
            raise ListenError(f"{Stdio()} {error.strerror}") from None

        def welcome(sock: socket.socket, peer: Peer, who: str) -> None:
            def gone(connection: Connection) -> None:
                self._gone(who, connection)
                ended()

            self._serve(sock, peer, gone)

        if not self._let_in(sock, peer, Door(sock, welcome, self._networks)):
            ended()

    def _let_in(self, sock: socket.socket, peer: Peer, door: Door) -> bool:
        """Serve a client, if it may come in; whether it may."""
        who = f"uid {peer.uid}" if peer.address is None else str(peer.address)
        refusal = self._refusal(peer, who, door)
        if refusal is not None:
            self.refusals.log(peer.name, refusal)
            sock.close()
            return False
        sock.setblocking(False)
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._empty.clear()
        self._per_peer[who] += 1
        door.welcome(sock, peer, who)
        return True

    def _welcome(self, sock: socket.socket, peer: Peer, who: str) -> None:
        """Serve a client that speaks 9P right away."""
        self._serve(sock, peer, partial(self._gone, who))

    def _plug_in(self, device: VhostUser, sock: socket.socket, peer: Peer, who: str) -> None:
        """Serve the guest of a VMM.  Who may connect may do all that its guest's kernel does."""
        peer = vouched_for(peer, f"{device.tag} {who}")
        self._guests.add(
            Guest(
                sock,
                peer.name,
                device.tag,
                self._buffers,
                self._spin,
                partial(self._make_session, peer),
                partial(self._unplugged, who),
            )
        )

    def _greet(self, sock: socket.socket, peer: Peer, who: str) -> None:
        """Serve a client that has to say first who it is, by TLS."""
        task = asyncio.get_running_loop().create_task(self._serve_secure(sock, peer))
        self._greeting.add(task)
        self._relays.add(task)
        task.add_done_callback(partial(self._relayed, who, sock))

    def _serve(self, sock: socket.socket, peer: Peer, gone: Callable[[Connection], None]) -> None:
        """Serve a client; ``gone`` is called when its connection has ended."""
        self._connections.add(
            Connection(
                sock,
                peer.name,
                peer.trusted and sock.family == socket.AF_UNIX,
                self._limits,
                self._buffers,
                self._replies,
                self._spin,
                self._watch,
                partial(self._make_session, peer),
                gone,
            )
        )

    async def _serve_secure(self, sock: socket.socket, peer: Peer) -> None:
        """Find out who speaks TLS on this socket, and if he may, serve him until the end."""
        certificates = self.certificates
        assert certificates is not None
        task = asyncio.current_task()
        assert task is not None
        stream = Stream(sock, certificates.context)
        try:
            async with asyncio.timeout(self._limits.version_timeout):
                name, uid = certificates.user_of(await stream.shake_hands())
            near, far = socket.socketpair()
        except (OSError, ValueError, MemoryError) as error:
            self.refusals.log(peer.name, why_not(error))
            with suppress(OSError):
                async with asyncio.timeout(LINGER):
                    await stream.dismiss()
            return
        self._greeting.discard(task)
        near.setblocking(False)
        far.setblocking(False)
        peer = certified(peer, name, uid)
        self._serve(near, peer, partial(self._served, task))
        with far:
            try:
                await stream.relay(far)
            except (OSError, MemoryError) as error:
                log.info("tls failed", peer=peer.name, why=why_not(error))

    def _served(self, task: "asyncio.Task[None]", connection: Connection) -> None:
        """A client that speaks TLS has all that it gets; it may take some time to take that."""
        self._connections.discard(connection)
        self.past.add(connection)
        asyncio.get_running_loop().call_later(LINGER, task.cancel)

    def _relayed(self, who: str, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        """A client that speaks TLS is gone."""
        sock.close()
        self._greeting.discard(task)
        self._relays.discard(task)
        self._leave(who)

    def _refusal(self, peer: Peer, who: str, door: Door) -> str | None:
        """Why one more connection of this peer is not taken, if it is not."""
        anybody = door.secure and not door.allow
        if not anybody and peer.address is not None and not is_among(peer.address, door.allow):
            return "not in --allow"
        if self._per_peer.total() >= self._limits.max_connections:
            return "more than --max-connections"
        if self._per_peer[who] >= self._limits.max_connections_per_peer:
            return "more than --max-connections-per-peer"
        return None

    def _make_session(self, peer: Peer, ready: Callable[[], None]) -> Session:
        store = self._store
        client = Client(store.exports, peer, LOCK_WAIT, self._limits, self._state)
        spawn = asyncio.get_running_loop().create_task
        provide_now, provide = store.provide_now, store.provide
        return Session(
            client, self._msize, spawn, provide_now, provide, ready, self._requests, self._meter
        )

    def _gone(self, who: str, connection: Connection) -> None:
        self._connections.discard(connection)
        self.past.add(connection)
        self._leave(who)

    def _unplugged(self, who: str, guest: Guest) -> None:
        self._guests.discard(guest)
        self.past.add(guest)
        self._leave(who)

    @property
    def clients(self) -> list[Connection | Guest]:
        """All that are served."""
        return [*self._connections, *self._guests]

    def _leave(self, who: str) -> None:
        """A client of this peer is gone."""
        self._per_peer[who] -= 1
        if not self._per_peer[who]:
            del self._per_peer[who]
        if not self._per_peer:
            self._empty.set()


class Refusals:
    """The log of clients that are not let in: a line for the first, and then for many at a time."""

    def __init__(self) -> None:
        self.count = 0
        self._more = 0
        self._quiet_until = 0.0

    def log(self, peer: str, why: str) -> None:
        self.count += 1
        now = time.monotonic()
        if now < self._quiet_until:
            self._more += 1
            return
        log.warning("client refused", peer=peer, why=why, more_since_the_last=self._more)
        self._more = 0
        self._quiet_until = now + REFUSALS_PAUSE


@contextmanager
def told_of(address: Listened) -> Iterator[None]:
    """Why an address can not be bound is a ListenError."""
    try:
        yield
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror or error}") from None
    except ValueError as error:  # a name that can be no host's, a path with a NUL
        raise ListenError(f"{address}: {error}") from None


def require_private(sock: socket.socket, address: Listened) -> None:
    """Close a listening socket that can be reached from other machines.

    Raises:
        ListenError: it was one.
    """
    if sock.family == socket.AF_UNIX:
        return
    vsock = sock.family == socket.AF_VSOCK
    if vsock or not address_of(sock.getsockname()).is_loopback:
        sock.close()
        who = "cid:N" if vsock else "CIDR"
        raise ListenError(
            f"{address}: others than this machine could connect; say who may: add --allow {who}"
        )


def bound_tcp(address: Tcp) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        OSError, UnicodeError: it can not be bound.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return _bound(found[0][0], found[0][4])


def _bound(family: int, name: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
