"""What the tests of paging share: a mount whose files spill, and jobs to run step by step."""

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME, Page
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.node import FileNode, vref, vrele
from tmpfs_core.pageout import Arrival, Laundry
from tmpfs_core.swap import Swap, SwapFile
from tmpfs_core.vnode import NotResident, Place, Vnode

T = TypeVar("T")

#: (offset, bytes) of calls for I/O.
Calls = list[tuple[int, int]]

_numbers = itertools.count()


def swap_file(limit: int) -> SwapFile:
    """A new swap file; it is unlinked by the time it is there."""
    name = f"swap-{os.getpid()}-{next(_numbers)}"
    return SwapFile(os.path.join(tempfile.gettempdir(), name), limit)


def pattern(seed: int, count: int) -> bytes:
    """Bytes in which no frame is all zeros, nor like another."""
    word = b"%07d." % seed
    return b"".join(b"%s%08d" % (word, i) for i in range(count // 16 + 1))[:count]


class Spill:
    """A mount of ``size`` frames of which ``ram`` may be resident, over files of swap.

    Attributes:
        laundries, arrivals: the jobs that have begun and not finished; of an arrival, also how
            many frames it has taken.
        on_shortage: called when they hold the RAM that something needs.
    """

    def __init__(self, ram: int, swap: tuple[int, ...] = (256,), size: int = 4096) -> None:
        self.swap = Swap([swap_file(limit) for limit in swap])
        self.memory = Memory(ram, self.swap)
        self.mount = Mount(size * FRAME, 1000, memory=self.memory)
        self.laundries: list[Laundry] = []
        self.arrivals: list[tuple[Arrival, int]] = []
        self.on_shortage = self.settle

    # Files

    def file(self, name: bytes = b"file", data: bytes = b"") -> FileNode:
        """A new file, held and open."""
        node = vnops.create(self.mount.root, name, 0o644, ROOT, 0).node
        assert isinstance(node, FileNode)
        vref(node)
        vnops.open(node)
        if data:
            assert self.put(node, data) == len(data)
        return node

    def close(self, node: FileNode) -> None:
        """End what :meth:`file` began."""
        vnops.close(node)
        vrele(node)

    def put(self, node: FileNode, data: bytes, offset: int = 0) -> int:
        """Write all, as far as there is space; how much that was."""
        done = 0
        while done < len(data):
            rest = memoryview(data)[done:]
            try:
                done += self.do(lambda: vnops.write(node, offset + done, rest, ROOT))  # noqa: B023
            except OSError:
                if not done:
                    raise
                break
        return done

    def get(self, node: FileNode, offset: int = 0, count: int | None = None) -> bytes:
        """Read all that was asked for, up to the end of the file."""
        stop = node.size if count is None else min(offset + count, node.size)
        data = b""
        while (at := offset + len(data)) < stop:
            data += self.do(lambda: b"".join(vnops.read(node, at, stop - at)))
        return data

    def truncate(self, node: FileNode, size: int) -> None:
        self.do(lambda: vnops.setattr(node, ROOT, size=size))

    # What the owner of the loop does

    def do(self, operation: Callable[[], T]) -> T:
        """Do it, provided with what it needs."""
        for tries in range(20):
            if tries > 2:
                self.on_shortage()
            self.memory.frugal = tries > 4
            try:
                return operation()
            except NotResident as absent:
                self.check()
                self.provide(absent)
            finally:
                self.memory.frugal = False
        raise AssertionError("no end of what it needs")

    def settle(self) -> None:
        """End all jobs that are under way."""
        for laundry in list(self.laundries):
            self.end_out(laundry)
        for arrival, _ in list(self.arrivals):
            self.end_in(arrival)

    def provide(self, absent: NotResident) -> None:
        if absent.frames > self.memory.writable:
            self.make_room(absent.frames + self.memory.reserve)
        if absent.places:
            self.bring_in(absent.places)

    def make_room(self, frames: int) -> None:
        """Page out until so many frames are free, or no more can be."""
        while self.memory.ram.free < frames and not self.memory.stuck:
            self.page_out()

    def bring_in(self, places: list[Place], broken: bool = False) -> list[str]:
        """Page in; what was lost."""
        masks = [uobj.swapped[place].mask for uobj, place in places if place in uobj.swapped]
        wanted = sum(mask.bit_count() for mask in masks)
        failures = 0
        while self.memory.ram.free < wanted:
            if failures == 1:
                self.on_shortage()
            elif failures == 3:  # once, page-out may have passed over what somebody waits for
                raise OSError(errno.ENOMEM, "no RAM to read into")
            self.memory.retry()
            self.make_room(wanted)
            failures = failures + 1 if self.memory.stuck else 0
        arrival = self.begin_in(places)
        self.end_in(arrival, broken)
        return arrival.lost

    def page_out(self, fails: bool = False) -> int:
        """One page-out; how many blocks it has written."""
        if self.swap.ungrown and self.swap.free < self.memory.ram.limit:
            self.swap.grow()
        laundry = self.begin_out()
        if not fails:
            laundry.run()
        self.finish_out(laundry, not fails)
        return len(laundry._pages)

    def page_out_all(self) -> None:
        """Page out whatever can be."""
        self.memory.retry()
        while not self.memory.stuck:
            self.page_out()

    # Steps of jobs

    def begin_out(self) -> Laundry:
        laundry = Laundry(self.memory)
        self.laundries.append(laundry)
        self.check()
        return laundry

    def finish_out(self, laundry: Laundry, done: bool = True) -> None:
        self.laundries.remove(laundry)
        laundry.finish(done)
        self.check()

    def end_out(self, laundry: Laundry, done: bool = True) -> None:
        """Write, and finish; ``done``: whether that is to have succeeded."""
        laundry.run()
        self.finish_out(laundry, done)

    def begin_in(self, places: list[Place], ahead: bool = False) -> Arrival:
        used = self.memory.ram.used
        arrival = Arrival(self.memory, places, ahead)
        self.arrivals.append((arrival, self.memory.ram.used - used))
        self.check()
        return arrival

    def run(self, arrival: Arrival, broken: bool = False) -> None:
        """Read; ``broken``: from files that have lost all their bytes."""
        with self.nothing_in_swap() if broken else _as_it_is():
            arrival.run()

    def finish_in(self, arrival: Arrival) -> None:
        self.arrivals = [item for item in self.arrivals if item[0] is not arrival]
        arrival.finish()
        self.check()

    def end_in(self, arrival: Arrival, broken: bool = False) -> None:
        """Read, and finish."""
        self.run(arrival, broken)
        self.finish_in(arrival)

    @contextmanager
    def nothing_in_swap(self) -> Iterator[None]:
        """All swap files are empty as long as this lasts."""
        fds = [file.fd for file in self.swap.files]
        empty = os.memfd_create("empty")
        for file in self.swap.files:
            file.fd = empty
        try:
            yield
        finally:
            for file, fd in zip(self.swap.files, fds, strict=True):
                file.fd = fd
            os.close(empty)

    # What must always hold

    def contents(self, node: FileNode) -> bytes:
        """The bytes of a file, wherever they are, without moving any; lost ones are zeros."""
        data = bytearray(-(-node.size // BLOCK) * BLOCK)
        for block in range(len(data) // BLOCK):
            mem = memoryview(data)[block * BLOCK : (block + 1) * BLOCK]
            page = (node.vnode and node.vnode.pages.get(block)) or node.uobj.pages.get(block)
            entry = node.uobj.swapped.get(block)
            if page is not None:
                mem[:] = page.mem
            elif entry is not None and entry.copy is not None:
                for file, offset, part in entry.copy.pieces(mem):
                    assert os.preadv(file.fd, [part], offset) == len(part)
        return bytes(data[: node.size])

    def files(self) -> list[FileNode]:
        nodes = [entry.node for entry in self.mount.root.entries.after(0)]
        nodes += self.mount.orphans.values()
        return [node for node in nodes if isinstance(node, FileNode)]

    def pages(self) -> list[Page]:
        owners = [owner for node in self.files() for owner in (node.uobj, node.vnode) if owner]
        return [page for owner in owners for page in owner.pages.values()]

    def check(self) -> None:
        """Assert the invariants of the mount, of RAM and of swap."""
        self.mount.check()
        memory, pages = self.memory, self.pages()
        resident = sum(page.mask.bit_count() for page in pages)
        assert memory.ram.used == resident + sum(frames for _, frames in self.arrivals)
        assert memory.ram.used <= memory.ram.limit

        swapped = [entry for node in self.files() for entry in node.uobj.swapped.values()]
        assert memory.swapped == sum(entry.mask.bit_count() for entry in swapped)
        copies = [page.copy for page in pages if page.copy]
        copies += [entry.copy for entry in swapped if entry.copy]
        copies += [copy for laundry in self.laundries for _, copy in laundry._pages]
        extents = [extent for copy in copies for extent in copy.extents]
        slots = {(id(file), slot) for file, start, n in extents for slot in range(start, start + n)}
        assert len(slots) == sum(extent.length for extent in extents), "a slot is used twice"
        assert self.swap.used == len(slots) + self.swap.condemned
        for file in self.swap.files:
            file.check()

        memory.replacement.check()
        washed = {page for laundry in self.laundries for page, _ in laundry._pages}
        assert len(memory.replacement) == len(set(pages) - washed)
        assert all(page.queue > 0 for page in set(pages) - washed)
        assert all(page.laundry in self.laundries for page in pages if page.laundry)
        vnodes = [node.vnode for node in self.files() if node.vnode]
        in_use = [page.mask for vnode in vnodes for page in vnode.pages.values()]
        assert memory.in_use == sum(mask.bit_count() for mask in in_use)
        assert memory.counters.bytes_copied_by_moves == 0

    def delete_all(self) -> None:
        """Delete all files; they must leave nothing."""
        for entry in list(self.mount.root.entries.after(0)):
            node = entry.node
            vnops.remove(entry, ROOT)
            if isinstance(node, FileNode) and node.refs:
                self.close(node)
            self.check()
        self.nothing_is_left()

    def end(self) -> None:
        self.delete_all()
        self.swap.close()

    def nothing_is_left(self) -> None:
        """Assert that nothing is held, all files being deleted."""
        self.check()
        assert not self.files()
        assert self.memory.ram.used == self.mount.blocks.used == self.memory.swapped == 0
        assert self.swap.used == self.swap.condemned


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def places_of(node: FileNode) -> list[Place]:
    """The blocks of a file that are in swap."""
    return [(node.uobj, block) for block in sorted(node.uobj.swapped)]


def vnode_of(node: FileNode) -> Vnode:
    assert node.vnode is not None
    return node.vnode
