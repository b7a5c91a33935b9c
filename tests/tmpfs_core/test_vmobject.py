"""vmobject: places, and the move of a page from one object to another."""

from collections.abc import Iterator

import pytest

from tmpfs_core.accounting import Blocks
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.swap import Copy
from tmpfs_core.vmobject import Uobj, VMObject, move

from .paging import Spill, pattern, places_of, vnode_of


class Store:
    """Two uobjs in one memory."""

    def __init__(self) -> None:
        self.memory = Memory(64)
        self.budget = Blocks(64)
        self.one, self.other = (Uobj(ino, self.memory, self.budget) for ino in (1, 2))

    def fill(self, uobj: Uobj, pindex: int, data: bytes) -> None:
        """Make a page of one frame."""
        uobj.charge(1)
        page = uobj.pages[pindex] = self.memory.arena.allocate(uobj, pindex)
        page.mask = 1
        page.dirty = True
        page.mem[: len(data)] = data
        self.memory.replacement.insert(page)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def spill() -> Iterator[Spill]:
    spill = Spill(ram=128)
    yield spill
    spill.check()
    spill.swap.close()


# The move


@pytest.mark.parametrize("dirty", [True, False])
def test_a_move_changes_the_owner_and_nothing_else(store: Store, dirty: bool) -> None:
    store.fill(store.one, 3, b"data")
    page = store.one.pages[3]
    page.dirty = dirty
    page.copy = None if dirty else Copy(0, [])
    before = (page.slot, page.mask, page.mem, page.dirty, page.copy, page.pindex, page.queue)
    move(page, store.other)
    assert page.owner is store.other
    assert store.other.pages == {3: page}
    assert store.one.pages == {}
    after = (page.slot, page.mask, page.mem, page.dirty, page.copy, page.pindex, page.queue)
    assert after == before
    assert before[2] is page.mem  # the very same memory: no byte was copied
    assert bytes(page.mem[:4]) == b"data"


def test_a_move_destroys_the_stale_page_at_its_target_first(store: Store) -> None:
    store.fill(store.one, 3, b"new")
    store.fill(store.other, 3, b"stale")
    stale = store.other.pages[3]
    move(store.one.pages[3], store.other)
    assert bytes(store.other.pages[3].mem[:3]) == b"new"
    assert not any(stale.mem)  # its memory went back
    assert (store.memory.ram.used, store.budget.used, store.other.charged) == (1, 1, 0)
    assert len(store.memory.replacement) == 1


def test_a_move_destroys_what_swap_holds_at_its_target_first(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out_all()
    uobj = Uobj(node.ino, spill.memory, spill.mount.blocks)
    uobj.charge(1)
    page = uobj.pages[0] = spill.memory.arena.allocate(uobj, 0)
    page.mask = 1
    page.dirty = True
    spill.memory.replacement.insert(page)
    move(page, node.uobj)
    node.uobj.charged += 1
    assert not node.uobj.swapped
    assert (spill.swap.used, spill.memory.swapped, spill.memory.ram.used) == (0, 0, 1)


def test_a_page_moves_into_a_vnode_only_where_none_is(spill: Spill) -> None:
    node = spill.file(data=b"x")
    vp = vnode_of(node)
    with pytest.raises(AssertionError):
        move(vp.pages[0], vp)
    assert vp.pages[0].owner is vp


def test_an_object_of_no_kind_has_no_rules(spill: Spill) -> None:
    page = vnode_of(spill.file(data=b"data")).pages[0]
    with pytest.raises(NotImplementedError):
        VMObject(1).empty(0)
    with pytest.raises(NotImplementedError):
        VMObject(1).rest(page)


# Places


def test_a_page_is_called_by_its_file_and_place_whoever_owns_it(spill: Spill) -> None:
    node = spill.file(data=bytes(2 * BLOCK))
    page = vnode_of(node).pages[1]
    assert page.key == (node.ino, 1)
    page.owner.rest(page)
    assert (page.owner, page.key) == (node.uobj, (node.ino, 1))


def test_an_evicted_page_is_in_swap_and_what_is_admitted_is_in_ram(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 3 * FRAME))
    memory = spill.memory
    spill.page_out_all()
    assert (list(node.uobj.swapped), node.uobj.pages) == ([0], {})
    assert (memory.ram.used, memory.swapped, spill.swap.used, node.uobj.charged) == (0, 3, 3, 3)
    spill.bring_in(places_of(node))
    assert (list(node.uobj.pages), node.uobj.swapped) == ([0], {})
    assert (memory.ram.used, memory.swapped, spill.swap.used, node.uobj.charged) == (3, 0, 3, 3)


def test_emptying_a_place_frees_it_in_whichever_state(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    spill.bring_in([(node.uobj, 1)])
    for place, charged in ((0, 16), (1, 0), (2, 0)):
        node.uobj.empty(place)
        spill.check()
        assert node.uobj.charged == charged
    assert (spill.memory.ram.used, spill.swap.used) == (0, 0)


def test_trimming_what_is_not_in_swap_does_nothing(spill: Spill) -> None:
    node = spill.file(data=b"x")
    node.uobj.trim(0, 0)
    spill.check()
    assert spill.get(node) == b"x"
