"""cargo: what is received where it will stay arrives whole, and shows nobody's old bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmpfs_core import frames, vnops
from tmpfs_core.access import ROOT
from tmpfs_core.cargo import Cargo, cargo_for
from tmpfs_core.frames import BLOCK, FRAME, Arena
from tmpfs_core.mount import Mount
from tmpfs_core.node import FileNode

from .paging import pattern
from .support import in_core, make_file, peek

MIB = 1 << 20


def cargo_of(mount: Mount, offset: int, data: bytes) -> Cargo:
    cargo = cargo_for(mount.memory.arena, offset, len(data))
    assert cargo is not None
    cargo.fill(memoryview(data))
    assert cargo.room == []
    return cargo


def land(node: FileNode, offset: int, data: bytes) -> int:
    """Write it as cargo; how much fitted."""
    cargo = cargo_of(node.mount, offset, data)
    try:
        return vnops.write(node, offset, cargo, ROOT)
    finally:
        cargo.close()


def slots(node: FileNode) -> list[int]:
    """The blocks of the arena that hold it."""
    assert node.vnode is not None
    return [page.slot for _, page in sorted(node.vnode.pages.items())]


@given(
    offset=st.integers(0, 3 * BLOCK),
    count=st.integers(1, 3 * BLOCK),
    moved=st.sampled_from([0, 0, 1, FRAME, BLOCK]),
    pieces=st.lists(st.integers(1, BLOCK), max_size=8),
    before=st.integers(0, 5 * BLOCK),
)
def test_what_is_received_in_pieces_is_what_is_written(
    offset: int, count: int, moved: int, pieces: list[int], before: int
) -> None:
    mount = Mount(MIB, 10)
    node = make_file(mount)
    vnops.open(node)
    old, data = pattern(1, before), pattern(2, count)
    vnops.write(node, 0, memoryview(old), ROOT)
    cargo = cargo_for(mount.memory.arena, offset + moved, count)
    assert cargo is not None
    assert (len(cargo), sum(map(len, cargo.room))) == (count, count)
    done = 0
    for piece in [*pieces, count]:
        part = data[done : done + piece]
        filled = 0
        for view in cargo.room:  # as recvmsg(2) fills it
            view[: len(part) - filled] = part[filled : filled + len(view)]
            filled = min(filled + len(view), len(part))
        cargo.received(len(part))
        done += len(part)
    assert cargo.room == []
    assert vnops.write(node, offset, cargo, ROOT) == count
    cargo.close()
    assert peek(node) == old[:offset].ljust(offset, b"\0") + data + old[offset + count :]
    mount.check()
    vnops.close(node)


def test_a_whole_block_is_not_copied_but_its_memory_changes_hands() -> None:
    mount = Mount(MIB, 10)
    node = make_file(mount)
    vnops.open(node)
    vnops.write(node, 0, memoryview(pattern(1, 3 * BLOCK)), ROOT)
    before = slots(node)
    cargo = cargo_of(mount, FRAME, pattern(2, 2 * BLOCK))  # the first and the last block are cut
    assert vnops.write(node, FRAME, cargo, ROOT) == 2 * BLOCK
    assert [old == new for old, new in zip(before, slots(node), strict=True)] == [True, False, True]
    cargo.close()
    free = mount.memory.arena.berth(3) or []
    assert before[1] in [berth.slot for berth in free]
    mount.check()
    vnops.close(node)


def test_what_berths_held_is_never_seen() -> None:
    mount = Mount(MIB, 10)
    node, other = make_file(mount), make_file(mount, b"other")
    vnops.open(node)
    vnops.open(other)
    cargo_of(mount, 0, b"\xff" * 4 * BLOCK).close()
    land(node, 0, pattern(1, 4 * BLOCK))
    cargo_of(mount, 0, b"\xff" * 4 * BLOCK).close()
    vnops.setattr(node, ROOT, size=0)
    for block in range(4):
        vnops.write(other, block * BLOCK + 5, memoryview(b"x"), ROOT)
    assert peek(other).count(b"\0") == other.size - 4
    mount.check()
    vnops.close(node)
    vnops.close(other)


def test_cargo_is_short_where_space_is() -> None:
    small = Mount(2 * BLOCK + FRAME, 10)
    node = make_file(small)
    vnops.open(node)
    assert land(node, 0, pattern(1, 3 * BLOCK)) == 2 * BLOCK + FRAME
    assert peek(node) == pattern(1, 3 * BLOCK)[: 2 * BLOCK + FRAME]
    small.check()
    vnops.close(node)


def test_there_are_only_so_many_berths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BERTHS", 5)
    arena = Arena(16)
    cargo = cargo_for(arena, FRAME, 2 * BLOCK)  # in three of them
    assert cargo is not None
    assert cargo_for(arena, 0, 2 * BLOCK + 1) is None
    assert cargo_for(arena, 0, 2 * BLOCK) is not None
    assert cargo_for(arena, 0, 1) is None
    cargo.close()
    assert cargo_for(arena, 0, 3 * BLOCK) is not None


def test_some_berths_keep_their_memory_and_the_others_give_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "BERTHS_KEPT", 2)
    arena = Arena(16)
    berths = arena.berth(5)
    assert berths is not None
    for berth in berths:
        berth.mem[:] = b"x" * BLOCK
    arena.leave(berths)
    assert sorted(in_core(berth.mem) for berth in berths) == [0, 0, 0, 16, 16]
    taken = arena.berth(5)
    assert taken is not None
    assert {berth.slot for berth in taken} == {berth.slot for berth in berths}
