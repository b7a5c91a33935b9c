"""Addresses: where a server can be connected to, and where else it can listen."""

import pwd
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl

# linux/vm_sockets.h
CID_ANY = PORT_ANY = 0xFFFFFFFF
CID_HOST = 2

#: A tag of a virtio-9p device: what a guest mounts.
TAG = re.compile(r"[A-Za-z0-9._-]{1,31}")


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address."""

    host: str
    port: int
    scheme: ClassVar[str] = "tcp"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls(Tcp):
    """A TCP address at which TLS is spoken."""

    scheme: ClassVar[str] = "tls"


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class Vsock:
    """A port between a host and its virtual machines (vsock(7)).

    Attributes:
        cid: the number of the machine; to listen, of this one: ``CID_ANY``, whatever it has.
    """

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock://{'any' if self.cid == CID_ANY else self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class Stdio:
    """Standard input and output: one connection, which is there already."""

    def __str__(self) -> str:
        return "stdio:"


@dataclass(frozen=True, slots=True)
class Passed:
    """Sockets that the service manager passes: those of this name, or all if it is empty."""

    name: str

    def __str__(self) -> str:
        return f"fd://{self.name}"


@dataclass(frozen=True, slots=True)
class VhostUser:
    """A unix socket at which the VMM of a virtual machine finds a virtio-9p device.

    Attributes:
        tag: by which the guest mounts it.
        user: number of the user who runs the VMM; None: root, or whom the server runs as.
    """

    path: str
    tag: str
    user: int | None = None

    def __str__(self) -> str:
        user = "" if self.user is None else f"&user={self.user}"
        return f"vhost-user://{self.path}?tag={self.tag}{user}"


#: What a client can connect to.
Address = Tcp | Unix | Vsock
#: What a server can listen at.
Listened = Address | VhostUser

FORMS = "tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or vsock://CID:PORT"

_TCP = re.compile(r"(tcp|tls)://(?:\[([0-9a-fA-F:.]+)\]|([^:/\[\]]+)):(\d{1,5})")
_PASSED = re.compile(r"fd://[!-9;-~]{0,255}")  # no colon: sd_listen_fds(3)
_VSOCK = re.compile(r"vsock://(any|\d{1,10}):(\d{1,10})")


def address(text: str) -> Address:
    """An address, in one of ``FORMS``."""
    if text.startswith("unix:///"):
        return Unix(text.removeprefix("unix://"))
    tcp, vsock = _TCP.fullmatch(text), _VSOCK.fullmatch(text)
    if tcp is not None and int(tcp[4]) <= 65535:
        return (Tls if tcp[1] == "tls" else Tcp)(tcp[2] or tcp[3], int(tcp[4]))
    if vsock is not None and int(vsock[2]) < PORT_ANY and cid(vsock[1]) <= CID_ANY:
        return Vsock(cid(vsock[1]), int(vsock[2]))
    raise ValueError(FORMS)


def cid(text: str) -> int:
    """The number of a machine, or that which stands for any."""
    return CID_ANY if text == "any" else int(text)


def listened(text: str) -> Listened | Passed | Stdio:
    """An address, ``vhost-user:///PATH?tag=TAG``, ``fd://``, ``fd://NAME``, or ``stdio:``."""
    if text == "stdio:":
        return Stdio()
    if _PASSED.fullmatch(text):
        return Passed(text.removeprefix("fd://"))
    if text.startswith("vhost-user:"):
        return _vhost_user(text)
    try:
        return address(text)
    except ValueError as error:
        others = "vhost-user:///PATH?tag=TAG, fd://[NAME], or stdio:"
        raise ValueError(f"{error}, or {others}") from None


def plain(text: str) -> Tcp | Unix:
    """``tcp://HOST:PORT`` or ``unix:///PATH``: an address for what has no TLS of its own."""
    if text.startswith(("tcp:", "unix:")):
        with suppress(ValueError):
            found = address(text)
            assert isinstance(found, Tcp | Unix)
            return found
    raise ValueError("tcp://HOST:PORT or unix:///PATH")


def _vhost_user(text: str) -> VhostUser:
    allowed = (
        "vhost-user:///PATH?tag=TAG, with &user=USER if that is who runs the VMM; "
        "TAG is up to 31 letters, digits, dots, dashes and underscores"
    )
    place, _, query = text.rpartition("?")
    path = place.removeprefix("vhost-user://")
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
        tag, user = given.pop("tag"), given.pop("user", None)
        uid = None if user is None else _uid(user)
    except (KeyError, ValueError):
        raise ValueError(allowed) from None
    if given or not path.startswith("/") or not TAG.fullmatch(tag):
        raise ValueError(allowed)
    return VhostUser(path, tag, uid)


def _uid(user: str) -> int:
    """The number of a user, by name or number; ValueError or KeyError if there is none."""
    if not user.isdecimal():
        return pwd.getpwnam(user).pw_uid
    if int(user) >= 0xFFFFFFFF:
        raise ValueError
    return int(user)
