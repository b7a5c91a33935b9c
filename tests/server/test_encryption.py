"""encryption: what stands on the disk, and what comes back."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.encryption import Xts
from server.wire import messages as m
from tests.tmpfs_core.paging import Spill, pattern, swap_file
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.swap import SwapFile, Transfer, read_in, read_now, write_out

from .spilling import DATA, Spilling, swapped

FRAMES = 64


@pytest.fixture
def file() -> Iterator[SwapFile]:
    file = swap_file(FRAMES)
    file.cipher = Xts()
    yield file
    file.close()


def raw(file: SwapFile) -> bytes:
    """What stands on the disk."""
    return os.pread(file.fd, file.limit * FRAME, 0)


def memory(count: int) -> memoryview:
    return memoryview(bytearray(count * FRAME))


def test_a_key_is_used_once() -> None:
    data = [memoryview(pattern(1, FRAME))]
    assert bytes(Xts().encrypt(data, 0)) != bytes(Xts().encrypt(data, 0))


def test_what_is_encrypted_is_not_changed_by_it() -> None:
    data = bytearray(pattern(1, 2 * FRAME))
    views = [memoryview(data)[:FRAME], memoryview(data)[FRAME:]]
    assert len(Xts().encrypt(views, FRAME)) == 2 * FRAME
    assert data == pattern(1, 2 * FRAME)


def test_equal_frames_at_different_places_do_not_look_alike(file: SwapFile) -> None:
    write_out(Transfer(file, 0, [memoryview(b"x" * FRAME)] * 8))
    on_disk = raw(file)
    assert len({on_disk[at : at + 16] for at in range(0, 8 * FRAME, 16)}) == 8 * FRAME // 16


@given(counts=st.lists(st.integers(1, 16), min_size=1, max_size=4), start=st.integers(0, 8))
def test_what_is_written_is_hidden_and_comes_back(counts: list[int], start: int) -> None:
    file = swap_file(128)
    file.cipher = Xts()
    data = [pattern(seed, count * FRAME) for seed, count in enumerate(counts)]
    write_out(Transfer(file, start * FRAME, [memoryview(part) for part in data]))
    assert not set(frames(raw(file))) & set(frames(b"".join(data)))
    arrived = [memory(count) for count in counts]
    read_in(Transfer(file, start * FRAME, list(arrived)))
    assert [bytes(view) for view in arrived] == data
    at = start
    for part in data:  # the beginning of a run, as it is left of a file that was truncated
        first = memory(1)
        assert read_now(Transfer(file, at * FRAME, [first]))
        assert bytes(first) == part[:FRAME]
        at += len(part) // FRAME
    file.close()


def frames(data: bytes) -> list[bytes]:
    return [data[at : at + FRAME] for at in range(0, len(data), FRAME) if any(data[at:][:FRAME])]


def test_a_byte_that_was_changed_on_the_disk_is_noise_around_it_alone(file: SwapFile) -> None:
    """XTS hides, and does not authenticate: 16 bytes are noise, and nobody is told."""
    data = pattern(1, FRAME)
    write_out(Transfer(file, 0, [memoryview(data)]))
    os.pwrite(file.fd, bytes([raw(file)[100] ^ 1]), 100)
    arrived = memory(1)
    read_in(Transfer(file, 0, [arrived]))
    differ = {at // 16 for at in range(FRAME) if arrived[at] != data[at]}
    assert differ == {100 // 16}


@pytest.mark.parametrize("sparse", [False, True])
def test_files_go_out_and_come_back_whole(sparse: bool) -> None:
    spill = Spill(256, (1024,))
    spill.swap.files[0].cipher = Xts()
    node = spill.file()
    data = bytearray(pattern(1, 5 * BLOCK))
    if sparse:  # frames that are zeros take no slots
        for frame in range(0, len(data), 3 * FRAME):
            data[frame : frame + FRAME] = bytes(FRAME)
    spill.put(node, bytes(data))
    spill.page_out_all()
    assert pattern(1, BLOCK)[FRAME : FRAME + 64] not in raw(spill.swap.files[0])
    spill.truncate(node, 4 * BLOCK + 3 * FRAME + 9)
    assert spill.get(node) == data[: node.size]
    spill.end()


async def test_a_server_writes_nothing_that_can_be_read(world: Spilling) -> None:
    file = world.spill.swap.files[0]
    file.cipher = Xts()
    peer = await world.begin()
    fid = await swapped(world, peer)
    on_disk = raw(file)
    assert any(on_disk)
    assert all(DATA[at : at + 16] not in on_disk for at in range(0, len(DATA), FRAME))
    assert (await peer.call(m.Tread(fid, 0, len(DATA)))).data == DATA
