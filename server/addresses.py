"""Addresses: where a server listens, and which machines may come.

Rules of this file:

* Another machine has an IP address, or the number of a virtual machine on this one (vsock(7)).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import ClassVar

# linux/vm_sockets.h
CID_ANY = PORT_ANY = 0xFFFFFFFF
CID_LOCAL = 1
CID_HOST = 2


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address to listen on."""

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
    """A unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class Vsock:
    """A port for the virtual machines of this one, and for what is on it (vsock(7)).

    Attributes:
        cid: under which number of this machine; ``CID_ANY``: under all that it has.
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


Address = Tcp | Unix | Vsock

#: How users write them.
FORMS = "tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or vsock://CID:PORT"
SERVED = FORMS.replace(" or", ",") + " or stdio:"

_TCP = re.compile(r"(tcp|tls)://(?:\[([0-9a-fA-F:.]+)\]|([^:/\[\]]+)):(\d{1,5})")
_VSOCK = re.compile(r"vsock://(any|\d{1,10}):(\d{1,10})")


def address(text: str) -> Address:
    """An address, in one of ``FORMS``.

    Raises:
        ValueError: it is none; says what is allowed.
    """
    if text.startswith("unix:///"):
        return Unix(text[len("unix://") :])
    tcp, vsock = _TCP.fullmatch(text), _VSOCK.fullmatch(text)
    if tcp is not None and int(tcp[4]) <= 65535:
        return (Tls if tcp[1] == "tls" else Tcp)(tcp[2] or tcp[3], int(tcp[4]))
    if vsock is not None and int(vsock[2]) < PORT_ANY and _cid(vsock[1]) <= CID_ANY:
        return Vsock(_cid(vsock[1]), int(vsock[2]))
    raise ValueError(FORMS)


def served(text: str) -> Address | Stdio:
    """The same, or ``stdio:``."""
    try:
        return Stdio() if text == "stdio:" else address(text)
    except ValueError:
        raise ValueError(SERVED) from None


def _cid(text: str) -> int:
    return CID_ANY if text == "any" else int(text)


@dataclass(frozen=True, slots=True)
class Cid:
    """The number of a virtual machine among those of a host; ``CID_ANY``: that of any."""

    number: int

    def __str__(self) -> str:
        return f"cid:{'any' if self.number == CID_ANY else self.number}"


#: Another machine, and a set of them.
Machine = IPv4Address | IPv6Address | Cid
Network = IPv4Network | IPv6Network | Cid


def network(text: str) -> Network:
    """Machines: a CIDR, ``cid:N`` or ``cid:any``.

    Raises:
        ValueError: it is none; says what is allowed.
    """
    match = re.fullmatch(r"cid:(any|\d{1,10})", text)
    if match is not None and _cid(match[1]) <= CID_ANY:
        return Cid(_cid(match[1]))
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            "networks as 10.0.0.0/8 or fd00::/8, no bits beside their prefix, and virtual machines "
            "as cid:3 or cid:any"
        ) from None


def is_among(machine: Machine, networks: Iterable[Network]) -> bool:
    """Whether a machine is in one of these networks.

    ``CID_LOCAL`` is whatever runs on this very machine: it is not among all virtual machines.
    """
    if not isinstance(machine, Cid):
        return any(machine in it for it in networks if not isinstance(it, Cid))
    either = {machine} if machine.number == CID_LOCAL else {machine, Cid(CID_ANY)}
    return any(it in either for it in networks)
