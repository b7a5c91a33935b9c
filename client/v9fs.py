"""v9fs: the kernel's own 9P client, and what carries a connection that it can not make itself.

Rules of this file:

* ssh, and TLS, are on the other end of a socket pair, of which the kernel has one (``trans=fd``).
* They end when the kernel closes its end, at umount(8).
"""

import asyncio
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .address import PORT, Address

#: Bytes that are moved at a time.
SIZE = 1 << 18


def is_there() -> bool:
    """Whether it can be used: the user is root, and the kernel has it, or its module."""
    if os.geteuid() != 0:
        return False
    if not _is_known():
        with suppress(FileNotFoundError):  # a container has no modules, nor what loads them
            subprocess.run(["modprobe", "-q", "9p"], check=False)  # noqa: S607
    return _is_known()


def _is_known() -> bool:
    return "\t9p\n" in Path("/proc/filesystems").read_text()


async def resolved(host: str, port: int) -> tuple[str, int]:
    """An address of a host in numbers, for the kernel.

    Raises:
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0]), port


async def mount(
    source: str, directory: str, options: Sequence[str], descriptor: int | None = None
) -> None:
    """Have the kernel mount it, over a descriptor if there is one.

    Raises:
        OSError: it refuses; says what mount(8) says.
    """
    passed = () if descriptor is None else (descriptor,)
    if descriptor is not None:
        options = [*options, "trans=fd", f"rfdno={descriptor}", f"wfdno={descriptor}"]
    command = "mount", "-i", "-t", "9p", "-o", ",".join(options), source, directory
    process = await asyncio.create_subprocess_exec(
        *command, pass_fds=passed, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    if process.returncode:
        raise OSError(told.decode(errors="replace").strip() or "mount(8) failed")


async def mount_carried(
    place: Address,
    tls: ssl.SSLContext | None,
    directory: str,
    options: Sequence[str],
    ready: Callable[[], None],
) -> None:
    """The same for ``ssh://`` and ``tls://``; stays for TLS until it is unmounted.

    Raises:
        OSError: it refuses, or can not be reached.
    """
    if place.scheme == "tls":
        assert tls is not None
        await _mount_by_tls(place, tls, directory, options, ready)
        return
    ours, its = socket.socketpair()
    with ours:
        with its:
            await asyncio.create_subprocess_exec(
                *place.ssh(), stdin=its.fileno(), stdout=its.fileno()
            )
        await mount(place.host, directory, options, ours.fileno())
    ready()


async def _mount_by_tls(
    place: Address,
    tls: ssl.SSLContext,
    directory: str,
    options: Sequence[str],
    ready: Callable[[], None],
) -> None:
    there = await asyncio.open_connection(place.host, place.port or PORT, ssl=tls)
    ours, its = socket.socketpair()
    with its:
        here = await asyncio.open_connection(sock=ours)
        moving = [asyncio.create_task(_move(here[0], there[1])),
                  asyncio.create_task(_move(there[0], here[1]))]  # fmt: skip
        await mount(place.host, directory, options, its.fileno())
    ready()
    await asyncio.wait(moving, return_when=asyncio.FIRST_COMPLETED)


async def _move(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(SIZE):
        target.write(data)
        await target.drain()


def wait_for_end(directory: str) -> None:
    """Wait until nothing is mounted there any more."""
    with open("/proc/self/mounts") as mounts:
        changes = select.poll()
        changes.register(mounts, select.POLLPRI)
        while os.path.ismount(directory):
            changes.poll()
            mounts.seek(0)
            mounts.read()
