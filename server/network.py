"""Networks: sets of other machines, by their addresses.

Rules of this file:

* Another machine has an IP address, or its number among the virtual machines of a host (vsock(7)).
* What is on this very machine has the number ``CID_LOCAL``: no virtual machine, so not in "any".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from .address import CID_ANY, cid

# linux/vm_sockets.h
CID_LOCAL = 1


@dataclass(frozen=True, slots=True)
class Cid:
    """The number of a virtual machine; ``CID_ANY``: that of any."""

    number: int

    def __str__(self) -> str:
        return f"cid:{'any' if self.number == CID_ANY else self.number}"


Machine = IPv4Address | IPv6Address | Cid
Network = IPv4Network | IPv6Network | Cid


def network(text: str) -> Network:
    """A CIDR, ``cid:N`` or ``cid:any``."""
    match = re.fullmatch(r"cid:(any|\d{1,10})", text)
    if match is not None and cid(match[1]) <= CID_ANY:
        return Cid(cid(match[1]))
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            "networks as 10.0.0.0/8 or fd00::/8, no bits beside their prefix, and virtual machines "
            "as cid:3 or cid:any"
        ) from None


def is_among(machine: Machine, networks: Iterable[Network]) -> bool:
    """Whether a machine is in one of these networks."""
    if not isinstance(machine, Cid):
        return any(machine in it for it in networks if not isinstance(it, Cid))
    either = {machine} if machine.number == CID_LOCAL else {machine, Cid(CID_ANY)}
    return any(it in either for it in networks)
