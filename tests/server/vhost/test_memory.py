"""memory: what is mapped, and what an address stands for."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.vhost.memory import SLOTS, Memory, Place, Region, VhostError

from .guestmemory import mapped, memory_file, nothing_is_left_open, region

PAGE = mmap.PAGESIZE


@pytest.fixture
def fd() -> Iterator[int]:
    """A file of two pages, which begin with "one" and "two"."""
    with nothing_is_left_open():
        fd = memory_file(2 * PAGE)
        os.pwrite(fd, b"one", 0)
        os.pwrite(fd, b"two", PAGE)
        yield fd
        os.close(fd)


# Regions


def test_a_region_is_what_its_file_holds_from_the_offset_on(fd: int) -> None:
    region = Region(Place(0, PAGE, 0, PAGE), fd)
    assert len(region.view) == PAGE
    assert bytes(region.view[:3]) == b"two"
    region.view[0:3] = b"new"
    assert os.pread(fd, 3, PAGE) == b"new"


@pytest.mark.parametrize(("offset", "size"), [(512, PAGE), (PAGE - 3, 3), (1, 2 * PAGE - 1)])
def test_a_mapping_is_of_whole_pages(fd: int, offset: int, size: int) -> None:
    """As one is that begins within a huge page."""
    region = Region(Place(0, size, 0, offset), fd)
    assert bytes(region.view) == os.pread(fd, size, offset)


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (0, 0),
        (2 * PAGE + 1, 0),
        (PAGE, PAGE + 1),
        (PAGE, 2 * PAGE),
        (1 << 63, 0),
        ((1 << 64) - 1, (1 << 64) - 1),
        (PAGE, (1 << 64) - PAGE),
    ],
)
def test_a_region_that_is_not_in_its_file_is_refused(fd: int, size: int, offset: int) -> None:
    with pytest.raises(VhostError):
        Region(Place(0, size, 0, offset), fd)
    assert not mapped()


def test_only_files_are_memory(tmp_path: Path) -> None:
    ends = [*os.pipe(), os.open(tmp_path, os.O_RDONLY), os.open("/dev/zero", os.O_RDWR)]
    for end in ends:
        with pytest.raises(VhostError, match="not a file"):
            Region(Place(0, PAGE, 0, 0), end)
        os.close(end)


def test_a_file_that_may_not_be_written_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    with path.open("rb") as file, pytest.raises(VhostError, match="mapped"):
        Region(Place(0, PAGE, 0, 0), file.fileno())


def test_a_file_can_not_shrink_any_more(fd: int) -> None:
    Region(Place(0, PAGE, 0, 0), fd)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, PAGE)
    os.ftruncate(fd, 3 * PAGE)


def test_a_file_that_can_not_be_sealed_is_trusted(fd: int, tmp_path: Path) -> None:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    assert bytes(Region(Place(0, PAGE, 0, 0), fd).view[:3]) == b"one"
    path = tmp_path / "file"
    path.write_bytes(b"one".ljust(PAGE))
    with path.open("r+b") as file:
        assert bytes(Region(Place(0, PAGE, 0, 0), file.fileno()).view[:3]) == b"one"


def test_a_region_does_not_need_the_descriptor_that_it_came_with() -> None:
    with nothing_is_left_open():
        made = region(0, PAGE, data=b"data")
        assert bytes(made.view[:4]) == b"data"
        del made


# The table


def test_a_region_stays_mapped_while_a_view_is_in_use() -> None:
    memory = Memory()
    memory.add(region(0, PAGE, data=b"old"))
    view = memory.view(0, 3)
    memory.replace([region(0, PAGE, data=b"new")])
    assert bytes(view) == b"old"
    assert bytes(memory.view(0, 3)) == b"new"
    assert mapped() == 2
    del view
    assert mapped() == 1
    memory.replace([])
    assert mapped() == 0


@pytest.mark.parametrize("guest", [0, PAGE - 1, 2 * PAGE - 1])
def test_regions_that_overlap_are_refused(guest: int) -> None:
    memory = Memory()
    memory.add(region(PAGE, PAGE, data=b"first"))
    other = region(guest, PAGE + 1 if guest == 0 else PAGE)
    with pytest.raises(VhostError, match="overlap"):
        memory.add(other)
    with pytest.raises(VhostError, match="overlap"):
        memory.replace([other, region(PAGE, PAGE)])
    assert bytes(memory.view(PAGE, 5)) == b"first"


def test_regions_at_the_end_of_numbers() -> None:
    memory = Memory()
    memory.add(region((1 << 64) - PAGE, 2 * PAGE))
    assert len(memory.view((1 << 64) - 1, 1)) == 1
    with pytest.raises(VhostError):
        memory.view(0, 1)


def test_there_are_so_many_slots_and_no_more() -> None:
    memory = Memory()
    for number in range(SLOTS):
        memory.add(region(number * PAGE, PAGE))
    one_more = region(SLOTS * PAGE, PAGE)
    with pytest.raises(VhostError, match=str(SLOTS)):
        memory.add(one_more)
    memory.remove(Place(0, PAGE, 0, 0))
    memory.add(one_more)


def test_a_region_is_removed_by_its_addresses_and_size() -> None:
    memory = Memory()
    memory.add(region(PAGE, PAGE, user=3 * PAGE))
    for place in ((0, PAGE, 3 * PAGE), (PAGE, PAGE - 1, 3 * PAGE), (PAGE, PAGE, 0)):
        with pytest.raises(VhostError, match="no such region"):
            memory.remove(Place(*place, 0))
    memory.remove(Place(PAGE, PAGE, 3 * PAGE, 99))  # wherever in a file it was
    with pytest.raises(VhostError):
        memory.view(PAGE, 1)


def test_an_address_of_the_vmm_is_in_one_region() -> None:
    memory = Memory()
    memory.add(region(0, PAGE, user=8 * PAGE, data=b"first"))
    memory.add(region(PAGE, PAGE, user=9 * PAGE, data=b"second"))
    assert bytes(memory.at_user(8 * PAGE, 5)) == b"first"
    assert bytes(memory.at_user(9 * PAGE + 3, 3)) == b"ond"
    assert len(memory.at_user(8 * PAGE, PAGE)) == PAGE
    for address, length in ((8 * PAGE, PAGE + 1), (8 * PAGE - 1, 1), (10 * PAGE, 1), (0, 1)):
        with pytest.raises(VhostError):
            memory.at_user(address, length)


SPACE = 40
places = st.lists(st.tuples(st.integers(0, SPACE), st.integers(1, 12)), min_size=1, max_size=6)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(places, st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=8), st.data())
def test_views_are_of_the_memory_that_a_model_has(
    table: list[tuple[int, int]], changes: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """Regions come and go; each byte of the model is that of its region, or there is none."""
    memory = Memory()
    model: dict[int, tuple[int, int]] = {}  # to the first address and the size of its region
    for comes, number in changes:
        start, size = table[number % len(table)]
        addresses = range(start, start + size)
        if comes:
            made = region(start, size, data=bytes(start for _ in addresses))
            if any(address in model for address in addresses):
                with pytest.raises(VhostError):
                    memory.add(made)
            else:
                memory.add(made)
                model |= dict.fromkeys(addresses, (start, size))
        elif model.get(start) == (start, size):
            memory.remove(Place(start, size, 0, 0))
            for address in addresses:
                del model[address]
        else:
            with pytest.raises(VhostError):
                memory.remove(Place(start, size, 0, 0))
    address = data.draw(st.integers(-1, SPACE + 12))
    most = data.draw(st.integers(1, SPACE))
    if address not in model:
        with pytest.raises(VhostError):
            memory.view(address, most)
        return
    start, size = model[address]
    view = memory.view(address, most)
    assert bytes(view) == bytes([start] * min(most, start + size - address))
    view[0] = 255
    assert memory.view(start, size)[address - start] == 255
