"""Own: handlers of what this project's client asks for besides (see :mod:`.wire.own`)."""

import errno
from typing import Final

from tmpfs_core import vnops
from tmpfs_core.errors import refuse
from tmpfs_core.node import DirNode
from tmpfs_core.permissions import EXECUTE, READ, require

from .fids import Client, Fid
from .handlers import Handlers, Reply, attach_as, attributes, handles, lcreate
from .wire.constants import IOHDRSZ, NONUNAME
from .wire.entries import pack_entry, pack_two
from .wire.messages import Tattach
from .wire.own import Rcreateplus, Rreaddirplus, Tcreateplus, Treaddirplus

#: Those that 9P2000.L does not have, or has otherwise.
OWN: Final[Handlers] = {}


@handles(Tattach, OWN)
def attach(
    client: Client, tag: int, fid: int, afid: int, uname: bytes, aname: bytes, n_uname: int
) -> Reply:
    """Who comes by name alone may have another number for his own kernel, which checks nothing.

    He who does not even tell his name is who he was proven to be.
    """
    vouched = n_uname != NONUNAME
    if not vouched and not uname and client.peer.uid is not None:
        n_uname = client.peer.uid
    return attach_as(client, tag, fid, afid, uname, aname, n_uname, vouched=vouched)


@handles(Treaddirplus, OWN)
def readdirplus(client: Client, tag: int, fid: int, offset: int, count: int) -> Reply:
    """Whole records only, without ``.`` and ``..``, for who may read and search the directory.

    Raises:
        OSError: EINVAL, not one record fits into ``count``; ENOTDIR; EACCES; EBADF.
    """
    held = client.get(fid)
    if isinstance(held.node, DirNode):
        require(held.node, held.cred, READ | EXECUTE)
    room = min(count, client.msize - IOHDRSZ)
    records = []
    end = 1
    for entry in vnops.readdir(held.node, offset):
        node = entry.node
        record = pack_entry(entry.cookie, bool(node.xattrs), entry.name, attributes(tag, node))
        room -= len(record)
        if room < 0:
            end = 0
            break
        records.append(record)
    if not records and not end:
        refuse(errno.EINVAL)
    return Rreaddirplus.pack(tag, end, b"".join(records))


@handles(Tcreateplus, OWN)
def createplus(
    client: Client, tag: int, fid: int, newfid: int, name: bytes, flags: int, mode: int, gid: int
) -> Reply:
    """Nothing is left of ``newfid`` if it is refused."""
    directory = client.get(fid)
    client.require_free(newfid)
    client.enter(newfid, Fid(directory.entry, directory.cred))
    try:
        lcreate(client, tag, newfid, name, flags, mode, gid)
    except BaseException:
        client.clunk(newfid)
        raise
    made = client.fids[newfid].node
    two = pack_two(attributes(tag, made), attributes(tag, directory.node))
    return Rcreateplus.pack(tag, two)
