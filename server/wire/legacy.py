"""The messages of 9P2000 and 9P2000.u: what they have besides those of 9P2000.L, or otherwise.

9P2000 is as section 5 of Plan 9's manual has it, 9P2000.u as its authors' description
(ericvh.github.io/9p-rfc/rfc9p2000.u.html), fs/9p and net/9p of Linux, and QEMU do.

Rules of this file:

* What 9P2000.u has more is at the end of what 9P2000 has, so it is declared as what comes behind.
* Messages that are the same in 9P2000.L are not declared again: see SHARED.
"""

from typing import Final

from . import messages as m
from .codec import QID, STRING, U8, U16, U32, U64, Message, Record, Table, message, record

_SHARED: Final = (
    *(m.Tversion, m.Rversion, m.Rauth, m.Rattach, m.Tflush, m.Rflush, m.Twalk, m.Rwalk),
    *(m.Tread, m.Rread, m.Twrite, m.Rwrite, m.Tclunk, m.Rclunk, m.Tremove, m.Rremove),
)

#: All messages of 9P2000.
PLAIN: Final[Table] = {cls.TYPE: cls for cls in _SHARED}
#: All messages of 9P2000.u.
UNIX: Final[Table] = PLAIN | {cls.TYPE: cls for cls in (m.Tauth, m.Tattach)}


@message(102, PLAIN)
class TauthPlain(Message):
    afid: U32
    uname: STRING
    aname: STRING


@message(104, PLAIN)
class TattachPlain(Message):
    fid: U32
    afid: U32
    uname: STRING
    aname: STRING


@message(107, PLAIN)
class Rerror(Message):
    ename: STRING


@message(107, UNIX)
class RerrorUnix(Rerror):
    errno: U32


@message(112, PLAIN, UNIX)
class Topen(Message):
    fid: U32
    mode: U8


@message(113, PLAIN, UNIX)
class Ropen(Message):
    qid: QID
    iounit: U32


@message(114, PLAIN)
class Tcreate(Message):
    fid: U32
    name: STRING
    perm: U32
    mode: U8


@message(114, UNIX)
class TcreateUnix(Tcreate):
    extension: STRING


@message(115, PLAIN, UNIX)
class Rcreate(Message):
    qid: QID
    iounit: U32


@message(124, PLAIN, UNIX)
class Tstat(Message):
    fid: U32


@message(125, PLAIN, UNIX)
class Rstat(Message):
    """``stat`` is one :class:`Stat`, its size[2] included."""

    stat: STRING


@message(126, PLAIN, UNIX)
class Twstat(Message):
    """``stat`` is one :class:`Stat`, its size[2] included."""

    fid: U32
    stat: STRING


@message(127, PLAIN, UNIX)
class Rwstat(Message):
    pass


@record
class Stat(Record):
    """What is told of a file (stat(5)); a directory's data is one for each of its entries."""

    type: U16
    dev: U32
    qid: QID
    mode: U32
    atime: U32
    mtime: U32
    length: U64
    name: STRING
    uid: STRING
    gid: STRING
    muid: STRING


@record
class StatUnix(Stat):
    extension: STRING
    n_uid: U32
    n_gid: U32
    n_muid: U32
