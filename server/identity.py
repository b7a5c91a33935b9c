"""Identity: who a client is, and on whose behalf its requests run.

Who is there, as the kernel tells it:

================================================ ============== ========
the other end of the connection                  Peer.uid       trusted
================================================ ============== ========
on this machine, root or the server's own user   his            yes
on this machine, any other user                  his            no
on this machine, and the kernel knows no owner   none           no
on another machine, let in by the listener       none           yes
vsock(7), this machine too, let in likewise      none           yes
with a certificate, of root                      0              yes
with a certificate, of any other user            his            no
a VMM, at the socket of a device that is for it  his            yes
================================================ ============== ========

What follows for who attaches to an export (:func:`cred_of`), in this order:

* ``allow``: who is on another machine is refused with EACCES, unless it is in one of the networks.
* Who is trusted acts as the user he names; anybody else as himself, else EPERM.
* ``squash``: that user becomes ``anonuid``, always if it is ``all``, and if he is 0 if it is
  ``root``.  Permissions are checked here then: the client's kernel checked those of another user.
* ``permissions``: they are checked here if it is ``server``, never if it is ``client``; if it is
  ``auto``, they are for whom is not trusted, and in the dialects that leave them to the server.
* ``readonly``: nobody changes anything.

Rules of this file:

* Whatever can not be proven is not trusted.  A socket that its process has closed belongs to
  user 0, says the kernel; only one with an inode has an owner.
* Any address of this machine is local, so that no user here passes for another machine.
"""

import errno
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from tmpfs_core.access import Cred
from tmpfs_core.errors import refuse

from .exports import Export
from .network import Cid, Machine, is_among
from .wire.constants import NONUNAME

#: The user of a name that is nobody's here, and the group of a user who is nobody here.
NOBODY = 65534

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
ALL_STATES = NO_COOKIE = 0xFFFFFFFF
NLMSGHDR = struct.Struct("=IHHII")
REQ_V2 = struct.Struct("=BBBBI")  # inet_diag_req_v2, without its id
SOCKID = struct.Struct("!HH16s16s")  # inet_diag_sockid, without what follows
SOCKID_REST = struct.Struct("=III")
MSG = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg
UCRED = struct.Struct("=iII")  # bits/socket.h


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        name: for the log.
        uid: the user that it is proven to be, if any.
        trusted: it may attach as anyone, and its kernel's checks of permissions count.
        address: of the machine that it is on; None if that is this one.
    """

    name: str
    uid: int | None
    trusted: bool
    address: Machine | None


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of a connected socket.

    Raises:
        OSError: ENOTCONN, it is gone already; or the system has no descriptors or memory left.
    """
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        return _local("unix", UCRED.unpack(credentials)[1])
    if sock.family == socket.AF_VSOCK:
        cid, port = sock.getpeername()
        return Peer(f"vsock://{cid}:{port}", None, True, Cid(cid))
    there, here = sock.getpeername(), sock.getsockname()
    address = address_of(there)
    name = f"[{address}]:{there[1]}" if address.version == 6 else f"{address}:{there[1]}"
    interface = there[3] if address.version == 6 else 0
    if not _is_of_this_machine(address, interface):
        return Peer(name, None, True, address)
    return _local(name, _owner(address, there[1], address_of(here), here[1], interface))


def cred_of(
    peer: Peer, export: Export, uname: bytes, n_uname: int, *, vouched: bool = True
) -> Cred:
    """On whose behalf a peer acts that attaches to an export as this user (attach(5)).

    ``vouched``: clients of its dialect are kernels, which check permissions; 9P2000.L's are.

    Raises:
        OSError: EACCES, the export is not for his machine; EPERM, he is not that user.
    """
    address = peer.address
    if export.allow and address is not None and not is_among(address, export.allow):
        refuse(errno.EACCES)
    uid = uid_of(uname, n_uname)
    if not peer.trusted:
        himself = uid == peer.uid or (n_uname == NONUNAME and not uname)
        if peer.uid is None or not himself:
            refuse(errno.EPERM)
        uid = peer.uid
    if export.squash == "all" or (export.squash == "root" and uid == 0):
        return Cred(export.anonuid, export.anongid, checked=True, readonly=export.readonly)
    if export.permissions == "client" or (
        export.permissions == "auto" and peer.trusted and vouched
    ):
        return Cred(uid, readonly=export.readonly)
    gid, groups = _groups_of(uid)
    return Cred(uid, gid, groups, checked=True, readonly=export.readonly)


def uid_of(uname: bytes, n_uname: int) -> int:
    """Who attaches: the number if there is one, else the user of that name here, else nobody."""
    if n_uname != NONUNAME:
        return n_uname
    try:
        return pwd.getpwnam(os.fsdecode(uname)).pw_uid
    except (KeyError, ValueError):
        return NOBODY


def vouched_for(peer: Peer, name: str) -> Peer:
    """A peer, of this name for the log, that is trusted: nobody else could connect there."""
    return Peer(name, peer.uid, True, peer.address)


def certified(peer: Peer, name: str, uid: int) -> Peer:
    """A peer that has shown a certificate of this name, which is that of user ``uid``."""
    return Peer(f"{peer.name} {name}", uid, uid == 0, peer.address)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> bytes:
    """The name of a user here, as it was when it was asked first; else his number."""
    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return b"%d" % uid


@lru_cache(maxsize=1024)
def group_name(gid: int) -> bytes:
    """The same of a group."""
    try:
        return os.fsencode(grp.getgrgid(gid).gr_name)
    except KeyError:
        return b"%d" % gid


def user_named(name: bytes) -> int:
    """The user of that name here, or of that number.

    Raises:
        OSError: EINVAL, there is none.
    """
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):
        return _id_of(name)


def group_named(name: bytes) -> int:
    """The same of a group."""
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):
        return _id_of(name)


def _id_of(number: bytes) -> int:
    if not number.isdigit() or len(number) > 10 or int(number) >= NONUNAME:
        refuse(errno.EINVAL)
    return int(number)


def address_of(name: tuple[str, int] | tuple[str, int, int, int]) -> IPv4Address | IPv6Address:
    """The address in a socket's name, as IPv4 where it is IPv4 in IPv6's clothes."""
    address = ip_address(name[0].partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _local(name: str, uid: int | None) -> Peer:
    return Peer(name, uid, uid is not None and uid in {0, os.geteuid()}, None)


def _groups_of(uid: int) -> tuple[int, frozenset[int]]:
    """The group and the further groups of a user, from the user database."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return NOBODY, frozenset()
    return user.pw_gid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid))


def _is_of_this_machine(address: IPv4Address | IPv6Address, interface: int) -> bool:
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    name = (str(address), 0) if address.version == 4 else (str(address), 0, 0, interface)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
    return True


def _owner(
    address: IPv4Address | IPv6Address,
    port: int,
    to_address: IPv4Address | IPv6Address,
    to_port: int,
    interface: int,
) -> int | None:
    """The user whose socket here is connected from one address to the other (sock_diag(7)).

    Raises:
        OSError: the system has no descriptors or memory left.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    request = (
        REQ_V2.pack(family, socket.IPPROTO_TCP, 0, 0, ALL_STATES)
        + SOCKID.pack(port, to_port, address.packed, to_address.packed)
        + SOCKID_REST.pack(interface, NO_COOKIE, NO_COOKIE)
    )
    header = NLMSGHDR.pack(NLMSGHDR.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)  # it is there when sendto returns
    if NLMSGHDR.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
        return None  # there is none, or the kernel can not tell
    family, _, _, _, ident, _, _, _, uid, inode = MSG.unpack_from(answer, NLMSGHDR.size)
    its_port, its_to_port, its_address, its_to_address = SOCKID.unpack_from(ident)
    size = 4 if family == socket.AF_INET else 16
    found = tuple(
        (address_of((str(ip_address(packed[:size])), 0)), port)
        for packed, port in ((its_address, its_port), (its_to_address, its_to_port))
    )
    if not inode or found != ((address, port), (to_address, to_port)):
        return None  # its process has closed it, or it is a listening socket at that port
    return int(uid)
