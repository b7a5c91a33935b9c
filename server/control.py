"""Control: commands to a running server, over a unix socket of its own.

The protocol: a line of JSON from the client, ``{"command": NAME, "arguments": {...}}``, and one
from the server, ``{"result": ...}`` or ``{"errno": NUMBER, "message": TEXT}``; then the next.

Rules of this file:

* Only root and the server's own user may speak (SO_PEERCRED); the socket is for its owner only.
* A line has at most ``LINE_MAX`` bytes, and a peer that sends none, or takes no reply, for
  ``SILENCE`` seconds is left.  A command that has begun is carried out, whoever leaves.
"""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import structlog

from .identity import peer_of
from .unixsocket import UnixSocket
from .usage import ConfigError

log = structlog.get_logger()

#: The longest line, in bytes: replies list all exports.
LINE_MAX = 1 << 20
#: Seconds that the server waits for a client.
SILENCE = 10.0
#: Seconds that a client waits for the server, which may have much to page out or to free.
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        takes: the dataclass of its arguments; each is a ``str`` or a ``bool``.
        run: carries it out; what it returns is the result, as JSON has it.
    """

    takes: type[Any]
    run: Callable[[Any], Awaitable[Any]]


class Refused(Exception):  # noqa: N818 it is what the server has said
    """The server has refused a command.

    Attributes:
        code: the errno.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Control:
    """Listens for commands.

    Args:
        path: where.
        commands: by name.

    Raises:
        OSError: it can not be bound.
    """

    def __init__(self, path: str, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._socket = UnixSocket(path, mode=0o600)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def give(self, uid: int, gid: int) -> None:
        """Have the socket belong to this user and group.

        Raises:
            OSError: as chown(2).
        """
        self._socket.give(uid, gid)

    async def close(self) -> None:
        """Take no more commands, and remove the socket."""
        tasks = {self._accepting, *self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._socket.sock)
            except OSError as error:
                log.error("control: accept failed", why=error.strerror)
                await asyncio.sleep(1)
                continue
            task = loop.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """Answer one client."""
        trusted = peer_of(sock).trusted
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_MAX)
        try:
            if not trusted:
                reply = _refusal(errno.EPERM, "only root and the server's own user may do that")
                await self._send(writer, reply)
                return
            while True:
                async with asyncio.timeout(SILENCE):
                    line = await reader.readline()
                if not line:
                    return
                await self._send(writer, await self._answer(line))
        except ValueError:  # readline has it so
            log.warning("control: a line is too long", most=LINE_MAX)
        except (TimeoutError, ConnectionError) as error:
            log.warning("control: a client is gone", why=type(error).__name__)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, reply: dict[str, Any]) -> None:
        writer.write(json.dumps(reply).encode() + b"\n")
        async with asyncio.timeout(SILENCE):
            await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        """Carry out what a line asks for; the reply."""
        try:
            command, arguments = self._parsed(line)
        except (ValueError, RecursionError) as error:  # the latter if it is nested too deep
            return _refusal(errno.EINVAL, str(error))
        try:
            return {"result": await command.run(arguments)}
        except ConfigError as error:
            return _refusal(errno.EINVAL, str(error))
        except OSError as error:
            return _refusal(error.errno or errno.EIO, error.strerror or str(error))
        except Exception as error:
            log.error("control: a command failed unexpectedly", exc_info=error)
            return _refusal(errno.EIO, "the server failed; its log tells why")

    def _parsed(self, line: bytes) -> tuple[Command, Any]:
        """The command that a line names, and its arguments.

        Raises:
            ValueError: it can not be.
        """
        request = json.loads(line)
        if not isinstance(request, dict) or set(request) != {"command", "arguments"}:
            raise ValueError("not an object of a command and its arguments")
        name, arguments = request["command"], request["arguments"]
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            raise ValueError(f"{name!r}: no such command; there are: {', '.join(self._commands)}")
        wanted = {field.name: field.type for field in fields(command.takes)}
        if not isinstance(arguments, dict) or set(arguments) != set(wanted):
            raise ValueError(f"{name}: not an object of its arguments ({', '.join(wanted)})")
        for key, value in arguments.items():
            if type(value) is not wanted[key]:
                raise ValueError(f"{name}: {key}: {value!r} is not allowed")
        return command, command.takes(**arguments)


def _refusal(code: int, message: str) -> dict[str, Any]:
    return {"errno": code, "message": message}


def ask(
    path: str, command: str, arguments: dict[str, str | bool], patience: float = PATIENCE
) -> Any:
    """Let the server that listens at ``path`` carry out a command; its result.

    Raises:
        Refused: it did not.
        OSError: nobody listens there, or no answer came, or not within ``patience`` seconds.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        sock.connect(path)
        request = {"command": command, "arguments": arguments}
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as replies:
            line = replies.readline(LINE_MAX)
    if not line.endswith(b"\n"):
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    reply = json.loads(line)
    if "errno" in reply:
        raise Refused(reply["errno"], reply["message"])
    return reply["result"]
