"""Every message of 9P2000.L, its fields in wire order (diod's protocol.md, net/9p/client.c).

``size[4] type[1] tag[2]`` stands before each and is not declared.
"""

from collections.abc import Iterator
from struct import Struct

from .codec import DATA, I64, QID, QIDS, STRING, STRINGS, U8, U16, U32, U64, Message, message
from .primitives import Qid, QidFields


@message(7)
class Rlerror(Message):
    ecode: U32


@message(8)
class Tstatfs(Message):
    fid: U32


@message(9)
class Rstatfs(Message):
    type: U32
    bsize: U32
    blocks: U64
    bfree: U64
    bavail: U64
    files: U64
    ffree: U64
    fsid: U64
    namelen: U32


@message(12)
class Tlopen(Message):
    fid: U32
    flags: U32


@message(13)
class Rlopen(Message):
    qid: QID
    iounit: U32


@message(14)
class Tlcreate(Message):
    fid: U32
    name: STRING
    flags: U32
    mode: U32
    gid: U32


@message(15)
class Rlcreate(Message):
    qid: QID
    iounit: U32


@message(16)
class Tsymlink(Message):
    dfid: U32
    name: STRING
    target: STRING
    gid: U32


@message(17)
class Rsymlink(Message):
    qid: QID


@message(18)
class Tmknod(Message):
    dfid: U32
    name: STRING
    mode: U32
    major: U32
    minor: U32
    gid: U32


@message(19)
class Rmknod(Message):
    qid: QID


@message(20)
class Trename(Message):
    fid: U32
    dfid: U32
    name: STRING


@message(21)
class Rrename(Message):
    pass


@message(22)
class Treadlink(Message):
    fid: U32


@message(23)
class Rreadlink(Message):
    target: STRING


@message(24)
class Tgetattr(Message):
    fid: U32
    request_mask: U64


@message(25)
class Rgetattr(Message):
    valid: U64
    qid: QID
    mode: U32
    uid: U32
    gid: U32
    nlink: U64
    rdev: U64
    size: U64
    blksize: U64
    blocks: U64
    atime_sec: I64
    atime_nsec: U64
    mtime_sec: I64
    mtime_nsec: U64
    ctime_sec: I64
    ctime_nsec: U64
    btime_sec: I64
    btime_nsec: U64
    gen: U64
    data_version: U64


@message(26)
class Tsetattr(Message):
    fid: U32
    valid: U32
    mode: U32
    uid: U32
    gid: U32
    size: U64
    atime_sec: I64
    atime_nsec: U64
    mtime_sec: I64
    mtime_nsec: U64


@message(27)
class Rsetattr(Message):
    pass


@message(30)
class Txattrwalk(Message):
    fid: U32
    newfid: U32
    name: STRING


@message(31)
class Rxattrwalk(Message):
    size: U64


@message(32)
class Txattrcreate(Message):
    fid: U32
    name: STRING
    attr_size: U64
    flags: U32


@message(33)
class Rxattrcreate(Message):
    pass


@message(40)
class Treaddir(Message):
    fid: U32
    offset: U64
    count: U32


@message(41)
class Rreaddir(Message):
    data: DATA


@message(50)
class Tfsync(Message):
    fid: U32
    datasync: U32


@message(51)
class Rfsync(Message):
    pass


@message(52)
class Tlock(Message):
    fid: U32
    type: U8
    flags: U32
    start: U64
    length: U64
    proc_id: U32
    client_id: STRING


@message(53)
class Rlock(Message):
    status: U8


@message(54)
class Tgetlock(Message):
    fid: U32
    type: U8
    start: U64
    length: U64
    proc_id: U32
    client_id: STRING


@message(55)
class Rgetlock(Message):
    type: U8
    start: U64
    length: U64
    proc_id: U32
    client_id: STRING


@message(70)
class Tlink(Message):
    dfid: U32
    fid: U32
    name: STRING


@message(71)
class Rlink(Message):
    pass


@message(72)
class Tmkdir(Message):
    dfid: U32
    name: STRING
    mode: U32
    gid: U32


@message(73)
class Rmkdir(Message):
    qid: QID


@message(74)
class Trenameat(Message):
    olddirfid: U32
    oldname: STRING
    newdirfid: U32
    newname: STRING


@message(75)
class Rrenameat(Message):
    pass


@message(76)
class Tunlinkat(Message):
    dirfid: U32
    name: STRING
    flags: U32


@message(77)
class Runlinkat(Message):
    pass


@message(100)
class Tversion(Message):
    msize: U32
    version: STRING


@message(101)
class Rversion(Message):
    msize: U32
    version: STRING


@message(102)
class Tauth(Message):
    afid: U32
    uname: STRING
    aname: STRING
    n_uname: U32


@message(103)
class Rauth(Message):
    aqid: QID


@message(104)
class Tattach(Message):
    fid: U32
    afid: U32
    uname: STRING
    aname: STRING
    n_uname: U32


@message(105)
class Rattach(Message):
    qid: QID


@message(108)
class Tflush(Message):
    oldtag: U16


@message(109)
class Rflush(Message):
    pass


@message(110)
class Twalk(Message):
    fid: U32
    newfid: U32
    wnames: STRINGS


@message(111)
class Rwalk(Message):
    qids: QIDS


@message(116)
class Tread(Message):
    fid: U32
    offset: U64
    count: U32


@message(117)
class Rread(Message):
    data: DATA


@message(118)
class Twrite(Message):
    fid: U32
    offset: U64
    data: DATA


@message(119)
class Rwrite(Message):
    count: U32


@message(120)
class Tclunk(Message):
    fid: U32


@message(121)
class Rclunk(Message):
    pass


@message(122)
class Tremove(Message):
    fid: U32


@message(123)
class Rremove(Message):
    pass


# The records that Rreaddir's data is made of: qid[13] offset[8] type[1] name[s]

_RECORD = Struct("<BIQQBH")

#: Bytes of a directory record besides its name.
RECORD_SIZE = _RECORD.size


def pack_record(qid: QidFields, offset: int, kind: int, name: bytes) -> bytes:
    """One entry of a listing: ``offset`` resumes behind it, ``kind`` is readdir(3)'s d_type."""
    return _RECORD.pack(*qid, offset, kind, len(name)) + name


def split_records(data: bytes) -> Iterator[tuple[Qid, int, int, bytes]]:
    """The entries of a listing, as given to :func:`pack_record`."""
    at = 0
    while at < len(data):
        *qid, offset, kind, length = _RECORD.unpack_from(data, at)
        at += RECORD_SIZE + length
        yield Qid(*qid), offset, kind, data[at - length : at]
