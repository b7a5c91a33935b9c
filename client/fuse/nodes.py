"""Nodes: the files that the kernel knows, and where they are on the server.

Rules of this file:

* A node has a fid when one was needed; on a new connection it is walked to again by its name, and
  is the same only if number and generation are, else ESTALE.
* A file without a name (it was unlinked) is what is open of it.
* Nodes that the kernel has forgotten, or was never told of, are let go.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ..attributes import SECOND, Stat
from ..chain import enter, enter_all, open_copy
from ..file import File
from ..filesystem import FileSystem
from ..readahead import Reader
from ..session import ROOT as ROOT_FID
from ..session import Session
from .protocol import ROOT

T = TypeVar("T")


class Known(NamedTuple):
    """What was found under a name, a moment ago; ``plain``: it has no extended attributes."""

    node: "Node"
    found: Stat
    plain: bool


@dataclass(slots=True, eq=False)
class Look:
    """A look at a directory that goes on.

    Attributes:
        changes: names that have changed since it began.
        distrusted: whether any may have, unseen.
    """

    changes: set[bytes] = field(default_factory=set)
    distrusted: bool = False


@dataclass(slots=True)
class Listing:
    """What is known to be in a directory.

    Attributes:
        known: by name; None if there may be something else now.
        whole: until this time, there is nothing but these names.
        looking: the looks at it that go on.
        hits, misses: how many names were asked for that were not known, and were there, or not.
        ahead: what is in it, if that was asked for before somebody has begun to read it.
        walked: how many directories in it were read since it was.
        next: those of them that will be, if somebody goes through all.
    """

    known: dict[bytes, Known | None] = field(default_factory=dict)
    whole: float = 0.0
    looking: list[Look] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    ahead: asyncio.Task[list[bytes]] | None = None
    walked: int = 0
    next: Iterator["Node"] = field(default_factory=lambda: iter(()))


class Write:
    """One that is on its way, of bytes ``start`` to ``stop``; ``task`` does it the long way."""

    __slots__ = ("start", "stop", "task")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.task: asyncio.Task[None] | None = None


class Use:
    """What is done with a file that somebody has opened.

    Attributes:
        handles: what is open of it.
        writes: those that are not done.
        ending: those who wait for any of them; ``settling``: for the last.
        locks: who has locks: the owner for the kernel, and the one for the server.
    """

    __slots__ = ("ending", "handles", "locks", "settling", "writes")

    def __init__(self) -> None:
        self.handles: set[Handle] = set()
        self.writes: set[Write] = set()
        self.ending: list[Callable[[], None]] = []
        self.settling: list[Callable[[], None]] = []
        self.locks: dict[int, int] = {}


class Node:
    """A file that the kernel knows.

    Attributes:
        ino, gen: what identifies it.
        parent, name: where it is; of a file with several names, the last that was used.
        session, fid: what stands for it on a connection, if anything does.
        lookups: how often the kernel was told of it, less how often it has forgotten it.
        seen: size and time of modification when the server was last asked.
        mode: its type and permissions then.
        fresh: its attributes, and until when they may be taken for what they are.
        bare: until this time it has no capabilities.
    """

    __slots__ = (
        *("ino", "gen", "parent", "name", "session", "fid", "lookups", "seen", "mode", "fresh"),
        *("bare", "_listing", "_use"),
    )

    def __init__(self, ino: int, gen: int, parent: "Node | None", name: bytes | None) -> None:
        self.ino = ino
        self.gen = gen
        self.parent = parent
        self.name = name
        self.session: Session | None = None
        self.fid = 0
        self.lookups = 0
        self.seen = (-1, -1)
        self.mode = 0
        self.fresh: tuple[Stat, float] | None = None
        self.bare = 0.0
        self._listing: Listing | None = None
        self._use: Use | None = None

    # Most are neither listed nor opened.

    @property
    def listing(self) -> Listing:
        """Of a directory, what is known to be in it."""
        if self._listing is None:
            self._listing = Listing()
        return self._listing

    @property
    def is_listed(self) -> bool:
        """Whether anything may be known of what is in it."""
        return self._listing is not None

    @property
    def use(self) -> Use:
        """What is done with it."""
        if self._use is None:
            self._use = Use()
        return self._use

    @property
    def handles(self) -> Collection["Handle"]:
        """What is open of it."""
        return () if self._use is None else self._use.handles

    @property
    def is_plain(self) -> bool:
        """Whether it is known that it has no extended attributes."""
        if self.parent is None or self.name is None:
            return False
        one = self.parent.listing.known.get(self.name)
        return one is not None and one.node is self and one.plain

    @property
    def is_written(self) -> bool:
        """Whether there are writes that are not done."""
        return self._use is not None and bool(self._use.writes)

    @property
    def path(self) -> bytes:
        """Where it is.

        Raises:
            OSError: ESTALE, it was removed.
        """
        names = []
        node = self
        while node.parent is not None:
            if node.name is None:
                raise OSError(errno.ESTALE, "removed")
            names.append(node.name)
            node = node.parent
        return b"/" + b"/".join(reversed(names))


class Handle:
    """An open file; ``error`` is what has become of a write, until somebody is told."""

    __slots__ = ("error", "file", "node", "reader")

    def __init__(self, node: Node, file: File, reader: Reader) -> None:
        self.node = node
        self.file = file
        self.reader = reader
        self.error: OSError | None = None


class Nodes:
    """All that the kernel knows.

    Args:
        fs: the file system; ``session``: it, connected.
        top: attributes of its root.
    """

    def __init__(self, fs: FileSystem, session: Session, top: Stat) -> None:
        self.fs = fs
        self._top = top.st_ino
        self.root = Node(ROOT, top.st_gen, None, None)
        self.root.session, self.root.fid = session, ROOT_FID
        self._by_number: dict[int, Node] = {ROOT: self.root}
        self._by_name: dict[tuple[Node, bytes], Node] = {}

    def __getitem__(self, ino: int) -> Node:
        return self._by_number[ino]

    def _number(self, ino: int) -> int:
        """The number that a file has for the kernel, whose root has another than the server's."""
        if ino == self._top:
            return ROOT
        return self._top if ino == ROOT else ino

    # Requests

    async def on(self, node: Node, request: Callable[[Session, int], Awaitable[T]]) -> T:
        """The result of a request about a node's fid."""

        async def operation(session: Session) -> T:
            return await request(session, await self.fid(node, session))

        return await self.fs.do(b"", operation)

    async def call(self, node: Node, kind: Any, *fields: Any) -> Any:
        """The reply to a request about a node's fid."""
        return await self.on(node, lambda session, fid: session.call(kind, fid, *fields))

    async def once(self, node: Node, kind: Any, *fields: Any) -> Any:
        """The same, for what if it were done twice would not do the same."""
        return await self.on(node, lambda session, fid: session.once(kind, fid, *fields))

    # Fids

    async def fid(self, node: Node, session: Session) -> int:
        """The fid of a node on this connection.

        Raises:
            OSError: ESTALE, it is not where it was.
        """
        if node.session is session:
            return node.fid
        if node is self.root:
            node.session = session
            return node.fid
        if node.parent is None or node.name is None:
            for handle in node.handles:
                return await handle.file.fid_on(session)
            raise OSError(errno.ESTALE, "removed")
        directory = await self.fid(node.parent, session)
        try:
            fid, found = await enter(session, directory, node.name)
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ESTALE, "gone") from None
        self._require_same(node, session, fid, found)
        self._take(node, session, fid)
        return node.fid

    def _take(self, node: Node, session: Session, fid: int) -> None:
        """A fid for a node: it needs but one."""
        if node.session is session:
            session.clunk(fid)
        else:
            node.session, node.fid = session, fid

    async def opened(
        self, node: Node, session: Session, flags: int, ahead: int
    ) -> tuple[int, Stat, bytes | None]:
        """A fid that is open, as :func:`.open_copy` has it; it alone, if the node had none.

        Raises:
            OSError: ESTALE, it is not where it was.
        """
        start, names = node, []
        if node.session is not session and node.parent is not None and node.name is not None:
            start, names = node.parent, [node.name]
        try:
            fid, found, head = await open_copy(
                session, await self.fid(start, session), names, flags, ahead
            )
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ESTALE, "gone") from None
        self._require_same(node, session, fid, found)
        return fid, found, head

    def _require_same(self, node: Node, session: Session, fid: int, found: Stat) -> None:
        """Refuse (ESTALE) what was found instead of a node."""
        if (self._number(found.st_ino), found.st_gen) != (node.ino, node.gen):
            session.clunk(fid)
            raise OSError(errno.ESTALE, "another file")

    async def enter(self, session: Session, parent: Node, name: bytes) -> tuple[Node, Stat]:
        """The node of what has this name in a directory, and its attributes."""
        directory = await self.fid(parent, session)
        return self.entered(session, parent, name, *await enter(session, directory, name))

    async def enter_all(
        self, session: Session, parent: Node, names: Sequence[bytes]
    ) -> list[tuple[Node, Stat] | OSError]:
        """The same for several names; of what is refused, the error."""
        directory = await self.fid(parent, session)
        return [
            one if isinstance(one, OSError) else self.entered(session, parent, name, *one)
            for name, one in zip(names, await enter_all(session, directory, names), strict=True)
        ]

    def entered(
        self, session: Session, parent: Node, name: bytes, fid: int, found: Stat
    ) -> tuple[Node, Stat]:
        node = self.found(parent, name, found)
        self._take(node, session, fid)
        return node, found

    def found(self, parent: Node, name: bytes, found: Stat) -> Node:
        """The node of what has these attributes, and this name in a directory."""
        number = self._number(found.st_ino)
        node = self._by_number.get(number)
        if node is None or node.gen != found.st_gen:
            node = self._by_number[number] = Node(number, found.st_gen, parent, name)
        self.name(node, parent, name)
        return node

    # Names

    def name(self, node: Node, parent: Node, name: bytes) -> None:
        """A file has a name."""
        node.parent, node.name = parent, name
        self._by_name[parent, name] = node

    def named(self, parent: Node, name: bytes) -> Node:
        """The node that has this name."""
        return self._by_name[parent, name]

    def unname(self, parent: Node, name: bytes) -> Node | None:
        """A name is gone: the node that had it."""
        node = self._by_name.pop((parent, name), None)
        if node is not None and node.parent is parent and node.name == name:
            node.name = None
        return node

    def listed(self) -> list[Node]:
        """Those of which it may be known what is in them."""
        return [node for node in self._by_number.values() if node.is_listed]

    # Ends

    def forget(self, ino: int, times: int) -> None:
        """The kernel does not know what it was told so many times any more."""
        node = self._by_number.get(ino)
        if node is not None and node is not self.root:
            node.lookups -= times
            self.let_go(node)

    def let_go(self, node: Node) -> None:
        """Nobody may need a node any more."""
        if node.lookups > 0 or node is self.root:
            return
        if self._by_number.get(node.ino) is node:
            del self._by_number[node.ino]
        if node.parent is not None and node.name is not None:
            key = node.parent, node.name
            if self._by_name.get(key) is node:
                del self._by_name[key]
        if node.session is not None:
            node.session.clunk(node.fid)
            node.session = None


def fields_of(node: Node, found: Stat) -> tuple[int, ...]:
    """What the kernel is told of a file, as the protocol has it."""
    atime, mtime, ctime = found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
    return (
        node.ino,
        found.st_size,
        found.st_blocks,
        atime // SECOND,
        mtime // SECOND,
        ctime // SECOND,
        atime % SECOND,
        mtime % SECOND,
        ctime % SECOND,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev & 0xFFFFFFFF,
        found.st_blksize,
    )
