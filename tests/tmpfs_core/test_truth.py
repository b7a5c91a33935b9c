"""Whatever happens between RAM and swap, files hold what was written to them.

Any sequence of operations and of steps of page-outs and page-ins, several of them under way at a
time, some failing, in so little RAM and swap that both run out.  The truth is one bytearray a file.
After each step all bytes are compared, wherever they are, and all frames and slots are counted.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tmpfs_core import swap as swap_module
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.cargo import Cargo, cargo_for
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.node import FileNode, vref, vrele
from tmpfs_core.pageout import Arrival, Laundry
from tmpfs_core.vmobject import Swapped, Uobj
from tmpfs_core.vnode import Place

from .paging import Spill, pattern, places_of

T = TypeVar("T")

FILES = 4
BLOCKS = 5  # a file, at the most
PATTERN = pattern(1, 300 * FRAME)
PER_BLOCK = BLOCK // FRAME

picks = st.integers(0, 999)
offsets = st.builds(
    lambda frame, delta: max(0, frame * FRAME + delta),
    st.sampled_from([0, 1, 3, 15, 16, 17, 31, 32, 40, 48, 64, 70]),
    st.sampled_from([0, 0, 0, -1, 1, 100]),
)
lengths = st.sampled_from(
    [1, 100, FRAME - 1, FRAME, 2 * FRAME, 5 * FRAME + 1, BLOCK - 1, BLOCK, BLOCK, BLOCK + FRAME]
)
moves = st.sampled_from([0, 0, 0, 7, FRAME, BLOCK])


@dataclass
class Truth:
    """What a file holds.

    Attributes:
        frames: those that were ever written, and not cut off.
        lost: blocks that were lost to an error.
    """

    node: FileNode
    name: bytes
    linked: bool = True
    opens: int = 0
    data: bytearray = field(default_factory=bytearray)
    frames: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    def frames_of(self, block: int) -> set[int]:
        return {frame for frame in self.frames if frame // PER_BLOCK == block}

    def replaces(self, block: int, start: int, stop: int) -> bool:
        """Whether bytes ``start`` to ``stop`` fill all frames that the block has."""
        return all(
            start <= frame * FRAME and (frame + 1) * FRAME <= stop
            for frame in self.frames_of(block)
        )

    def written(self, offset: int, data: bytes) -> None:
        stop = offset + len(data)
        for block in {*self.lost} & {*range(offset // BLOCK, (stop - 1) // BLOCK + 1)}:
            assert self.replaces(block, offset, stop), "a lost block was written in part"
            self.lost.discard(block)
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset:stop] = data
        self.frames |= {*range(offset // FRAME, (stop - 1) // FRAME + 1)}

    def truncated(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]
        self.frames = {frame for frame in self.frames if frame * FRAME < size}
        self.lost = {block for block in self.lost if self.frames_of(block)}

    def readable(self) -> bytes:
        """What it holds, lost bytes as zeros."""
        data = bytearray(self.data)
        for block in self.lost:
            part = data[block * BLOCK : (block + 1) * BLOCK]
            data[block * BLOCK : block * BLOCK + len(part)] = bytes(len(part))
        return bytes(data)


@dataclass
class Washing:
    """A page-out under way."""

    laundry: Laundry
    ran: bool = False


@dataclass
class Reading:
    """A page-in under way, and what stood in each of its places when it began."""

    arrival: Arrival
    was: list[tuple[Uobj, int, Swapped, int]]
    ran: bool = False
    broken: bool = False


class Machine(RuleBasedStateMachine):
    """Files and their truth."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(swap_module, "STEP", 24)
        self.files: list[Truth] = []
        self.gone: list[Truth] = []
        self.washing: list[Washing] = []
        self.reading: list[Reading] = []
        self.stuck_before = False
        self.lost = 0
        self.made = 0
        self.disk_full = False

    @initialize(
        ram=st.sampled_from([64, 96, 128]),
        swap=st.sampled_from([(64,), (40, 24), (72, 56), (200,)]),
        size=st.sampled_from([150, 1000, 1000]),
    )
    def begin(self, ram: int, swap: tuple[int, ...], size: int) -> None:
        self.spill = Spill(ram, swap, size)
        fallocate = os.posix_fallocate

        def maybe(fd: int, offset: int, count: int) -> None:
            if self.disk_full:
                raise OSError(errno.ENOSPC, "the disk is full")
            fallocate(fd, offset, count)

        self.patch.setattr(os, "posix_fallocate", maybe)
        self.spill.on_shortage = self.settle
        for pick in range(FILES):
            self.create()
            self.open(pick)
            self.write(pick, pick * FRAME, 5 * FRAME, pick)

    def teardown(self) -> None:
        try:
            if hasattr(self, "spill"):
                self.end()
        finally:
            self.patch.undo()

    def end(self) -> None:
        """Read everything once more, and delete it; then nothing may be left."""
        self.disk_full = False
        self.settle()
        for truth in list(self.files):
            for block in range(-(-len(truth.data) // BLOCK)):
                self.read(self.files.index(truth), block * BLOCK, BLOCK)
        for truth in list(self.files):
            while truth.opens:
                self.close(self.files.index(truth))
        while self.files:
            self.unlink(0)
        self.spill.nothing_is_left()
        self.spill.swap.close()

    def settle(self) -> None:
        """End all jobs that are under way."""
        while self.washing:
            self.run_out(0)
            self.finish_out(0, False)
        while self.reading:
            self.run_in(0, False)
            self.finish_in(0)

    def file(self, pick: int) -> Truth:
        return self.files[pick % len(self.files)]

    # Files

    @precondition(lambda self: len(self.files) < FILES)
    @rule()
    def create(self) -> None:
        self.made += 1
        name = b"%d" % self.made
        node = vnops.create(self.spill.mount.root, name, 0o644, ROOT, 0).node
        assert isinstance(node, FileNode)
        self.files.append(Truth(node, name))

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def open(self, pick: int) -> None:
        truth = self.file(pick)
        vref(truth.node)
        vnops.open(truth.node)
        truth.opens += 1

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def close(self, pick: int) -> None:
        truth = self.file(pick)
        if truth.opens:
            truth.opens -= 1
            vnops.close(truth.node)
            vrele(truth.node)
            self.forget(truth)

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def unlink(self, pick: int) -> None:
        truth = self.file(pick)
        if truth.linked:
            truth.linked = False
            vnops.unlink(self.spill.mount.root, truth.name, ROOT)
            self.forget(truth)

    def forget(self, truth: Truth) -> None:
        if not truth.linked and not truth.opens:
            self.files.remove(truth)

    # Data

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths, seed=st.integers(0, 200))
    def write(self, pick: int, offset: int, length: int, seed: int) -> None:
        start = seed * FRAME
        self.store(self.file(pick), offset, PATTERN[start : start + length])

    @precondition(lambda self: self.files)
    @rule(pick=picks, length=lengths, seed=st.integers(0, 200))
    def append(self, pick: int, length: int, seed: int) -> None:
        truth = self.file(pick)
        start = seed * FRAME
        if len(truth.data) < BLOCKS * BLOCK:
            self.store(truth, len(truth.data), PATTERN[start : start + length])

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths, seed=st.integers(0, 200), moved=moves)
    def land(self, pick: int, offset: int, length: int, seed: int, moved: int) -> None:
        """Write what was received as cargo; for another place, if an append came in between."""
        start = seed * FRAME
        data = PATTERN[start : start + length][: self.spill.memory.io_max]
        cargo = cargo_for(self.spill.memory.arena, offset + moved, len(data))
        assert cargo is not None
        cargo.fill(memoryview(data))
        self.store(self.file(pick), offset, data, cargo)
        cargo.close()

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths)
    def write_zeros(self, pick: int, offset: int, length: int) -> None:
        self.store(self.file(pick), offset, bytes(length))

    def store(self, truth: Truth, offset: int, data: bytes, cargo: Cargo | None = None) -> None:
        if not truth.opens:
            return
        data = data[: self.spill.memory.io_max]
        stop = offset + len(data)
        view = cargo or memoryview(data)
        self.stuck_before = self.spill.memory.stuck
        done, code = self.attempt(lambda: vnops.write(truth.node, offset, view, ROOT))
        hurt = {offset // BLOCK, (stop - 1) // BLOCK} & truth.lost
        refused = any(not truth.replaces(block, offset, stop) for block in hurt)
        assert (code == errno.EIO) == refused
        if code == errno.ENOSPC:
            self.must_be_full(truth, offset, data)
        elif code == errno.ENOMEM:
            self.must_be_crowded()
        if done is None:
            assert code in (errno.EIO, errno.ENOSPC, errno.ENOMEM)
            return
        truth.written(offset, data[:done])

    def attempt(self, operation: Callable[[], T]) -> tuple[T | None, int]:
        """What comes of an operation, or nothing and the errno with which it was refused."""
        try:
            return self.spill.do(operation), 0
        except OSError as error:
            return None, error.errno or 0

    def must_be_full(self, truth: Truth, offset: int, data: bytes) -> None:
        """A refusal is in order: there is no space in the mount, or neither in RAM nor in swap.

        Or page-out has failed, or jobs under way hold what it needs.
        """
        frames = {*range(offset // FRAME, (offset + len(data) - 1) // FRAME + 1)}
        no_space = self.spill.mount.blocks.free < len(frames - truth.frames)
        excused = self.stuck_before or self.washing or self.reading
        no_ram = self.no_swap() and self.spill.memory.writable < len(frames)
        assert no_space or excused or no_ram

    def must_be_crowded(self) -> None:
        """There is no RAM to read into: all of it is dirty, and there is no swap for it.

        Zeros take no slot; when they are overwritten, there may be none any more.
        """
        assert self.no_swap()
        assert all(page.dirty for page in self.spill.pages())

    def no_swap(self) -> bool:
        """Whether there may be too little for any block."""
        swap = self.spill.swap
        return swap.free < PER_BLOCK and (self.disk_full or not swap.ungrown)

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths)
    def read(self, pick: int, offset: int, length: int) -> None:
        truth = self.file(pick)
        if not truth.opens:
            return
        stop = min(offset + length, offset + self.spill.memory.io_max, len(truth.data))
        data, code = self.attempt(lambda: b"".join(vnops.read(truth.node, offset, length)))
        lost = [block for block in sorted(truth.lost) if offset < (block + 1) * BLOCK]
        if offset < stop and offset // BLOCK in truth.lost:
            assert code in (errno.EIO, errno.ENOMEM)
            return
        if data is None:
            assert code == errno.ENOMEM
            self.must_be_crowded()
            return
        if lost:
            stop = min(stop, max(offset, lost[0] * BLOCK))
        assert stop > offset or offset >= len(truth.data)
        expected = bytes(truth.data[offset:stop])
        if len(data) < len(expected):  # in need, it is cut down to one block
            assert len(data) == BLOCK - offset % BLOCK
        assert data == expected[: len(data)]

    @precondition(lambda self: self.files)
    @rule(pick=picks, size=offsets)
    def truncate(self, pick: int, size: int) -> None:
        truth = self.file(pick)
        _, code = self.attempt(lambda: vnops.setattr(truth.node, ROOT, size=size))
        if code:
            assert code == errno.ENOMEM
            self.must_be_crowded()
        else:
            truth.truncated(size)

    # Page-out

    @rule(fails=st.sampled_from([False, False, False, True]))
    def page_out(self, fails: bool) -> None:
        self.spill.page_out(fails)

    @rule()
    def retry(self) -> None:
        self.spill.memory.retry()

    @rule()
    def disk_fills_or_not(self) -> None:
        self.disk_full = not self.disk_full

    @precondition(lambda self: len(self.washing) < 3)
    @rule()
    def begin_out(self) -> None:
        self.washing.append(Washing(self.spill.begin_out()))

    @precondition(lambda self: self.washing)
    @rule(pick=picks)
    def run_out(self, pick: int) -> None:
        washing = self.washing[pick % len(self.washing)]
        washing.laundry.run()
        washing.ran = True

    @precondition(lambda self: self.washing)
    @rule(pick=picks, fails=st.booleans())
    def finish_out(self, pick: int, fails: bool) -> None:
        washing = self.washing.pop(pick % len(self.washing))
        self.spill.finish_out(washing.laundry, washing.ran and not fails)

    # Page-in

    def swapped(self) -> list[Place]:
        return [place for truth in self.files for place in places_of(truth.node)]

    @precondition(lambda self: len(self.reading) < 2 and self.swapped())
    @rule(start=picks, count=st.integers(1, 3))
    def begin_in(self, start: int, count: int) -> None:
        places = self.swapped()
        start %= len(places)
        chosen = places[start : start + count]
        was = [
            (uobj, block, uobj.swapped[block], uobj.swapped[block].mask)
            for uobj, block in chosen
            if uobj.swapped[block].copy is not None
        ]
        frames = sum(mask.bit_count() for _, _, _, mask in was)
        if frames <= self.spill.memory.ram.free:
            self.reading.append(Reading(self.spill.begin_in(chosen), was))

    @precondition(lambda self: len(self.reading) < 2 and self.swapped())
    @rule(start=picks, count=st.integers(1, 3), broken=st.booleans())
    def page_in(self, start: int, count: int, broken: bool) -> None:
        """All three steps in one."""
        before = len(self.reading)
        self.begin_in(start, count)
        if len(self.reading) > before:
            self.run_in(before, broken)
            self.finish_in(before)

    @precondition(lambda self: self.reading)
    @rule(pick=picks, broken=st.booleans())
    def run_in(self, pick: int, broken: bool) -> None:
        reading = self.reading[pick % len(self.reading)]
        if not reading.ran:
            self.spill.run(reading.arrival, broken)
            reading.ran, reading.broken = True, broken

    @precondition(lambda self: self.reading)
    @rule(pick=picks)
    def finish_in(self, pick: int) -> None:
        reading = self.reading[pick % len(self.reading)]
        if not reading.ran:
            return
        self.reading.remove(reading)
        if reading.broken:
            for uobj, block, entry, mask in reading.was:
                same = uobj.swapped.get(block) is entry and entry.mask == mask
                if same and entry.copy is not None and entry.copy.stored:
                    (truth,) = [it for it in self.files if it.node.uobj is uobj]
                    truth.lost.add(block)
                    self.lost += 1
        self.spill.finish_in(reading.arrival)

    # After each step

    @invariant()
    def files_hold_what_was_written(self) -> None:
        if not hasattr(self, "spill"):
            return
        self.spill.check()
        assert self.spill.memory.counters.lost == self.lost
        assert self.spill.mount.blocks.used == sum(len(truth.frames) for truth in self.files)
        for truth in self.files:
            assert truth.node.size == len(truth.data)
            assert truth.node.blocks == 8 * len(truth.frames)
            lost = {n for n, entry in truth.node.uobj.swapped.items() if entry.copy is None}
            assert lost == truth.lost
            assert self.spill.contents(truth.node) == truth.readable()


TestTruth = Machine.TestCase
TestTruth.settings = settings(
    derandomize=True,
    deadline=None,
    report_multiple_bugs=False,
    max_examples=120,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow],
)
