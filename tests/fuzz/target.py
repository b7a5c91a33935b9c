"""Target: an input of the fuzzer is carried out, and what must hold is looked at.

Rules of this file:

* Everything is real but the clients' sockets, the disk's threads and the clock: bytes go into
  sessions as a connection brings them, and the pager's jobs run when a step says so.  The same
  input does the same each time.
* What must hold: bytes end in replies or in a ProtocolError; each request is answered once, and by
  what may answer it (flush(5) excepted); nothing is logged as an error; no step goes on for ever;
  the file system is whole; and when all have left and all files are deleted, nothing is held.
* What nobody may see is in free slots of swap, in the memory that is kept for large writes, and in
  files of the export "fixed" that only root may read, who is squashed there: no reply shows it.
  Nor does anything change there, as it is read-only.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from selectors import BaseSelector
from typing import Any, NamedTuple, ParamSpec, TypeVar

from structlog.testing import capture_logs

from server import pager
from server.errors import ProtocolError
from server.exports import Export
from server.fids import Client
from server.identity import Peer
from server.limits import Limits
from server.meter import Meter
from server.room import Room
from server.session import Session
from server.store import Store
from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import HEADER, Malformed, Message, parse
from server.wire.constants import MSIZE_MIN
from tests.server.peer import Stream, code_of
from tests.server.vhost.guestmemory import mapped
from tests.tmpfs_core.paging import pattern, swap_file
from tests.tmpfs_core.support import make_file, no_berth_is_taken
from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode, Node
from tmpfs_core.swap import Swap
from tmpfs_core.vnode import NotResident

from .machine import STARTED, VERSION, Machine
from .steps import CONNECTIONS, GRAIN, USERS, Op, Step, decode

MSIZE = 1 << 20
#: Frames of RAM and of swap: half of the RAM is kept to read into, so a MiB spills.
RAM, SWAP = 256, 768
#: Frames and inodes of the file system: more than there is memory for.
SIZE, INODES = 1280, 64
#: Bytes that the FILLs of one input may feed.
FILLED_MAX = 4 << 20
#: Turns of the loop within which everything that goes on by itself must have ended.
TURNS = 20_000
#: Seconds that a blocking lock request waits, by connection: without end, or not at all.
LOCK_WAIT = (1e9, 1e9, 0.0, 1e9)
#: What each connection may hold, and all together: what clients keep, and requests that wait.
TIGHT = Limits(max_fids=6, max_locks=2, max_xattr_bytes=80, max_requests=2, max_request_bytes=BLOCK)
LIMITS = (Limits(), TIGHT, Limits(), Limits())
STATE, REQUESTS = 1 << 17, 1 << 17
#: Directories below one another.
DEPTH = 3
#: Blocks of old bytes at the beginning of swap, and in the memory that is kept for large writes.
OLD = 12

FILL = pattern(0, FILLED_MAX)
SECRET = b"nobody may see.."
SECRETS = SECRET * (BLOCK // len(SECRET))

P = ParamSpec("P")
T = TypeVar("T")


class Disk(Executor):
    """Takes the place of the pager's threads: jobs are done one by one, in order, when told to."""

    def __init__(self) -> None:
        self._jobs: list[Callable[[], None]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except OSError as error:
                    future.set_exception(error)

        self._jobs.append(job)
        return future

    def turn(self) -> bool:
        """Do one job; whether there was one."""
        if self._jobs:
            self._jobs.pop(0)()
            return True
        return False


class Request(NamedTuple):
    """A request that was handed over, and not answered yet; no message if it is malformed."""

    kind: int
    tag: int
    message: Message | None


class Wire:
    """A connection without a socket."""

    def __init__(self, world: "World", conn: int) -> None:
        lock_wait = LOCK_WAIT[conn]
        uid = USERS[conn]
        peer = Peer(f"peer {conn}", uid, trusted=not uid, address=None)
        exports = world.store.exports
        self.client = Client(exports, peer, lock_wait, LIMITS[conn], world.state)
        self.session = Session(
            self.client,
            MSIZE,
            world.loop.create_task,
            world.provide_now,
            world.store.provide,
            self._replied,
            world.requests,
            world.meter,
        )
        self.pending: dict[int, Request] = {}
        self._world = world
        self._stream = Stream()
        self._inbox = b""
        self._landing: Request | None = None
        self._patient = lock_wait > 0
        self._open = True

    def feed(self, data: bytes) -> None:
        """Let these bytes come in."""
        if self._open:
            self._inbox += data
            self._pump()

    def close(self) -> None:
        self._open = False
        self.pending.clear()
        self.session.close()

    def check(self) -> None:
        """Assert that nothing waits that could be answered, everything having run that can."""
        for request in self.pending.values():
            assert request.kind == m.Tlock.TYPE, f"no reply to {request}"
            assert self._patient, "a lock request that waits for too long"
        if not self.pending:
            assert not self.session.congested

    def _pump(self) -> None:
        """Hand over what is here, as far as the session takes it."""
        while self._inbox and self._open and not self.session.congested:
            if self._landing is not None:
                self._load(self._landing)
                continue
            buffer = bytearray(self._inbox[: self._batch()])
            try:
                done = self.session.receive(memoryview(buffer), 0, len(buffer))
            except ProtocolError:
                self._collect()
                self.close()
                return
            requests = self._requests(bytes(buffer[:done]))
            buffer[:] = b"\xee" * len(buffer)  # who kept a view of it finds nothing there
            self._inbox = self._inbox[done:]
            if self.session.cargo is not None:
                self._landing = requests.pop()
            self._answered(requests)
            if self.session.needed and self.session.cargo is None and done == 0:
                break  # no more of them is whole

    def _load(self, request: Request) -> None:
        """Receive cargo; when it is complete, its request is handled."""
        cargo = self.session.cargo
        assert cargo is not None
        room = sum(map(len, cargo.room))
        cargo.fill(memoryview(self._inbox[:room]))
        self._inbox = self._inbox[room:]
        if not cargo.room:
            self._landing = None
            self.session.landed()
            self._answered([request])

    def _batch(self) -> int:
        """Bytes to hand over at once: in one batch no tag is twice, so that it is clear to which
        request a reply is.
        """
        at = 0
        tags = set(self.pending)
        while at + HEADER.size <= len(self._inbox):
            size: int
            size, kind, tag = HEADER.unpack_from(self._inbox, at)
            if not HEADER.size <= size <= (self.client.msize or MSIZE_MIN):
                break
            if at and (tag in tags or kind == m.Tversion.TYPE):
                return at
            at += size
            if tag in tags or kind == m.Tversion.TYPE:
                return at
            tags.add(tag)
        return len(self._inbox)

    def _requests(self, data: bytes) -> list[Request]:
        """The requests that these bytes are; of the last, only the beginning may be here."""
        requests = []
        at = 0
        while at < len(data):
            size, kind, tag = HEADER.unpack_from(data, at)
            message = None
            if kind in self._stream.messages and at + size <= len(data):
                with suppress(Malformed):  # it was refused before it was decoded
                    message = parse(data[at : at + size], self._stream.messages)[1]
                    self._stream.asked(message)
            requests.append(Request(kind, tag, message))
            at += size
        self._world.messages += len(requests)
        return requests

    def _collect(self) -> list[tuple[int, Message]]:
        data = b"".join(self.session.out)
        self.session.out.clear()
        assert SECRET not in data, "what nobody may see is shown"
        return self._stream.cut(data)

    def _answered(self, requests: list[Request]) -> None:
        """Requests were handled: each was answered, or waits."""
        asked = {request.tag: request for request in requests}
        for tag, reply in self._collect():
            assert tag in asked, f"{reply} to tag {tag}, which asked nothing"
            request = asked.pop(tag)
            check_reply(request, reply)
            if request.kind == m.Tversion.TYPE:
                self.pending.clear()
        for tag, request in asked.items():
            assert tag not in self.pending, "a request waits whose tag is taken"
            self.pending[tag] = request

    def _replied(self) -> None:
        """Requests that had to wait were answered."""
        for tag, reply in self._collect():
            assert tag in self.pending, f"{reply} to tag {tag}, which does not wait"
            request = self.pending.pop(tag)
            check_reply(request, reply)
            if isinstance(request.message, m.Tflush):
                self.pending.pop(request.message.oldtag, None)  # it will not be answered any more
        self._pump()


def check_reply(request: Request, reply: Message) -> None:
    """Assert that this may be the reply to this request."""
    asked = request.message
    code = code_of(reply)
    if code is not None:
        assert 0 < code < 4096
        assert code != errno.EIO or isinstance(asked, m.Tclunk), f"EIO to {request}"
        assert not isinstance(asked, m.Tflush) or code in (errno.EPROTO, errno.EINVAL)
        return
    told = f"{reply} to {request}"
    assert request.kind + 1 == reply.TYPE, told
    match asked, reply:
        case m.Tread(), m.Rread():
            assert len(reply.data) <= asked.count, told
        case m.Treaddir(), m.Rreaddir():
            assert len(reply.data) <= asked.count, told
            list(m.split_records(bytes(reply.data)))
        case legacy.Tstat(), legacy.Rstat():
            assert int.from_bytes(reply.stat[:2], "little") == len(reply.stat) - 2, told
        case m.Twrite(), m.Rwrite():
            assert reply.count <= len(asked.data), told
        case m.Twalk(), m.Rwalk():
            assert len(reply.qids) <= len(asked.wnames), told


class World:
    """File systems that spill, what is exported of them, and the connections.

    Attributes:
        messages: how many whole requests the sessions have taken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.messages = 0
        self.swap = Swap([swap_file(SWAP)])
        self.memory = Memory(RAM, self.swap)
        self.mount = self._make_mount()
        self._fixed = self._make_mount()
        self._removed: list[Mount] = []
        self._removal: asyncio.Task[None] | None = None
        self.store = loop.run_until_complete(self._make_store())
        self._hide_secrets()
        self._as_it_was = look(self._fixed.root)
        self.state = Room(STATE, loop.call_soon)
        self.requests = Room(REQUESTS, loop.call_soon)
        self.meter = Meter()
        self._cached = False
        self._filled = 0
        self._failures: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self._failures.append(context))
        self._wires = [Wire(self, conn) for conn in range(CONNECTIONS)]
        self._machines: dict[int, Machine] = {}
        self._mapped, self._descriptors = mapped(), descriptors()

    def _make_mount(self) -> Mount:
        return Mount(SIZE << 12, INODES, memory=self.memory, max_depth=DEPTH)

    async def _make_store(self) -> Store:
        made = Store(self.memory, DEPTH)
        self._pager = made._pagers[self.memory]
        self._disk = Disk()
        self._pager._threads = self._disk  # type: ignore[assignment] # all it needs of them
        made.put(Export("", self.mount))
        made.put(Export("ro", self.mount, readonly=True))
        made.put(Export("checked", self.mount, permissions="server"))
        made.put(Export("fixed", self._fixed, readonly=True, squash="all"))
        return made

    def _hide_secrets(self) -> None:
        """Put what nobody may see where old bytes are, and where only root may read."""
        os.pwrite(self.swap.files[0].fd, SECRETS * OLD, 0)
        berths = self.memory.arena.berth(OLD)
        assert berths is not None
        for berth in berths:
            berth.mem[:] = SECRETS
        self.memory.arena.leave(berths)
        root = self._fixed.root
        make_file(self._fixed, b"a", b"for all to read")
        hidden = make_file(self._fixed, b"c", SECRETS[:FRAME])
        xattr.setxattr(hidden, b"user.a", SECRET, ROOT)
        vnops.setattr(hidden, ROOT, mode=0o600)
        vnops.mkdir(vnops.mkdir(root, b"b", 0o755, ROOT, 0).node, b"b", 0o755, ROOT, 0)
        below = vnops.mkdir(root, b"d", 0o711, ROOT, 0).node
        vnops.symlink(below, b"a", SECRET, ROOT, 0)
        vnops.setattr(below, ROOT, mode=0o600)

    def provide_now(self, absent: NotResident) -> bool:
        return self._cached and self.store.provide_now(absent)

    def do(self, step: Step) -> None:
        """Carry out a step."""
        self._cached = step.cached
        wire = self._wires[step.conn]
        if step.op >= Op.SAY:
            self._machine(step.conn).do(step)
        elif step.op is Op.FEED:
            wire.feed(step.data)
        elif step.op is Op.FILL:
            count = min(step.number * GRAIN, FILLED_MAX - self._filled)
            wire.feed(FILL[self._filled :][:count])
            self._filled += count
        elif step.op is Op.RUN:
            if step.number & 32:
                self._disk.turn()
            for _ in range(step.number & 31):
                self._turn()
        elif step.op is Op.SETTLE:
            self.settle()
        elif step.op is Op.PAGE_OUT:
            self.memory.retry()
            self._pager._goal = self.memory.ram.limit
            self._pager._clean()
        elif step.op is Op.EXPORT:
            self._come_or_go()
        else:
            wire.close()
            self._wires[step.conn] = Wire(self, step.conn)
        self._check_failures()

    def _machine(self, conn: int) -> Machine:
        """The virtual machine of this number, of which there are as many as kinds of limits."""
        number = conn % 2
        if number not in self._machines:
            make_session = partial(self._session, number)
            self._machines[number] = Machine(self.loop, self.requests, make_session, SECRET)
        return self._machines[number]

    def _session(self, number: int, ready: Callable[[], None]) -> Session:
        """That of a guest, who may do what root may."""
        peer = Peer(f"machine {number}", 0, trusted=True, address=None)
        client = Client(self.store.exports, peer, LOCK_WAIT[0], LIMITS[number], self.state)
        task, now, wait = self.loop.create_task, self.provide_now, self.store.provide
        return Session(client, MSIZE, task, now, wait, ready, self.requests, self.meter)

    def _come_or_go(self) -> None:
        """Make or remove the export "more", unless it is being removed."""
        if self._removal is not None:
            if not self._removal.done():
                return
            self._removal.result()
        if "more" in self.store.exports:
            self._removed.append(self.store.exports.get(b"more").mount)
            self._removal = self.loop.create_task(self.store.remove("more", force=True))
        else:
            self.store.put(Export("more", self._make_mount()))

    def _turn(self) -> None:
        """One turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def settle(self) -> None:
        """Let everything run that can."""
        ready: list[object] = self.loop._ready  # type: ignore[attr-defined] # all asyncio loops
        waits: BaseSelector = self.loop._selector  # type: ignore[attr-defined] # those on Linux
        for _ in range(TURNS):
            if not self._disk.turn() and not ready and not waits.select(0):
                return
            self._turn()
        raise AssertionError("no end of it")

    def end(self) -> None:
        """End all connections, delete all files, and assert that nothing is left."""
        self.settle()
        for wire in self._wires:
            wire.check()
        for machine in self._machines.values():
            machine.check()
            machine.plug(STARTED)  # whatever was before
            machine.ask(VERSION)
            self.settle()
            assert machine.is_answered(), "no reply to a machine"
            machine.close()
            self.messages += machine.messages
        self.settle()
        if "more" in self.store.exports:
            self._come_or_go()
            self.settle()
        for wire in self._wires:
            wire.close()
        self.settle()
        if self._removal is not None:
            self._removal.result()
        self._check_failures()
        assert not self.memory.in_use
        for tally in self.meter.tallies:
            assert sum(tally.refused.values()) <= tally.count, "refused more than once"
        if self._machines:
            assert mapped() <= self._mapped, "memory of a machine is left"
            assert descriptors() <= self._descriptors, "a descriptor is left"
        assert not any(wire.client.fids or wire.session._held for wire in self._wires)
        assert not any(export.clients for export in self.store.exports)
        assert (self.state.free, self.requests.free) == (STATE, REQUESTS)
        assert no_berth_is_taken(self.memory.arena), "a berth is left"
        assert look(self._fixed.root) == self._as_it_was, "what is read-only was changed"
        for mount in (self.mount, self._fixed, *self._removed):
            mount.check()
            assert not mount.orphans
            self._delete(mount.root)
            mount.check()
            assert mount.inodes.used == 1
            assert mount.blocks.used == mount.root.xattr_frames
        assert self.memory.ram.used == self.memory.swapped == self.swap.used == 0
        for file in self.swap.files:
            file.check()

    def close(self) -> None:
        for machine in self._machines.values():
            machine.end()
        self.loop.run_until_complete(self.store.close())
        self.swap.close()

    def _delete(self, directory: DirNode) -> None:
        for entry in list(directory.entries.after(0)):
            node = entry.node
            assert node.locks is None or not (node.locks.held or node.locks.waiters)
            if isinstance(node, DirNode):
                self._delete(node)
            vnops.remove(entry, ROOT)

    def _check_failures(self) -> None:
        for failure in self._failures:
            raise AssertionError(failure["message"]) from failure.get("exception")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def look(node: Node) -> list[Any]:
    """All that a client may change of a node, and of all below it."""
    told: list[Any] = [node.mode, node.uid, node.gid, node.nlink, node.size, node.version]
    told += [node.mtime, node.ctime, node.blocks, node.xattrs]
    if isinstance(node, DirNode):
        told += [[entry.name, *look(entry.node)] for entry in node.entries.after(0)]
    return told


def run(data: bytes, loop: asyncio.AbstractEventLoop) -> int:
    """Carry out an input; how many messages it had.

    Raises:
        AssertionError: what must hold does not; so is any other exception a finding.
    """
    with capture_logs() as logs:
        world = World(loop)
        try:
            for step in decode(data):
                world.do(step)
                check_logs(logs)
            world.end()
        finally:
            check_logs(logs)
            world.close()
    return world.messages


def check_logs(logs: list[Any]) -> None:
    for line in logs:
        if line["log_level"] == "error":
            raise AssertionError(line["event"]) from line.get("exc_info")


def make_loop() -> asyncio.AbstractEventLoop:
    """A loop for any number of runs, one after the other."""
    pager.RETRY = 0.0  # it is not worth waiting for
    return asyncio.new_event_loop()
