"""Grammar: steps that make sense, made at random or from others by small changes.

Rules of this file:

* Messages come from their declarations; what a field may be follows from its name, else from its
  kind.  There are few fids, tags and names, so that requests meet each other: 0 is mostly the root,
  1 to 3 are mostly open files, 4 and 5 are other places, 6 and 7 attributes.
* What a VMM says is mostly what it may say, with one number that is another; where its guest writes
  is mostly the queue.
* All that is at random comes from one generator, so a seed tells what is made.
"""

from collections.abc import Callable
from random import Random
from struct import pack
from typing import Any

from server.wire import constants as c
from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import HEADER, Message
from server.wire.own import OWN, Tcreateplus, Treaddirplus
from tests.server.strategies import kinds
from tests.server.vhost import frontend as f
from tmpfs_core.frames import BLOCK, FRAME

from .machine import BY_INDEX, SLOTS, STARTED, VERSION
from .steps import CONNECTIONS, GRAIN, USERS, WITH_DATA, Op, Step, decode, encode, feed

FILES, PLACES, ATTRIBUTES = (1, 2, 3), (4, 5), (6, 7)
NAMES = (b"a", b"b", b"c", b"d", b"..", b".", b"", b"a/b", b"n\0", b"x" * 255, b"x" * 256)
XATTRS = (b"user.a", b"user.b", b"trusted.a", b"system.posix_acl_access", b"user.", b"other.a")
EDGES = (0, 1, FRAME - 1, FRAME, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 15 * BLOCK, 1 << 20)
LAST = (1 << 63) - 1
OPEN = (c.O_RDWR, c.O_RDWR, c.O_RDONLY, c.O_WRONLY, c.O_RDWR | c.O_TRUNC, c.O_RDWR | c.O_APPEND)
OPEN_ALSO = (c.O_DIRECTORY, c.O_RDWR | c.O_CREAT | c.O_EXCL, c.O_ACCMODE)
MODES = (0o644, 0o100644, 0o40755, 0o10644, 0o20644, 0o60644, 0o140644, 0o120777, 0o7777)
DM = tuple(1 << bit for bit in range(16, 32))
OLD_OPEN = (
    *(
        c.OREAD,
        c.OREAD,
        c.ORDWR,
        c.ORDWR,
        c.OWRITE,
        c.OEXEC,
        c.ORDWR | c.OTRUNC,
        c.OREAD | c.OTRUNC,
    ),
    *(c.ORDWR | c.ORCLOSE, c.ORDWR | c.OAPPEND, c.OCEXEC, 8),
)
SETATTR = tuple(1 << bit for bit in range(10))

#: The requests of each dialect.
REQUESTS = [
    [cls for cls in messages.values() if cls.__name__.startswith("T")]
    for messages in (OWN, legacy.PLAIN, legacy.UNIX)
]
#: How often each dialect is spoken.
SPOKEN = (6, 2, 2)
#: How often each request is made.
WEIGHTS = {m.Tversion: 1, m.Tattach: 5, m.Tclunk: 10, m.Tremove: 10, m.Tread: 90, m.Twrite: 90}

Choice = Callable[[Random], Any]


def _offset(dice: Random) -> int:
    pick = dice.random()
    if pick < 0.5:
        return dice.choice(EDGES)
    if pick < 0.95:
        return dice.randrange(40 * BLOCK)
    return dice.choice((LAST, LAST - 1, LAST + 1, 2 * LAST + 1))


def _of(*choices: Any) -> Choice:
    return lambda dice: dice.choice(choices)


def _mostly(*choices: int) -> Choice:
    """One of these fids, in one of ten cases any."""
    anything = _of(*range(8), c.NOFID)
    return lambda dice: dice.choice(choices) if dice.random() < 0.9 else anything(dice)


def _name(dice: Random) -> bytes:
    return NAMES[min(int(dice.expovariate(0.6)), len(NAMES) - 1)]


def _stat(dice: Random) -> bytes:
    """For a Twstat: some of it is to change, mostly."""

    def keep(value: int, *choices: int) -> int:
        return dice.choice(choices) if dice.random() < 0.2 else value

    def word(*choices: bytes) -> bytes:
        return dice.choice(choices) if dice.random() < 0.2 else b""

    fields = (
        *(0, 0, (0, 1, 2), keep(c.KEEP32, 0o600, 0o7777, c.DMDIR | 0o700, *DM)),
        *(keep(c.KEEP32, 0, 1), keep(c.KEEP32, 0, 1), keep(c.KEEP64, *EDGES, LAST, LAST + 1)),
        *(_name(dice) if dice.random() < 0.3 else b"", word(b"root", b"7"), word(b"root", b"x")),
    )
    if dice.random() < 0.5:
        return legacy.Stat.pack(*fields, b"")
    ids = (keep(c.KEEP32, *USERS), keep(c.KEEP32, 0, 1), c.KEEP32)
    made = legacy.StatUnix.pack(*fields, b"", b"", *ids)
    return made[: dice.randrange(len(made))] if dice.random() < 0.02 else made


BY_NAME: dict[str, Choice] = {
    **dict.fromkeys(("dfid", "olddirfid", "newdirfid", "dirfid"), _mostly(0, *PLACES)),
    "fid": _mostly(*FILES, *FILES, *PLACES),
    "newfid": _mostly(*PLACES),
    **dict.fromkeys(("offset", "start", "length", "size", "attr_size"), _offset),
    **dict.fromkeys(("name", "oldname", "newname", "target"), _name),
    **dict.fromkeys(("atime_nsec", "mtime_nsec"), _of(0, 1, 10**9 - 1, 10**9)),
    **dict.fromkeys(("atime_sec", "mtime_sec"), _of(0, 1, -1, LAST, -LAST - 1)),
    "afid": _of(c.NOFID),
    "aname": _of(b"", b"/", b"ro", b"checked", b"fixed", b"more", b"/more", b"nowhere"),
    "client_id": _of(b"one", b"two"),
    "count": lambda dice: dice.choice((*EDGES, c.NOFID)),
    "data": lambda dice: dice.randbytes(dice.choice((0, 1, 7, 60))),
    "flags": _of(*OPEN, *OPEN_ALSO),
    "gid": _of(0, 1, c.NOFID),
    "mode": _of(*MODES),
    "msize": _of(1 << 20, 1 << 20, 65536, 8192, 4096, 0),
    "n_uname": _of(*USERS, c.NONUNAME),
    "oldtag": lambda dice: dice.randrange(8),
    "proc_id": _of(1, 2),
    "valid": lambda dice: dice.choice((dice.choice(SETATTR), c.SETATTR_SIZE, dice.getrandbits(10))),
    "perm": _of(0o644, 0o644, 0o7777, c.DMDIR | 0o755, *DM),
    "stat": _stat,
    "extension": _of(b"", b"1", b"2\n", b"c 1 3", b"b 8", b"a", b"\xff"),
    "version": _of(c.VERSION, c.VERSION_OWN, c.VERSION_UNIX, c.VERSION_PLAIN, b"9P2000.x", b""),
    "wnames": lambda dice: [_name(dice) for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 17)))],
}
#: Where a field of a message is another thing than its name tells of others.
SPECIAL: dict[type[Message], dict[str, Choice]] = {
    m.Tlock: {"type": _of(0, 1, 1, 2, 3), "flags": _of(0, 1, 1)},
    m.Tgetlock: {"type": _of(0, 1, 2, 3)},
    m.Tunlinkat: {"flags": _of(0, 0, c.AT_REMOVEDIR, 1)},
    m.Txattrcreate: {
        "name": _of(*XATTRS),
        "flags": _of(0, 0, 1, 2, 3),
        "attr_size": _of(0, 1, 7, 60, 65536, 65537),
        "fid": _mostly(*PLACES),
    },
    m.Txattrwalk: {"name": _of(b"", *XATTRS), "newfid": _mostly(*ATTRIBUTES)},
    m.Tread: {"fid": _mostly(*FILES, *FILES, *FILES, *PLACES, *ATTRIBUTES)},
    m.Twrite: {"fid": _mostly(*FILES, *FILES, *FILES, *PLACES)},
    m.Tattach: {"fid": _mostly(0, *PLACES)},
    m.Twalk: {"fid": _mostly(0, 0, *FILES, *PLACES)},
    m.Tstatfs: {"fid": _mostly(0)},
    Treaddirplus: {"fid": _mostly(0), "offset": _of(0, 2, 3, 7)},
    Tcreateplus: {"fid": _mostly(0), "newfid": _mostly(*FILES, *PLACES)},
    legacy.Topen: {"mode": _of(*OLD_OPEN)},
    legacy.Tcreate: {"mode": _of(*OLD_OPEN), "fid": _mostly(*PLACES)},
    legacy.TcreateUnix: {"mode": _of(*OLD_OPEN), "fid": _mostly(*PLACES)},
    legacy.TattachPlain: {"fid": _mostly(0, *PLACES)},
}
BY_CODE: dict[str, Choice] = {
    "B": lambda dice: dice.getrandbits(8),
    "I": lambda dice: dice.choice((0, 1, 2, dice.getrandbits(32))),
    "Q": lambda dice: dice.choice((0, 1, 2, dice.getrandbits(64))),
    "": _name,
}


def message(dice: Random) -> Message:
    """Any request."""
    (requests,) = dice.choices(REQUESTS, SPOKEN)
    (cls,) = dice.choices(requests, [WEIGHTS.get(cls, 20) for cls in requests])
    values = {}
    for name, kind in kinds(cls).items():
        choice = SPECIAL.get(cls, {}).get(name) or BY_NAME.get(name) or BY_CODE[kind.code]
        values[name] = choice(dice)
    return cls(**values)


def frames(dice: Random) -> bytes:
    """Some requests."""
    count = dice.choice((1, 1, 1, 2, 4, 12))
    return b"".join(message(dice).frame(dice.randrange(8)) for _ in range(count))


def begun(conn: int, aname: bytes = b"", version: bytes = c.VERSION) -> Step:
    """A new session, with fid 0 as the root of an export."""
    attach: Message = m.Tattach(0, c.NOFID, b"", aname, USERS[conn])
    if version == c.VERSION_PLAIN:
        attach = legacy.TattachPlain(0, c.NOFID, b"root", aname)
    return feed(m.Tversion(1 << 20, version).frame(c.NOTAG) + attach.frame(1), conn)


def _begun(dice: Random, conn: int) -> Step:
    versions = (c.VERSION_OWN, c.VERSION_PLAIN, c.VERSION_UNIX)
    return begun(conn, BY_NAME["aname"](dice), *dice.choices(versions, SPOKEN))


def opened(dice: Random, conn: int) -> Step:
    """A file is made, or opened if it is there (in 9P2000.L)."""
    fid = dice.choice(FILES)
    name = _name(dice)
    (create,) = dice.choices(
        (
            m.Tlcreate(fid, name, dice.choice(OPEN), 0o644, 0),
            legacy.Tcreate(fid, name, 0o644, dice.choice(OLD_OPEN)),
            legacy.TcreateUnix(fid, name, 0o644, dice.choice(OLD_OPEN), b""),
        ),
        SPOKEN,
    )
    return feed(m.Tclunk(fid).frame(1) + m.Twalk(0, fid, []).frame(2) + create.frame(3), conn)


def large_write(dice: Random, conn: int) -> list[Step]:
    """A write of which only the head stands in the input; perhaps it never ends."""
    count = dice.choice((BLOCK, 3 * BLOCK, 10 * BLOCK, (1 << 20) - 4096, 150_000)) // GRAIN
    fid = _mostly(*FILES)(dice)
    head = m.Twrite.head(dice.randrange(8), fid, _offset(dice), count * GRAIN)
    first = dice.randrange(count)
    parts = dice.choice(((count,), (first, count - first), (first,)))
    return [feed(head, conn), *(Step(Op.FILL, conn, part) for part in parts)]


# Virtual machines

#: Descriptors that come with a message, by their places in what a machine has (see machine.py).
NO_FD, MEMORY, KICK, CALL, OWN_END = 0, 1, 2, 3, 6
#: Numbers in messages that may be wrong.
WRONG = (0, 1, 0x100, 0x1000, f.GUEST, f.USER, f.MEMORY, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
PLACE = (f.GUEST, f.MEMORY, f.USER, 0)
RINGS = (f.USER + f.DESCRIPTORS, f.USER + f.USED, f.USER + f.AVAILABLE)
#: What a VMM says: request, layout of the payload, its fields, descriptors.
SAID: list[tuple[int, str, tuple[int, ...], int]] = [
    *((request, "", (), NO_FD) for request in (f.GET_FEATURES, f.SET_OWNER, f.GET_QUEUE_NUM, 4)),
    *((request, "", (), NO_FD) for request in (f.GET_PROTOCOL_FEATURES, f.GET_MAX_MEM_SLOTS, 99)),
    (f.SET_FEATURES, "Q", (f.FEATURES,), NO_FD),
    (f.SET_FEATURES, "Q", (f.FEATURES | f.EVENT_IDX,), NO_FD),
    (f.SET_PROTOCOL_FEATURES, "Q", (f.REPLY_ACK | f.CONFIG,), NO_FD),
    (f.SET_MEM_TABLE, "IIQQQQ", (1, 0, *PLACE), MEMORY),
    (f.ADD_MEM_REG, "QQQQQ", (0, *PLACE), MEMORY),
    (f.ADD_MEM_REG, "QQQQQ", (0, 0, 4096, 0, 4096), MEMORY),
    (f.REM_MEM_REG, "QQQQQ", (0, *PLACE), NO_FD),
    (f.REM_MEM_REG, "QQQQQ", (0, 0, 4096, 0, 4096), NO_FD),
    (f.SET_VRING_NUM, "II", (0, f.SIZE), NO_FD),
    (f.SET_VRING_BASE, "II", (0, 0), NO_FD),
    (f.GET_VRING_BASE, "II", (0, 0), NO_FD),
    (f.SET_VRING_ENABLE, "II", (0, 0), NO_FD),
    (f.SET_VRING_ENABLE, "II", (0, 1), NO_FD),
    (f.SET_VRING_ADDR, "IIQQQQ", (0, 0, *RINGS, 0), NO_FD),
    (f.SET_VRING_KICK, "Q", (0,), KICK),
    (f.SET_VRING_CALL, "Q", (0,), CALL),
    (f.SET_VRING_ERR, "Q", (0x100,), NO_FD),
    (f.GET_CONFIG, "IIIQ", (0, 8, 0, 0), NO_FD),
    (f.SET_CONFIG, "IIIQ", (0, 8, 0, 0), NO_FD),
]


def say(
    conn: int, request: int, layout: str, fields: tuple[int, ...], fds: int, flags: int = 1
) -> Step:
    """A message of a VMM."""
    payload = pack("=" + layout, *fields)
    data = bytes([fds]) + pack("=III", request, flags, len(payload)) + payload
    return Step(Op.SAY, conn, len(data), data)


def poke(conn: int, at: int, data: bytes) -> Step:
    """What a guest writes."""
    data = at.to_bytes(4, "little") + data
    return Step(Op.POKE, conn, len(data), data)


def ask(conn: int, frame: bytes, layout: int = 0) -> Step:
    """A request of a guest."""
    data = bytes([layout]) + frame
    return Step(Op.ASK, conn, len(data), data)


def plugged(conn: int, how: int = STARTED, aname: bytes = b"") -> list[Step]:
    """A machine that has just mounted."""
    attach = m.Tattach(0, c.NOFID, b"", aname, 0).frame(1)
    version = Step(Op.ASK, conn, len(VERSION), VERSION)
    return [Step(Op.PLUG, conn, how), version, ask(conn, attach), Step(Op.SETTLE)]


def _said(dice: Random, conn: int) -> Step:
    request, layout, fields, fds = dice.choice(SAID)
    if fields and dice.random() < 0.3:
        wrong = list(fields)
        place = dice.randrange(len(wrong))
        wrong[place] = dice.choice(WRONG) & (0xFFFFFFFF if layout[place] == "I" else LAST * 2 + 1)
        fields = tuple(wrong)
    if dice.random() < 0.1:
        fds = dice.randrange(8)
    return say(conn, request, layout, fields, fds, dice.choice((1, 1, 1, 9, dice.randrange(16))))


def _poked(dice: Random, conn: int) -> Step:
    descriptor = dice.choice((0, 1, dice.randrange(f.SIZE)))
    address = f.GUEST + dice.choice((f.BUFFERS, f.DESCRIPTORS, f.TABLES, f.USED, f.MEMORY - 8, -1))
    length = dice.choice((0, 1, 7, 16, 64, 4096, 1 << 20, (1 << 32) - 1))
    data = pack("<QIHH", address, length, dice.randrange(8), dice.choice((0, 1, descriptor, 128)))
    places = {
        f.DESCRIPTORS + 16 * descriptor: data,
        f.TABLES + 16 * (descriptor % 4): data * dice.choice((1, 2, 40)),
        f.AVAILABLE: dice.randbytes(2),
        f.AVAILABLE + 2: dice.randbytes(2),
        f.AVAILABLE + 4: pack("<H", dice.choice((0, 32, 64, f.SIZE, 0xFFFF))) * f.SIZE,
        f.USED: dice.randbytes(4),
        f.BUFFERS + dice.randrange(64): dice.randbytes(4),
    }
    return poke(conn, *dice.choice(list(places.items())))


def machine_steps(dice: Random) -> list[Step]:
    """A few steps of a virtual machine that go together."""
    conn = dice.randrange(2)
    layout = dice.choice((0, dice.getrandbits(5)))
    pick = dice.random()
    if pick < 0.45:
        count = dice.randrange(1, SLOTS + 1)
        asked = [ask(conn, message(dice).frame(dice.randrange(8)), layout) for _ in range(count)]
        return [*asked, Step(dice.choice((Op.RUN, Op.SETTLE)), number=dice.randrange(64))]
    if pick < 0.55:
        fid = dice.choice(FILES)
        create = m.Tlcreate(fid, _name(dice), dice.choice(OPEN), 0o644, 0)
        frames = (m.Tclunk(fid).frame(1), m.Twalk(0, fid, []).frame(2), create.frame(3))
        return [*(ask(conn, frame) for frame in frames), Step(Op.SETTLE)]
    if pick < 0.67:
        count = dice.choice((BLOCK, 3 * BLOCK, 10 * BLOCK, 150_000, 5000))
        head = m.Twrite.head(dice.randrange(8), _mostly(*FILES)(dice), _offset(dice), count)
        return [ask(conn, head, layout), Step(dice.choice((Op.RUN, Op.SETTLE)), number=20)]
    if pick < 0.75:
        how = dice.choice((0, STARTED, STARTED | BY_INDEX))
        return plugged(conn, how, BY_NAME["aname"](dice))
    if pick < 0.85:
        return [_said(dice, conn) for _ in range(dice.choice((1, 1, 2, 5)))]
    if pick < 0.92:
        return [_poked(dice, conn), Step(Op.OFFER, conn, dice.choice((0, 0, 1, 32, f.SIZE)))]
    if pick < 0.97:
        return [Step(Op.OFFER, conn, dice.choice((0, 0, 1, 32, f.SIZE, 0xFFFF)))]
    return [Step(Op.KICK, conn), Step(Op.RUN, number=dice.randrange(8))]


# All of it


def steps(dice: Random) -> list[Step]:
    """A few steps that go together."""
    if dice.random() < 0.25:
        return machine_steps(dice)
    conn = dice.randrange(CONNECTIONS)
    cached = dice.random() < 0.5
    turns = dice.randrange(64)
    pick = dice.random()
    if pick < 0.55:
        return [feed(frames(dice), conn)._replace(cached=cached)]
    if pick < 0.65:
        return [opened(dice, conn)]
    if pick < 0.78:
        return large_write(dice, conn)
    if pick < 0.82:
        return [_begun(dice, conn)]
    if pick < 0.84:
        return [Step(Op.CLOSE, conn), _begun(dice, conn)]
    if pick < 0.85:
        return [Step(Op.EXPORT)]
    if pick < 0.87:
        return [Step(Op.PAGE_OUT), Step(Op.SETTLE)]
    return [
        Step(dice.choice((Op.RUN, Op.RUN, Op.SETTLE, Op.PAGE_OUT)), number=turns, cached=cached)
    ]


def _retagged(dice: Random, step: Step) -> list[Step]:
    """Another tag for the first of its messages."""
    data = bytearray(step.data)
    at = 5 + (step.op is Op.ASK)
    if len(data) >= HEADER.size:
        data[at : at + 2] = dice.randrange(8).to_bytes(2, "little")
    return [step._replace(data=bytes(data))]


def _cut(dice: Random, step: Step) -> list[Step]:
    """Its bytes come in two parts."""
    at = dice.randrange(len(step.data) + 1)
    return [step._replace(data=step.data[:at]), step._replace(data=step.data[at:])]


def _flipped(dice: Random, step: Step) -> list[Step]:
    """A byte that is another."""
    data = bytearray(step.data or b"\0")
    data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0xFF, dice.getrandbits(8)))
    return [step._replace(data=bytes(data))]


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """An input like ``data``, of at most ``max_size`` bytes."""
    dice = Random(seed)
    made = list(decode(data))
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(made) + 1)
        here = made[at : at + 1]
        pick = dice.random()
        if pick < 0.55 or not here:
            made[at:at] = steps(dice)
        elif pick < 0.65:
            made[at : at + dice.choice((1, 1, 4))] = []
        elif pick < 0.72:
            made[at:at] = here
        elif pick < 0.78:
            made.insert(dice.randrange(len(made)), made.pop(at))
        elif pick < 0.84:
            made[at] = here[0]._replace(
                conn=dice.randrange(CONNECTIONS), cached=dice.random() < 0.5
            )
        elif here[0].op in WITH_DATA:
            made[at : at + 1] = dice.choice((_retagged, _cut, _flipped))(dice, here[0])
    while len(result := encode(made)) > max_size:
        del made[dice.randrange(len(made))]
    return result
