"""Server: listening sockets, the connections they accept, and their orderly end."""

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

import structlog

from .config import Address, Network, Tcp, Unix
from .connection import Buffers, Connection, Replies
from .fids import Client
from .identity import Peer, address_of, peer_of
from .limits import Limits
from .room import Room
from .session import Session
from .spin import Spin
from .store import Store
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


class Server:
    """Serves exports on any number of addresses.

    Args:
        store: what is served.
        msize: the largest message offered, in bytes.
        limits: what clients may hold.
        allow: the networks whose clients may connect; those of this machine always may.
    """

    def __init__(
        self, store: Store, msize: int, limits: Limits, allow: Collection[Network] = ()
    ) -> None:
        loop = asyncio.get_running_loop()
        self._store = store
        self._msize = msize
        self._limits = limits
        self._allow = allow
        self._refusals = Refusals()
        self._state = Room(limits.state_bytes, loop.call_soon)
        self._requests = Room(limits.request_bytes, loop.call_soon)
        self._buffers = Buffers(self._requests)
        self._replies = Replies(limits.reply_bytes)
        self._spin = Spin(loop.call_soon)
        self._listening: list[socket.socket] = []
        self._unix: list[UnixSocket] = []
        #: By listening socket, who was accepted when nothing was left to ask who he is.
        self._strangers: dict[socket.socket, socket.socket] = {}
        self._connections: set[Connection] = set()
        self._watch = Watch(self._connections, loop.call_later)
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
        if not self._allow and _is_exposed(sock):
            sock.close()
            raise ListenError(
                f"{address}: others than this machine could connect; say who may: add --allow CIDR"
            )
        self._listening.append(sock)
        self._resume_accepting(sock)
        if isinstance(address, Tcp):
            return Tcp(address.host, sock.getsockname()[1])
        return address

    async def stop(self) -> None:
        """Accept nobody any more, answer what has come in, and end all connections.

        Locks that are waited for are not.  All that takes at most ``GRACE`` seconds.
        """
        for sock in self._listening:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        for sock in self._strangers.values():
            sock.close()
        self._listening.clear()
        self._strangers.clear()
        for unix in self._unix:
            unix.close()
        await asyncio.sleep(0)  # requests that will wait begin to
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._empty.wait()
        for connection in list(self._connections):
            connection.close("server stops")
        await self._store.close()

    def _bound_unix(self, address: Unix) -> socket.socket:
        """Every user may connect, for the kernel tells who he is."""
        self._unix.append(UnixSocket(address.path, mode=0o666))
        return self._unix[-1].sock

    def _resume_accepting(self, sock: socket.socket) -> None:
        if sock in self._listening:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)
        if sock in self._strangers:
            self._accept(sock)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock = self._strangers.pop(listening, None)
        try:
            if sock is None:
                sock, _ = listening.accept()
            peer = peer_of(sock)
        except (OSError, MemoryError) as error:
            code = error.errno if isinstance(error, OSError) else errno.ENOMEM
            if code == errno.ENOTCONN and sock is not None:  # it has gone since
                sock.close()
                return
            if sock is not None:
                self._strangers[listening] = sock
            elif code in {errno.EAGAIN, errno.ECONNABORTED}:
                return
            log.error("accept failed", why=os.strerror(code or 0), again_in_s=ACCEPT_PAUSE)
            loop.remove_reader(listening)
            loop.call_later(ACCEPT_PAUSE, self._resume_accepting, listening)
            return
        who = f"uid {peer.uid}" if peer.address is None else str(peer.address)
        why_not = self._why_not(peer, who)
        if why_not is not None:
            self._refusals.log(peer.name, why_not)
            sock.close()
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._empty.clear()
        make_session = partial(self._make_session, peer)
        self._per_peer[who] += 1
        self._connections.add(
            Connection(
                sock,
                peer.name,
                self._limits,
                self._buffers,
                self._replies,
                self._spin,
                self._watch,
                make_session,
                partial(self._gone, who),
            )
        )

    def _why_not(self, peer: Peer, who: str) -> str | None:
        """Why one more connection of this peer is not taken, if it is not."""
        if peer.address is not None and not any(peer.address in net for net in self._allow):
            return "not in --allow"
        if len(self._connections) >= self._limits.max_connections:
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
        self._per_peer[who] -= 1
        if not self._per_peer[who]:
            del self._per_peer[who]
        if not self._connections:
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
