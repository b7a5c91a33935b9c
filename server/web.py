"""Web: metrics and health by HTTP, for who watches the server.

======== =============================================
/metrics what Prometheus reads
/healthz 200: the event loop answers
/readyz  200: clients are served; 503: the server stops
======== =============================================

Rules of this file:

* It serves a few programs that ask now and then, and may not take time from clients: a connection
  is for one request and lasts ``PATIENCE`` seconds at the most, there are at most ``CONNECTIONS``
  of them, and one is taken every ``PACE`` seconds.
* Who may connect is as for clients: this machine, and who is in ``--allow``.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from typing import Final

import structlog
from aiohttp import web

from .address import Tcp, Unix
from .identity import peer_of
from .listener import bound_tcp, require_private, told_of
from .metrics import Metrics
from .network import Cid, Network, is_among
from .unixsocket import UnixSocket

log = structlog.get_logger()

#: What the library would log: that clients did not speak HTTP.
_SILENT = logging.getLogger("server.web.silent")
_SILENT.disabled = True

#: Seconds that a connection may last.
PATIENCE: Final = 10.0
#: Connections at a time; one more is closed.
CONNECTIONS: Final = 32
#: Seconds from one connection to the next.
PACE: Final = 0.05
#: Seconds until accepting is tried again when the process is out of descriptors or memory.
ACCEPT_PAUSE: Final = 1.0


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Web:
    """Answers at ``address`` until it is closed.

    Args:
        allow: the networks that may connect besides this machine.
        metrics: what is told.
        ready: whether clients are served.

    Attributes:
        address: where, with the port that it really has.

    Raises:
        ListenError: it can not be bound, or anybody could come in there.
    """

    def __init__(
        self,
        address: Tcp | Unix,
        allow: Collection[Network],
        metrics: Metrics,
        ready: Callable[[], bool],
    ) -> None:
        self._allow = tuple(it for it in allow if not isinstance(it, Cid))
        self._metrics = metrics
        self._ready = ready
        self._unix: UnixSocket | None = None
        with told_of(address):
            if isinstance(address, Tcp):
                self._sock = bound_tcp(address)
            else:
                self._unix = UnixSocket(address.path, mode=0o666)
                self._sock = self._unix.sock
        if not self._allow:
            require_private(self._sock, address)
        self.address: Tcp | Unix = address
        if isinstance(address, Tcp):
            self.address = Tcp(address.host, self._sock.getsockname()[1])
        app = web.Application(middlewares=[_careful])
        app.router.add_get("/metrics", self._tell_metrics)
        app.router.add_get("/healthz", self._tell_health)
        app.router.add_get("/readyz", self._tell_readiness)
        self._runner = web.AppRunner(app, access_log=None, logger=_SILENT)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def give(self, uid: int, gid: int) -> None:
        """Have the socket belong to this user and group, if it is a unix socket.

        Raises:
            OSError: as chown(2).
        """
        if self._unix is not None:
            self._unix.give(uid, gid)

    async def close(self) -> None:
        """Answer no more."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        if self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await self._runner.cleanup()
        if self._unix is not None:
            self._unix.close()
        else:
            self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
                with ExitStack() as doubtful:
                    doubtful.callback(sock.close)
                    if len(server.connections) < CONNECTIONS and self._may_ask(sock):
                        transport, _ = await loop.connect_accepted_socket(server, sock)
                        loop.call_later(PATIENCE, transport.abort)
                        doubtful.pop_all()
            except OSError as error:
                log.error("metrics: accept failed", why=error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
            await asyncio.sleep(PACE)

    def _may_ask(self, sock: socket.socket) -> bool:
        """Whether who has connected is on this machine, or in a network that may connect."""
        address = peer_of(sock).address
        return address is None or is_among(address, self._allow)

    async def _tell_metrics(self, request: web.Request) -> web.Response:
        body, media_type = self._metrics.text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def _tell_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _tell_readiness(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(text="stopping\n", status=503)


@web.middleware
async def _careful(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A response is the last of its connection; what nobody foresaw is logged."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.force_close()
        raise
    except Exception as error:
        log.error("metrics: a request failed unexpectedly", exc_info=error)
        response = web.Response(text="the server failed; its log tells why\n", status=500)
    response.force_close()
    return response
