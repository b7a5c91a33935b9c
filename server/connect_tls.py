"""connect_tls: the way of ``tmpfs9p connect`` through TLS."""

import asyncio
import socket
import ssl

import uvloop

from .certificates import context_of
from .stdio import Bridge
from .tls import Stream, why_not


def context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """What a client shows and believes, from files in PEM.

    Raises:
        ConfigError: a file can not be read, or is not what it must be.
    """
    return context_of(ssl.PROTOCOL_TLS_CLIENT, "", cert, key, ca)


def bridge(sock: socket.socket, context: ssl.SSLContext, server_name: str, patience: float) -> None:
    """Bridge to the server at the other end of ``sock``, if it is the one that is wanted.

    Args:
        patience: seconds in which it must prove who it is.

    Raises:
        ConnectionError: it is not, or it has not let this client in, or the connection broke.
    """
    try:
        uvloop.run(_bridge(sock, context, server_name, patience))
    except (OSError, ValueError) as error:  # the latter: a name that can be no server's
        raise ConnectionError(why_not(error)) from None


async def _bridge(
    sock: socket.socket, context: ssl.SSLContext, server_name: str, patience: float
) -> None:
    sock.setblocking(False)
    stream = Stream(sock, context, server_name)
    async with asyncio.timeout(patience):
        await stream.shake_hands()
    near, far = socket.socketpair()
    far.setblocking(False)
    relaying = asyncio.create_task(stream.relay(far))
    relaying.add_done_callback(lambda _: far.close())
    bridging = asyncio.to_thread(Bridge(near).run)
    relayed, bridged = await asyncio.gather(relaying, bridging, return_exceptions=True)
    if isinstance(relayed, BaseException):
        raise relayed
    if stream.cut:
        raise ConnectionResetError("the connection was cut")
    if isinstance(bridged, BaseException):
        raise bridged
