"""Seeds: what a fuzzer begins with: short sessions, each of one subject, as a kernel has them.

``python -m tests.fuzz.seeds`` writes them to ``tests/fuzz/corpus``; a test compares.
"""

import itertools
from pathlib import Path
from struct import pack

from server.wire import constants as c
from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import Message
from tests.server.vhost.frontend import AVAILABLE, BUFFERS, DESCRIPTORS, GUEST, NEXT
from tmpfs_core.frames import BLOCK

from .grammar import OWN_END, SAID, begun, plugged, poke, say
from .grammar import ask as machine_ask
from .machine import BY_INDEX, STARTED
from .steps import GRAIN, USERS, Op, Step, encode, feed

CORPUS = Path(__file__).parent / "corpus"
MIB = 1 << 20
#: What a VMM says, by its place in what the grammar knows.
VMM = {"stop": (17, 10), "go on": (21, 19), "ask": (0, 2, 4, 5, 24, 25, 12, 14, 22, 7)}
SETTLE, PAGE_OUT, EXPORT = Step(Op.SETTLE), Step(Op.PAGE_OUT), Step(Op.EXPORT)


def ask(*requests: Message, conn: int = 0) -> Step:
    """Requests at once, with tags from 0 on."""
    return feed(b"".join(request.frame(tag) for tag, request in enumerate(requests)), conn)


def ask_in_turn(*requests: Message, conn: int = 0, layout: int = 0) -> list[Step]:
    """The requests of a guest, each when the one before is answered."""
    asked = (machine_ask(conn, request.frame(tag), layout) for tag, request in enumerate(requests))
    return [step for request in asked for step in (request, SETTLE)]


def create(fid: int, name: bytes, flags: int = c.O_RDWR, conn: int = 0) -> Step:
    return ask(m.Twalk(0, fid, []), m.Tlcreate(fid, name, flags, 0o644, 0), conn=conn)


def write(fid: int, offset: int, count: int, conn: int = 0) -> list[Step]:
    """A write whose data does not stand in the input."""
    return [feed(m.Twrite.head(3, fid, offset, count), conn), Step(Op.FILL, conn, count // GRAIN)]


def swapped(name: bytes = b"a") -> list[Step]:
    """Fid 1 is a file of 640 KiB, all of it in swap."""
    return [create(1, name), *write(1, 0, 10 * BLOCK), SETTLE, PAGE_OUT, SETTLE]


def stat(name: bytes = b"", length: int = c.KEEP64) -> bytes:
    """For a Twstat that changes these alone."""
    keep = c.KEEP32
    return legacy.Stat.pack(0, 0, (0, 0, 0), keep, keep, keep, length, name, b"", b"", b"")


def stat_unix(
    mode: int = c.KEEP32,
    length: int = c.KEEP64,
    name: bytes = b"",
    n_uid: int = c.KEEP32,
    n_gid: int = c.KEEP32,
) -> bytes:
    """The same of 9P2000.u."""
    fields = (0, 0, (0, 0, 0), mode, c.KEEP32, c.KEEP32, length, name, b"", b"", b"", b"")
    return legacy.StatUnix.pack(*fields, n_uid, n_gid, c.KEEP32)


def create_unix(fid: int, name: bytes, perm: int, extension: bytes = b"") -> Message:
    return legacy.TcreateUnix(fid, name, perm, c.ORDWR, extension)


def setattr_of(fid: int, valid: int, size: int = 0) -> Message:
    return m.Tsetattr(fid, valid, 0o600, 1, 1, size, 1, 1, 1, 1)


def lock(kind: int, proc_id: int, flags: int = 0) -> Message:
    return m.Tlock(1, kind, flags, 0, 0, proc_id, b"one")


def attach(fid: int, aname: bytes, conn: int = 0) -> Message:
    return m.Tattach(fid, c.NOFID, b"", aname, USERS[conn])


#: Fid 1 is a file.
FILE = (m.Twalk(0, 1, []), m.Tlcreate(1, b"a", c.O_RDWR, 0o644, 0), m.Twrite(1, 0, b"data"))
#: Every kind of change, to what fid 4 is the directory of.
CHANGES = [
    *(m.Twalk(4, fid, [name]) for fid, name in ((1, b"a"), (2, b"b"), (3, b"a"))),
    m.Tmkdir(4, b"x", 0o755, 0),
    m.Tsymlink(4, b"x", b"a", 0),
    m.Tmknod(4, b"x", 0o10644, 0, 0, 0),
    m.Tlink(4, 1, b"x"),
    m.Trename(1, 4, b"x"),
    m.Trenameat(4, b"b", 4, b"x"),
    m.Tunlinkat(4, b"a", 0),
    m.Tunlinkat(4, b"b", c.AT_REMOVEDIR),
    setattr_of(1, 0x1FF, 5),
    m.Tlopen(3, c.O_RDWR),
    m.Tlopen(3, c.O_RDONLY | c.O_TRUNC),
    m.Tlopen(3, c.O_RDONLY),
    m.Twrite(3, 0, b"changed"),
    m.Tread(3, 0, 100),
    m.Txattrcreate(1, b"user.a", 1, 0),
    m.Twrite(1, 0, b"x"),
    m.Tclunk(1),
    m.Tlcreate(4, b"x", c.O_RDWR, 0o644, 0),
    m.Tremove(2),
]

WAIT = lock(c.LOCK_TYPE_WRLCK, 2, c.LOCK_FLAGS_BLOCK)

SEEDS: dict[str, list[Step]] = {
    "small-file": [
        create(1, b"a"),
        ask(m.Twrite(1, 0, b"data"), m.Tread(1, 0, 4096), m.Tgetattr(1, c.GETATTR_ALL)),
        ask(m.Tfsync(1, 0), m.Tclunk(1), m.Twalk(0, 1, [b"a"]), m.Tlopen(1, c.O_RDWR | c.O_TRUNC)),
        ask(m.Twrite(1, 9000, b"behind a hole"), m.Tread(1, 0, 65536), m.Tremove(1)),
    ],
    "append": [
        create(1, b"a", c.O_RDWR | c.O_APPEND),
        ask(m.Twrite(1, 0, b"one"), m.Twrite(1, 0, b"two"), m.Tread(1, 0, 10)),
        *write(1, 0, 3 * BLOCK),
    ],
    "tree": [
        ask(m.Tmkdir(0, b"a", 0o755, 0), m.Tsymlink(0, b"b", b"a", 0), m.Twalk(0, 4, [b"a"])),
        ask(m.Tmknod(4, b"c", 0o20644, 1, 3, 0), m.Twalk(0, 5, [b"b"]), m.Treadlink(5)),
        create(1, b"d"),
        ask(m.Tlink(4, 1, b"b"), m.Trename(1, 4, b"a"), m.Trenameat(4, b"a", 0, b"c")),
        ask(m.Twalk(4, 2, [b".."]), m.Tlopen(2, 0), m.Treaddir(2, 0, 4096), m.Treaddir(2, 2, 60)),
        ask(m.Tunlinkat(4, b"b", 0), m.Tunlinkat(4, b"c", 0), m.Tunlinkat(0, b"a", c.AT_REMOVEDIR)),
        ask(m.Tremove(1), m.Tstatfs(0), m.Tclunk(0)),
    ],
    "attributes": [
        create(1, b"a"),
        ask(*(setattr_of(1, 1 << bit, 5000) for bit in range(9)), setattr_of(1, 0x1FF, 100)),
        ask(m.Tgetattr(1, c.GETATTR_BASIC)),
    ],
    "xattr": [
        ask(m.Tmkdir(0, b"a", 0o755, 0), m.Twalk(0, 4, [b"a"]), m.Twalk(4, 5, [])),
        ask(m.Txattrcreate(4, b"user.a", 5, 0), m.Twrite(4, 0, b"value"), m.Tclunk(4)),
        ask(m.Txattrwalk(5, 6, b"user.a"), m.Tread(6, 0, 100), m.Tclunk(6)),
        ask(m.Txattrwalk(5, 6, b""), m.Tread(6, 0, 100), m.Twalk(5, 4, [])),
        ask(m.Txattrcreate(4, b"user.a", 0, c.XATTR_REPLACE), m.Tclunk(4)),
        ask(m.Txattrcreate(5, b"user.b", 5, 0), m.Twrite(5, 0, b"val"), m.Tclunk(5)),
    ],
    "locks": [
        create(1, b"a"),
        ask(lock(c.LOCK_TYPE_WRLCK, 1), m.Tgetlock(1, c.LOCK_TYPE_RDLCK, 0, 9, 2, b"two")),
        feed(WAIT.frame(5)),
        SETTLE,
        feed(WAIT.frame(6) + m.Tflush(5).frame(1) + m.Tflush(1).frame(2) + m.Tflush(7).frame(3)),
        SETTLE,
        ask(lock(c.LOCK_TYPE_UNLCK, 1)),
        SETTLE,
        feed(lock(c.LOCK_TYPE_WRLCK, 3, c.LOCK_FLAGS_BLOCK).frame(5) + m.Tclunk(1).frame(1)),
    ],
    "locks-between-two": [
        create(1, b"a"),
        begun(2),
        ask(m.Twalk(0, 1, [b"a"]), m.Tlopen(1, c.O_RDWR), conn=2),
        ask(lock(c.LOCK_TYPE_WRLCK, 1)),
        ask(WAIT, conn=2),
        SETTLE,
        Step(Op.CLOSE),
        SETTLE,
        ask(WAIT, conn=2),
    ],
    "unlinked-and-shared": [
        create(1, b"a"),
        begun(1),
        ask(m.Twalk(0, 1, [b"a"]), m.Tlopen(1, c.O_RDWR), m.Tunlinkat(0, b"a", 0), conn=1),
        ask(m.Twrite(1, 0, b"nowhere"), m.Tread(1, 0, 9)),
        ask(m.Tread(1, 0, 9), m.Tclunk(1), conn=1),
    ],
    "large-write": [
        create(1, b"a"),
        *write(1, 0, 3 * BLOCK),
        *write(1, BLOCK // 2, 3 * BLOCK),
        ask(m.Tread(1, 0, MIB), m.Tread(1, 100, 40000)),
        *write(1, 0, 4 * BLOCK)[:1],
        Step(Op.FILL, 0, 5000),
        Step(Op.CLOSE),
    ],
    "large-write-in-parts": [
        create(1, b"a"),
        feed(m.Twrite.head(3, 1, 77, 4 * BLOCK)),
        *(Step(Op.FILL, 0, count) for count in (1, 4096, 8000, 4287)),
        ask(m.Tread(1, 0, MIB)),
    ],
    "large-write-refused": [*write(9, 0, 4 * BLOCK), ask(m.Tstatfs(0))],
    "swap": [
        *swapped(),
        ask(m.Tread(1, 0, 100), m.Tread(1, 3 * BLOCK, BLOCK), m.Tread(1, 0, MIB)),
        Step(Op.RUN, number=35),
        SETTLE,
        *write(1, 5 * BLOCK + 5, 3 * BLOCK),
        SETTLE,
        ask(setattr_of(1, c.SETATTR_SIZE, 2 * BLOCK + 9), m.Tread(1, 0, MIB)),
        SETTLE,
    ],
    "swap-cached": [
        *swapped(),
        *(ask(m.Tread(1, n * BLOCK, BLOCK))._replace(cached=True) for n in range(8)),
        ask(m.Twrite(1, 9 * BLOCK + 1, b"part"))._replace(cached=True),
        SETTLE,
    ],
    "swap-flushed": [
        *swapped(),
        feed(m.Tread(1, 0, MIB).frame(5) + m.Tflush(5).frame(6) + m.Tflush(6).frame(7)),
        SETTLE,
        feed(m.Tread(1, 0, MIB).frame(5) + m.Tclunk(1).frame(6) + m.Tversion(0, b"").frame(1)),
        Step(Op.RUN, number=33),
        begun(0),
    ],
    "swap-truncated-and-deleted-meanwhile": [
        *swapped(),
        ask(m.Tread(1, 0, MIB), setattr_of(1, c.SETATTR_SIZE, 100), m.Tunlinkat(0, b"a", 0)),
        Step(Op.RUN, number=35),
        ask(m.Tclunk(1)),
        SETTLE,
    ],
    "more-than-there-is": [
        create(1, b"a"),
        *itertools.chain(*(write(1, n * MIB, 15 * BLOCK) for n in range(4))),
        SETTLE,
        *write(1, 4 * MIB, 15 * BLOCK),
        SETTLE,
        ask(m.Tread(1, 0, MIB), m.Tread(1, 2 * MIB, MIB)),
        SETTLE,
        create(2, b"b"),
        ask(m.Twrite(2, 0, b"no space?"), m.Tremove(1), m.Tremove(2)),
    ],
    "read-only": [
        create(1, b"a"),
        ask(m.Tmkdir(0, b"b", 0o755, 0), m.Tclunk(1), attach(4, b"ro"), *CHANGES),
    ],
    "checked": [
        create(1, b"a"),
        ask(m.Tmkdir(0, b"b", 0o755, 0), m.Tclunk(1), attach(4, b"checked"), *CHANGES),
    ],
    "fixed": [
        ask(attach(4, b"fixed"), *CHANGES),
        begun(0, b"fixed"),
        ask(m.Tlopen(0, c.O_RDONLY), m.Treaddir(0, 0, 4096), m.Twalk(0, 1, [b"c"])),
        ask(m.Txattrwalk(1, 6, b"user.a"), m.Txattrwalk(1, 7, b""), m.Tread(6, 0, 100)),
        ask(m.Tlopen(1, c.O_RDONLY), m.Tread(1, 0, 4096), m.Twalk(0, 2, [b"d", b"a"])),
        ask(m.Treadlink(2), m.Twalk(0, 3, [b"d"]), m.Tlopen(3, c.O_RDONLY)),
    ],
    "another-user": [
        create(1, b"a"),
        ask(m.Tmkdir(0, b"b", 0o755, 0)),
        begun(3),
        ask(m.Twalk(0, 4, []), *CHANGES, conn=3),
        ask(attach(5, b"", 0), m.Tlcreate(0, b"c", c.O_RDWR, 0o600, 0), conn=3),
        ask(attach(4, b"checked", 3), m.Tattach(5, c.NOFID, b"root", b"", c.NONUNAME), conn=3),
        ask(m.Twrite(0, 0, b"mine"), setattr_of(0, 0x1FF, 2), m.Tremove(0), conn=3),
    ],
    "tight-limits": [
        begun(1),
        ask(*(m.Twalk(0, fid, []) for fid in range(1, 8)), conn=1),
        ask(m.Tclunk(4), m.Tlcreate(1, b"a", c.O_RDWR, 0o644, 0), conn=1),
        ask(*(m.Tlock(1, 1, 0, at, 1, 1, b"one") for at in (0, 2, 4, 2)), conn=1),
        ask(m.Tlock(1, c.LOCK_TYPE_UNLCK, 0, 0, 3, 1, b"one"), conn=1),
        ask(m.Txattrcreate(2, b"user.a", 60, 0), m.Txattrcreate(3, b"user.b", 60, 0), conn=1),
        *write(1, 0, 10 * BLOCK, conn=1),
        SETTLE,
        PAGE_OUT,
        SETTLE,
        ask(*(m.Tread(1, at * BLOCK, BLOCK) for at in range(4)), conn=1),
        ask(*(m.Tmkdir(0, name, 0o755, 0) for name in (b"b", b"c")), conn=1),
        ask(m.Twalk(0, 5, [b"b"]), m.Tmkdir(5, b"b", 0o755, 0), m.Twalk(5, 5, [b"b"]), conn=1),
        ask(m.Tmkdir(5, b"b", 0o755, 0), m.Twalk(5, 5, [b"b"]), m.Tmkdir(5, b"b", 0, 0), conn=1),
    ],
    "export-removed": [
        EXPORT,
        begun(0, b"more"),
        *swapped(),
        ask(m.Twalk(0, 4, []), m.Txattrcreate(4, b"user.a", 9, 0), lock(c.LOCK_TYPE_WRLCK, 1)),
        feed(WAIT.frame(30) + m.Tread(1, 0, MIB).frame(31)),
        EXPORT,
        Step(Op.RUN, number=35),
        ask(m.Tread(1, 0, 9), m.Twrite(4, 0, b"value"), m.Tstatfs(0), attach(5, b"more")),
        SETTLE,
        EXPORT,
        ask(m.Tclunk(0), m.Tclunk(4), attach(0, b"more"), m.Tmkdir(0, b"a", 0o755, 0)),
    ],
    "export-removed-during-a-large-write": [
        EXPORT,
        begun(0, b"more"),
        create(1, b"a"),
        *write(1, 0, 10 * BLOCK)[:1],
        Step(Op.FILL, 0, 5000),
        EXPORT,
        SETTLE,
        Step(Op.FILL, 0, 10 * BLOCK // GRAIN),
        ask(m.Tread(1, 0, 9)),
    ],
    "plain": [
        begun(0, version=c.VERSION_PLAIN),
        ask(m.Twalk(0, 1, []), legacy.Tcreate(1, b"a", 0o644, c.ORDWR), m.Twrite(1, 0, b"data")),
        ask(m.Tread(1, 0, 9), legacy.Tstat(1), legacy.Twstat(1, stat(name=b"b", length=2))),
        ask(m.Twalk(0, 4, []), legacy.Tcreate(4, b"d", c.DMDIR | 0o755, c.OREAD), m.Tclunk(4)),
        ask(m.Twalk(0, 4, []), legacy.Topen(4, c.OREAD), m.Tread(4, 0, 60), m.Tread(4, 0, 9000)),
        ask(m.Tread(4, 120, 9000), m.Tread(4, 7, 9000), legacy.Topen(0, c.ORDWR)),
        ask(m.Twalk(0, 2, [b"b"]), legacy.Topen(2, c.ORDWR | c.ORCLOSE), m.Tclunk(2)),
        *write(1, 0, 3 * BLOCK),
        ask(m.Tread(1, 0, MIB), m.Tremove(1), m.Tstatfs(0), legacy.TauthPlain(3, b"root", b"")),
        ask(m.Twalk(0, 2, []), legacy.Tcreate(2, b"c", 0o600, c.ORCLOSE)),
        Step(Op.CLOSE),
    ],
    "unix": [
        begun(0, version=c.VERSION_UNIX),
        ask(m.Twalk(0, 1, []), create_unix(1, b"a", 0o644), legacy.Tstat(1)),
        *(
            ask(m.Twalk(0, 4, []), create_unix(4, b"b", perm, extension), legacy.Tstat(4))
            for perm, extension in (
                *((c.DMSYMLINK, b"a"), (c.DMLINK, b"1\n"), (c.DMDEVICE, b"c 1 3")),
                *((c.DMNAMEDPIPE | 0o600, b""), (c.DMSOCKET | 0o600, b"")),
            )
            for _ in range(2)
        ),
        ask(legacy.Topen(0, c.OREAD), m.Tread(0, 0, 9000)),
        ask(legacy.Twstat(1, stat_unix(mode=0o600 | c.DMSETUID, n_uid=1, n_gid=1, name=b"b"))),
        ask(m.Twalk(0, 2, [b"b"]), legacy.Topen(2, c.ORDWR | c.OAPPEND), m.Twrite(2, 0, b"x")),
        ask(legacy.Twstat(1, b"\5\0short")),
    ],
    "unix-swapped": [
        *swapped(),
        begun(0, version=c.VERSION_UNIX),
        ask(m.Twalk(0, 1, [b"a"]), legacy.Twstat(1, stat_unix(length=BLOCK + 9, name=b"b"))),
        SETTLE,
        ask(legacy.Topen(1, c.ORDWR | c.ORCLOSE), m.Tread(1, 0, MIB)),
        SETTLE,
        ask(m.Tclunk(1), legacy.Tstat(0)),
    ],
    "versions": [
        ask(m.Tversion(8192, b"9P2000")),
        ask(m.Tstatfs(0)),
        ask(m.Tversion(100, c.VERSION)),
        ask(m.Tversion(4096, c.VERSION)),
        ask(m.Tauth(1, b"root", b"", 0), m.Tattach(0, 1, b"", b"", 0)),
        ask(m.Tattach(0, c.NOFID, b"root", b"nowhere", c.NONUNAME)),
        ask(m.Tattach(0, c.NOFID, b"root", b"/", c.NONUNAME), m.Tread(0, 0, MIB)),
    ],
    "no-frames": [
        feed(m.Tclunk(1).frame(1)[:-1]),
        feed(b"\0"),
        feed(m.Tread(1, 0, 1).frame(1)[:9] + b"\xff" * 9),
        begun(0),
        feed(bytes(7)),
    ],
    "machine": [
        *plugged(0),
        *ask_in_turn(*FILE, m.Tread(1, 0, 4096), m.Tflush(9), m.Tclunk(1)),
        *ask_in_turn(m.Twalk(0, 1, [b"a"]), m.Tremove(1), conn=0, layout=0b10110),
        *plugged(1, STARTED | BY_INDEX),
        *ask_in_turn(*FILE, m.Tversion(8192, c.VERSION_PLAIN), conn=1, layout=0b01011),
    ],
    "machine-swapped": [
        *swapped(),
        *plugged(0),
        *ask_in_turn(m.Twalk(0, 1, [b"a"]), m.Tlopen(1, c.O_RDWR)),
        *(machine_ask(0, m.Tread(1, place * BLOCK, BLOCK).frame(place)) for place in range(3)),
        Step(Op.RUN, number=3),
        machine_ask(0, m.Tflush(1).frame(9)),
        SETTLE,
        machine_ask(0, m.Twrite.head(1, 1, 5, 10 * BLOCK), 0b11101),
        SETTLE,
        *ask_in_turn(lock(1, 1), lock(1, 2, 1), m.Tversion(MIB, c.VERSION)),
    ],
    "machine-paused": [
        *plugged(0),
        *ask_in_turn(*FILE, lock(1, 1)),
        machine_ask(0, lock(1, 2, 1).frame(5)),
        SETTLE,
        *(say(0, *SAID[kind]) for kind in VMM["stop"]),
        SETTLE,
        *(say(0, *SAID[kind]) for kind in VMM["go on"]),
        machine_ask(0, m.Tversion(MIB, c.VERSION).frame(c.NOTAG)),
        SETTLE,
        *(say(0, *SAID[kind]) for kind in VMM["ask"]),
    ],
    "machine-hostile": [
        *plugged(0),
        Step(Op.OFFER, 0, 128),
        SETTLE,
        *plugged(0),
        poke(0, DESCRIPTORS, pack("<QIHH", GUEST + BUFFERS, 1, NEXT, 0)),
        Step(Op.OFFER, 0, 0),
        SETTLE,
        *plugged(0, STARTED | BY_INDEX),
        poke(0, AVAILABLE + 2, b"\xff\xff"),
        Step(Op.KICK),
        SETTLE,
        Step(Op.PLUG, 1),
        say(1, *SAID[0], flags=5),
        SETTLE,
        *plugged(1),
        Step(Op.SAY, 1, 4, bytes((OWN_END, 1, 0, 0))),
        SETTLE,
    ],
}


def corpus() -> dict[str, bytes]:
    """The inputs by name."""
    return {name: encode([begun(0), *steps]) for name, steps in SEEDS.items()}


if __name__ == "__main__":
    for name, data in corpus().items():
        (CORPUS / name).write_bytes(data)
