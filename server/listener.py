"""Server: listening sockets, the connections they accept, and their orderly end."""

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from .certificates import Certificates
from .config import Address, Network, Tcp, Tls, Unix
from .connection import Buffers, Connection, Replies
from .fids import Client
from .identity import Peer, address_of, certified, peer_of
from .limits import Limits
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


#: What serves a client that has come in: its socket, who it is, and under what it is counted.
Welcome = Callable[[socket.socket, Peer, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Door:
    """A listening socket, and what serves the clients that come in there.

    Attributes:
        secure: they have to prove who they are; so they may be anywhere, unless --allow is given.
    """

    sock: socket.socket
    welcome: Welcome
    secure: bool = False


class Server:
    """Serves exports on any number of addresses.

    Args:
        store: what is served.
        msize: the largest message offered, in bytes.
        limits: what clients may hold.
        allow: the networks whose clients may connect; those of this machine always may.
        certificates: for TLS.

    Attributes:
        certificates: those for the connections to come.
    """

    def __init__(
        self,
        store: Store,
        msize: int,
        limits: Limits,
        allow: Collection[Network] = (),
        certificates: Certificates | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._store = store
        self._msize = msize
        self._limits = limits
        self._allow = allow
        self.certificates = certificates
        self._refusals = Refusals()
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
        self._watch = Watch(self._connections, loop.call_later)
        #: Who is about to say who he is by TLS, and all who speak it.
        self._greeting: set[asyncio.Task[None]] = set()
        self._relays: set[asyncio.Task[None]] = set()
        #: The clients there are, those that are not yet or no longer served too.
        self._per_peer: Counter[str] = Counter()
        self._empty = asyncio.Event()

    def listen(self, address: Address) -> Address:
        """Accept clients at ``address`` from now on; the address with the port it really has.

        Raises:
            ListenError: it can not be bound, or anybody could come in there.
        """
        try:
            sock = _bound_tcp(address) if isinstance(address, Tcp) else self._bound_unix(address)
        except OSError as error:
            raise ListenError(f"{address}: {error.strerror or error}") from None
        except ValueError as error:  # a name that can be no host's, a path with a NUL
            raise ListenError(f"{address}: {error}") from None
        if isinstance(address, Tls):
            self._open(Door(sock, self._greet, secure=True), address)
        else:
            self._open(Door(sock, self._welcome), address)
        if isinstance(address, Tcp):
            return type(address)(address.host, sock.getsockname()[1])
        return address

    def adopt(self, sock: socket.socket) -> Address:
        """Accept clients at a socket that listens already; its address.

        Raises:
            ListenError: anybody could come in there.
        """
        sock.setblocking(False)
        name = sock.getsockname()
        unix = sock.family == socket.AF_UNIX
        address = Unix(os.fsdecode(name).replace("\0", "@")) if unix else Tcp(*name[:2])
        self._open(Door(sock, self._welcome), address)
        return address

    def _open(self, door: Door, address: Address) -> None:
        """Accept clients there from now on.

        Raises:
            ListenError: anybody could come in.
        """
        if not self._allow and not door.secure and _is_exposed(door.sock):
            door.sock.close()
            raise ListenError(
                f"{address}: others than this machine could connect; say who may: add --allow CIDR"
            )
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
        for connection in list(self._connections):
            connection.finish()
        if self._per_peer:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._empty.wait()
        for connection in list(self._connections):
            connection.close("server stops")
        relays = list(self._relays)
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        await self._store.close()

    def _bound_unix(self, address: Unix) -> socket.socket:
        """Every user may connect, for the kernel tells who he is."""
        self._unix.append(UnixSocket(address.path, mode=0o666))
        return self._unix[-1].sock

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
        who = f"uid {peer.uid}" if peer.address is None else str(peer.address)
        refusal = self._refusal(peer, who, door.secure)
        if refusal is not None:
            self._refusals.log(peer.name, refusal)
            sock.close()
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._empty.clear()
        self._per_peer[who] += 1
        door.welcome(sock, peer, who)

    def _welcome(self, sock: socket.socket, peer: Peer, who: str) -> None:
        """Serve a client that speaks 9P right away."""
        self._serve(sock, peer, partial(self._gone, who))

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
            self._refusals.log(peer.name, why_not(error))
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
        asyncio.get_running_loop().call_later(LINGER, task.cancel)

    def _relayed(self, who: str, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        """A client that speaks TLS is gone."""
        sock.close()
        self._greeting.discard(task)
        self._relays.discard(task)
        self._leave(who)

    def _refusal(self, peer: Peer, who: str, secure: bool) -> str | None:
        """Why one more connection of this peer is not taken, if it is not."""
        address = peer.address
        anybody = address is None or (secure and not self._allow)
        if not anybody and not any(address in network for network in self._allow):
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
        return Session(
            client, self._msize, spawn, store.provide_now, store.provide, ready, self._requests
        )

    def _gone(self, who: str, connection: Connection) -> None:
        self._connections.discard(connection)
        self._leave(who)

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
        self._more = 0
        self._quiet_until = 0.0

    def log(self, peer: str, why: str) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._more += 1
            return
        log.warning("client refused", peer=peer, why=why, more_since_the_last=self._more)
        self._more = 0
        self._quiet_until = now + REFUSALS_PAUSE


def _is_exposed(sock: socket.socket) -> bool:
    """Whether a listening socket can be reached from other machines."""
    if sock.family == socket.AF_UNIX:
        return False
    return not address_of(sock.getsockname()).is_loopback


def _bound_tcp(address: Tcp) -> socket.socket:
    family, kind, protocol, _, name = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
