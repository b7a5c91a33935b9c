"""Tls: a stream that is ciphered on one socket, and plain on another.

Who serves a client, or is one, has one end of a socketpair and sees only what was deciphered; the
relay has the other.  So what serves plain sockets serves TLS as it is.

Rules of this file:

* What has come is deciphered whole before anything is awaited.  So at most ``CHUNK`` bytes are held
  in each direction, however slow who takes them is; and ``unwrap``, which fails if data waits to be
  read, can be called at any time.
* Each direction ends for itself: the end of the plain stream becomes a close_notify (RFC 8446 6.1),
  and a close_notify the end of the plain stream.  A connection that ends without is ``cut``.
* Only one sends at a time, for what is sent must keep its order.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Bytes received at once, from either side.
CHUNK = 65536
#: Seconds that a peer has to take what is left for it, when the other side is gone.
LINGER = 5.0


class Stream:
    """One end of a TLS connection.

    Args:
        sock: connected and non-blocking; it is closed by whoever made it.
        context: has it that the other end must show a certificate.
        server_name: for a client, the name that the server must have.

    Attributes:
        cut: the other end is gone without having said so.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None = None
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_name is None, server_name
        )
        self._sending = asyncio.Lock()
        self._ended = False
        self.cut = False

    async def shake_hands(self) -> Mapping[str, Any]:
        """Agree on keys; the certificate of the other end, as ``SSLObject.getpeercert`` has it.

        Raises:
            OSError: it has shown none that is valid, or speaks no TLS (ssl.SSLError), or is gone.
            ValueError: the certificate can not be read.
        """
        while True:
            try:
                self._object.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._loop.sock_recv(self._sock, CHUNK)
                if not data:
                    why = os.strerror(errno.ECONNRESET)
                    raise ConnectionResetError(errno.ECONNRESET, why) from None
                self._incoming.write(data)
            except ssl.SSLError:
                await self._flush()  # an alert that says why
                raise
        await self._flush()
        return self._object.getpeercert() or {}

    async def relay(self, plain: socket.socket) -> None:
        """Carry what comes to ``plain``, and what comes from there away, until both have ended.

        Raises:
            OSError: the connection failed, or what came is no TLS.
        """
        create = self._loop.create_task
        tasks = create(self._inward(plain)), create(self._outward(plain))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def dismiss(self) -> None:
        """End it, and wait until the other end has seen that and is gone.

        Raises:
            OSError: the connection failed.
        """
        await self._close()
        while await self._loop.sock_recv(self._sock, CHUNK):
            pass

    async def _inward(self, plain: socket.socket) -> None:
        """From the other end to ``plain``; nowhere, if nobody is there any more."""
        wanted = True
        while True:
            data = self._deciphered()
            if self._outgoing.pending:  # an answer of TLS itself
                await self._flush()
            if data and wanted:
                try:
                    await self._loop.sock_sendall(plain, data)
                except ConnectionError:
                    wanted = False
            if self._ended:
                break
            data = await self._loop.sock_recv(self._sock, CHUNK)
            if not data:
                self.cut = True
                break
            self._incoming.write(data)
        with suppress(OSError):
            plain.shutdown(socket.SHUT_WR)

    async def _outward(self, plain: socket.socket) -> None:
        """From ``plain`` to the other end."""
        with suppress(ConnectionError):  # who was there may have left something unread
            while data := await self._loop.sock_recv(plain, CHUNK):
                self._object.write(data)
                await self._flush()
        await self._close()

    async def _close(self) -> None:
        """Say that nothing more will come from here."""
        with suppress(ssl.SSLError):  # the other end has not said so yet
            self._object.unwrap()
        await self._flush()
        with suppress(OSError):  # the other end may be gone
            self._sock.shutdown(socket.SHUT_WR)

    def _deciphered(self) -> bytes:
        """All that has come."""
        parts = []
        try:
            while part := self._object.read(CHUNK):
                parts.append(part)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the end, where this end has said so before
            self._ended = True
        return b"".join(parts)

    async def _flush(self) -> None:
        """Send what is ciphered."""
        async with self._sending:
            await self._loop.sock_sendall(self._sock, self._outgoing.read())


def why_not(error: Exception) -> str:
    """What is wrong with a connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, TimeoutError) and not error.strerror:
        return "took too long to shake hands"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
