"""Chain: requests that need one another, made together, so that they cost one round trip.

Rules of this file:

* A server may do requests in any order.  What it has refused because it came too early is asked
  again.
* Whoever gets a fid clunks it; when nobody gets it, it is clunked here.
"""

import errno
from collections.abc import Sequence
from typing import Any, NamedTuple

from server.wire.constants import (
    GETATTR_ALL,
    O_DIRECTORY,
    O_RDONLY,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
)
from server.wire.entries import split_entries
from server.wire.messages import (
    Tgetattr,
    Tlcreate,
    Tlopen,
    Tread,
    Treaddir,
    Tsetattr,
    Twalk,
    split_records,
)
from server.wire.own import Treaddirplus
from server.wire.primitives import Qid

from .attributes import SECOND, Stat, stat_of
from .session import Session

#: Bytes of a directory that are asked for at a time with attributes: some 350 names.
PLUS = 65536


class Listed(NamedTuple):
    """A name in a directory, the attributes of what has it, and whether it has extended ones."""

    name: bytes
    found: Stat
    xattrs: bool


async def enter(session: Session, directory: int, name: bytes) -> tuple[int, Stat]:
    """A new fid for what has this name in a directory, and its attributes.

    Raises:
        OSError: ENOENT, there is none; EACCES.
    """
    (found,) = await enter_all(session, directory, [name])
    if isinstance(found, OSError):
        raise found
    return found


async def enter_all(
    session: Session, directory: int, names: Sequence[bytes]
) -> list[tuple[int, Stat] | OSError]:
    """The same for several names at a time; of what is refused, the error."""
    fids = [session.new_fid() for _ in names]
    requests: list[tuple[Any, ...]] = []
    for fid, name in zip(fids, names, strict=True):
        requests += (Twalk, directory, fid, [name]), (Tgetattr, fid, GETATTR_ALL)
    try:
        replies = await session.connection.batch(requests)
        found: list[tuple[int, Stat] | OSError] = []
        for fid, walked, attributes in zip(fids, replies[::2], replies[1::2], strict=True):
            if isinstance(walked, OSError):
                session.free(fid)
                found.append(walked)
            elif _came_too_early(attributes):
                again = await session.call(Tgetattr, fid, GETATTR_ALL)
                found.append((fid, again))
            elif isinstance(attributes, OSError):
                session.clunk(fid)
                found.append(attributes)
            else:
                found.append((fid, attributes))
    except BaseException:
        for fid in fids:
            session.clunk(fid)
        raise
    return found


async def open_copy(
    session: Session, fid: int, names: list[bytes], flags: int, ahead: int = 0
) -> tuple[int, Stat, bytes | None]:
    """A new fid for what is found from a fid by ``names`` (it itself: none), open; its attributes;
    its first ``ahead`` bytes."""
    copy = session.new_fid()
    requests: list[tuple[Any, ...]] = [
        (Twalk, fid, copy, names),
        (Tlopen, copy, flags),
        (Tgetattr, copy, GETATTR_ALL),
    ]
    if ahead:
        requests.append((Tread, copy, 0, min(ahead, session.data_max)))
    try:
        _, _, found, *data = await _chain(session, requests)
    except BaseException:
        session.clunk(copy)
        raise
    return copy, found, data[0].data if data else None


async def listed(session: Session, directory: int, most: int) -> tuple[list[Listed], int]:
    """What is in a directory, with attributes; and what :func:`records` resumes at if that is not
    all, as it is more than ``most`` names, else 0.

    Raises:
        OSError: EACCES, it may not be searched.
    """
    found: list[Listed] = []
    offset = 0
    while len(found) < most:
        reply = await session.call(Treaddirplus, directory, offset, min(PLUS, session.data_max))
        some = list(split_entries(reply.data))
        found += [Listed(name, stat_of(fields), xattrs) for _, xattrs, name, fields in some]
        if reply.end:
            return found, 0
        offset = some[-1][0]
    return found, offset


async def records(
    session: Session, directory: int, offset: int = 0
) -> list[tuple[Qid, int, int, bytes]]:
    """What is in a directory, as :func:`.split_records` has it, without ``.`` and ``..``."""
    found: list[tuple[Qid, int, int, bytes]] = []
    fid = session.new_fid()
    try:
        *_, reply = await _chain(
            session,
            [
                (Twalk, directory, fid, []),
                (Tlopen, fid, O_RDONLY | O_DIRECTORY),
                (Treaddir, fid, offset, session.data_max),
            ],
        )
        while reply.data:
            some = list(split_records(reply.data))
            found += [one for one in some if one[3] not in (b".", b"..")]
            reply = await session.call(Treaddir, fid, some[-1][1], session.data_max)
    finally:
        session.clunk(fid)
    return found


class Made(NamedTuple):
    """A new name in a directory.

    Attributes:
        fid: for what it is.
        found: its attributes.
        above: those of the directory; None if the server may have looked before there was the name.
    """

    fid: int
    found: Stat
    above: Stat | None


async def create(
    session: Session, directory: int, name: bytes, flags: int, mode: int, gid: int
) -> Made:
    """A file that is made, or was there; its fid is open."""
    fid = session.new_fid()
    try:
        _, made, attributes, above = await _chain(
            session,
            [
                (Twalk, directory, fid, []),
                (Tlcreate, fid, name, flags, mode, gid),
                (Tgetattr, fid, GETATTR_ALL),
                (Tgetattr, directory, GETATTR_ALL),
            ],
        )
        if attributes.st_ino != made.qid.path:  # of the directory, whose the fid was before
            attributes = await session.call(Tgetattr, fid, GETATTR_ALL)
    except BaseException:
        session.clunk(fid)
        raise
    return _made(fid, attributes, above)


async def make(session: Session, directory: int, kind: Any, name: bytes, *fields: Any) -> Made:
    """Anything else that is made."""
    fid = session.new_fid()
    try:
        made, walked, found, above = await session.connection.batch(
            [
                (kind, directory, name, *fields),
                (Twalk, directory, fid, [name]),
                (Tgetattr, fid, GETATTR_ALL),
                (Tgetattr, directory, GETATTR_ALL),
            ]
        )
        if isinstance(made, OSError):
            raise made
    except BaseException:
        session.clunk(fid)
        raise
    if isinstance(walked, OSError) or isinstance(found, OSError):  # they came too early
        session.clunk(fid)
        return _made(*await enter(session, directory, name), above)
    return _made(fid, found, above)


def _made(fid: int, found: Stat, above: Any) -> Made:
    directory = None if isinstance(above, OSError) else above
    if directory is not None and directory.st_mtime_ns < found.st_birthtime_ns:
        directory = None
    return Made(fid, found, directory)


async def change(session: Session, fid: int, fields: tuple[int, ...]) -> Stat:
    """Set attributes, as a Tsetattr has them; what they are then."""
    done, found = await session.connection.batch(
        [(Tsetattr, fid, *fields), (Tgetattr, fid, GETATTR_ALL)]
    )
    if isinstance(done, OSError):
        raise done
    if isinstance(found, Stat) and _is_as_asked(found, *fields):
        return found
    now: Stat = await session.call(Tgetattr, fid, GETATTR_ALL)
    return now


def _is_as_asked(
    found: Stat, valid: int, mode: int, uid: int, gid: int, size: int, *times: int
) -> bool:
    """Whether a file is so now; if not, the server may have looked before it was."""
    atime, mtime = times[0] * SECOND + times[1], times[2] * SECOND + times[3]
    return all(
        asked == there
        for bit, asked, there in (
            (SETATTR_MODE, mode, found.st_mode & 0o7777),
            (SETATTR_UID, uid, found.st_uid),
            (SETATTR_GID, gid, found.st_gid),
            (SETATTR_SIZE, size, found.st_size),
            (SETATTR_ATIME_SET, atime, found.st_atime_ns),
            (SETATTR_MTIME_SET, mtime, found.st_mtime_ns),
        )
        if valid & bit
    )


async def _chain(session: Session, requests: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies, if the server refuses none."""
    replies = await session.connection.batch(requests)
    for number, request in enumerate(requests):
        if number and _came_too_early(replies[number]):
            replies[number] = await session.call(*request)
        elif isinstance(replies[number], OSError):
            raise replies[number]
    return replies


def _came_too_early(reply: Any) -> bool:
    return isinstance(reply, OSError) and reply.errno == errno.EBADF
