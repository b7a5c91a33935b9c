"""locks: byte-range locks as fcntl(2) has them, also against a model with one cell a byte."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core.locks import FOREVER, Lock, RangeLocks

SHARED, EXCLUSIVE = False, True


def lock(
    start: int, stop: int, exclusive: bool = EXCLUSIVE, owner: str = "me", handle: object = "fd"
) -> Lock:
    return Lock(start, stop, exclusive, owner, handle)


def held(locks: RangeLocks, owner: str = "me") -> list[tuple[int, int, bool]]:
    """What ``owner`` holds: (start, stop, exclusive), lowest first."""
    return sorted((it.start, it.stop, it.exclusive) for it in locks.held if it.owner == owner)


def taken(*wanted: Lock) -> RangeLocks:
    """Locks of which each could be had."""
    locks = RangeLocks()
    for one in wanted:
        assert locks.acquire(one) is None
    return locks


# Conflicts


def test_shared_locks_of_two_owners_go_together() -> None:
    locks = taken(lock(0, 10, SHARED), lock(0, 10, SHARED, "you"))
    assert held(locks) == held(locks, "you") == [(0, 10, SHARED)]


def test_an_exclusive_lock_excludes_every_other_owner() -> None:
    locks = taken(lock(0, 10, EXCLUSIVE))
    for kind in (SHARED, EXCLUSIVE):
        blocker = locks.acquire(lock(9, 20, kind, "you"))
        assert blocker == lock(0, 10, EXCLUSIVE)
    assert held(locks, "you") == []


def test_a_shared_lock_excludes_an_exclusive_one() -> None:
    locks = taken(lock(0, 10, SHARED))
    assert locks.conflict(lock(0, 1, EXCLUSIVE, "you")) == lock(0, 10, SHARED)
    assert locks.conflict(lock(0, 1, SHARED, "you")) is None


def test_locks_that_only_touch_do_not_conflict() -> None:
    locks = taken(lock(10, 20), lock(0, 10, owner="you"), lock(20, 30, owner="you"))
    assert held(locks, "you") == [(0, 10, EXCLUSIVE), (20, 30, EXCLUSIVE)]


def test_the_conflict_told_is_the_one_with_the_lowest_start() -> None:
    locks = taken(lock(20, 30), lock(5, 8, owner="other"), lock(10, 12))
    assert locks.conflict(lock(6, 100, owner="you")) == lock(5, 8, owner="other")
    assert locks.conflict(lock(9, 100, owner="you")) == lock(10, 12)


def test_asking_for_conflicts_takes_nothing() -> None:
    locks = RangeLocks()
    assert locks.conflict(lock(0, 10)) is None
    assert locks.held == []


def test_a_lock_to_the_end_reaches_every_byte() -> None:
    locks = taken(lock(100, FOREVER))
    assert locks.conflict(lock(FOREVER - 1, FOREVER, SHARED, "you")) is not None
    assert locks.conflict(lock(0, 100, EXCLUSIVE, "you")) is None


# What an owner holds is replaced, split and merged


def test_an_owner_converts_its_own_lock() -> None:
    locks = taken(lock(0, 10, SHARED), lock(0, 10, EXCLUSIVE))
    assert held(locks) == [(0, 10, EXCLUSIVE)]


def test_a_conversion_in_the_middle_splits() -> None:
    locks = taken(lock(0, 10, SHARED), lock(4, 6, EXCLUSIVE))
    assert held(locks) == [(0, 4, SHARED), (4, 6, EXCLUSIVE), (6, 10, SHARED)]


def test_touching_locks_of_one_kind_become_one() -> None:
    locks = taken(lock(0, 4), lock(6, 10), lock(4, 6))
    assert held(locks) == [(0, 10, EXCLUSIVE)]


def test_overlapping_locks_of_one_kind_become_one() -> None:
    locks = taken(lock(0, 6), lock(4, 10))
    assert held(locks) == [(0, 10, EXCLUSIVE)]


def test_locks_of_two_handles_stay_apart() -> None:
    locks = taken(lock(0, 5, handle="fd 1"), lock(5, 10, handle="fd 2"))
    assert held(locks) == [(0, 5, EXCLUSIVE), (5, 10, EXCLUSIVE)]


def test_a_refused_conversion_leaves_the_old_lock() -> None:
    locks = taken(lock(0, 10, SHARED), lock(0, 10, SHARED, "you"))
    assert locks.acquire(lock(0, 10, EXCLUSIVE)) is not None
    assert held(locks) == [(0, 10, SHARED)]


def test_releasing_the_middle_splits() -> None:
    locks = taken(lock(0, 10))
    locks.release("me", 3, 7)
    assert held(locks) == [(0, 3, EXCLUSIVE), (7, 10, EXCLUSIVE)]


def test_releasing_touches_no_other_owner() -> None:
    locks = taken(lock(0, 10, SHARED), lock(0, 10, SHARED, "you"))
    locks.release("me", 0, FOREVER)
    assert held(locks) == []
    assert held(locks, "you") == [(0, 10, SHARED)]


def test_a_handle_takes_its_locks_with_it() -> None:
    locks = taken(
        lock(0, 5, handle="fd 1"), lock(10, 15, handle="fd 2"), lock(20, 25, handle="fd 1")
    )
    locks.release_handle("fd 1")
    assert held(locks) == [(10, 15, EXCLUSIVE)]


def test_a_lock_belongs_to_the_handle_that_asked_last() -> None:
    locks = taken(lock(0, 10, handle="fd 1"), lock(4, 6, handle="fd 2"))
    locks.release_handle("fd 1")
    assert held(locks) == [(4, 6, EXCLUSIVE)]


# Waiters


def notices(locks: RangeLocks) -> list[int]:
    """Two waiters that note their number when called."""
    noted: list[int] = []
    locks.waiters += [lambda: noted.append(1), lambda: noted.append(2)]
    return noted


def test_waiters_hear_of_a_release_in_their_order() -> None:
    locks = taken(lock(0, 10))
    noted = notices(locks)
    locks.release("me", 0, 1)
    assert noted == [1, 2]


def test_waiters_hear_when_a_handle_goes() -> None:
    locks = taken(lock(0, 10))
    noted = notices(locks)
    locks.release_handle("fd")
    assert noted == [1, 2]


def test_waiters_hear_when_exclusive_becomes_shared() -> None:
    locks = taken(lock(0, 10, EXCLUSIVE))
    noted = notices(locks)
    locks.acquire(lock(2, 3, SHARED))
    assert noted == [1, 2]


def test_waiters_do_not_hear_when_nothing_was_released() -> None:
    locks = taken(lock(0, 10, SHARED))
    noted = notices(locks)
    locks.release("me", 10, 20)
    locks.release("you", 0, 10)
    locks.release_handle("another fd")
    locks.acquire(lock(0, 10, EXCLUSIVE))
    locks.acquire(lock(0, 10, EXCLUSIVE, "you"))
    assert noted == []


def test_a_waiter_may_take_the_lock_and_leave_the_queue_while_it_is_called() -> None:
    locks = taken(lock(0, 10))
    results: list[bool] = []

    def first() -> None:
        results.append(locks.acquire(lock(0, 10, owner="first")) is None)
        locks.waiters.remove(first)

    def second() -> None:
        results.append(locks.acquire(lock(0, 10, owner="second")) is None)

    locks.waiters += [first, second]
    locks.release("me", 0, 10)
    assert results == [True, False]
    assert locks.waiters == [second]
    assert held(locks, "first") == [(0, 10, EXCLUSIVE)]


# Any mixture, against one cell a byte

BYTES = 12


@dataclass(frozen=True, slots=True)
class Step:
    kind: str
    owner: str
    handle: str
    exclusive: bool
    start: int
    stop: int


steps = st.lists(
    st.builds(
        lambda kind, owner, handle, exclusive, a, b: Step(
            kind, owner, handle, exclusive, min(a, b), max(a, b) + 1
        ),
        st.sampled_from(["acquire", "acquire", "acquire", "release", "release_handle"]),
        st.sampled_from("AB"),
        st.sampled_from("xyz"),
        st.booleans(),
        st.integers(0, BYTES - 1),
        st.integers(0, BYTES - 1),
    ),
    max_size=25,
)

#: (owner, byte) -> (exclusive, handle)
Cells = dict[tuple[str, int], tuple[bool, str]]


def excludes(cells: Cells, step: Step) -> list[int]:
    """The bytes at which another owner is in the way."""
    return [
        byte
        for (owner, byte), (exclusive, _) in cells.items()
        if owner != step.owner and step.start <= byte < step.stop and (exclusive or step.exclusive)
    ]


def as_cells(locks: RangeLocks) -> Cells:
    cells: Cells = {}
    for it in locks.held:
        for byte in range(it.start, it.stop):
            assert (str(it.owner), byte) not in cells, "an owner holds a byte twice"
            cells[str(it.owner), byte] = (it.exclusive, str(it.handle))
    return cells


def mergeable(locks: RangeLocks) -> bool:
    return any(
        (a.stop, a.owner, a.handle, a.exclusive) == (b.start, b.owner, b.handle, b.exclusive)
        for a in locks.held
        for b in locks.held
    )


@settings(derandomize=True, deadline=None, max_examples=400)
@given(steps)
def test_any_mixture_agrees_with_one_cell_a_byte(mixture: list[Step]) -> None:
    locks = RangeLocks()
    cells: Cells = {}
    calls: list[None] = []
    locks.waiters.append(lambda: calls.append(None))
    for step in mixture:
        calls.clear()
        before = dict(cells)
        span = range(step.start, step.stop)
        if step.kind == "acquire":
            wanted = Lock(step.start, step.stop, step.exclusive, step.owner, step.handle)
            in_the_way = excludes(cells, step)
            blocker = locks.acquire(wanted)
            assert (blocker is not None) == bool(in_the_way)
            if blocker is None:
                cells |= {(step.owner, byte): (step.exclusive, step.handle) for byte in span}
            else:
                assert blocker in locks.held
                assert blocker.owner != step.owner
                assert blocker.start <= min(in_the_way) < blocker.stop
        elif step.kind == "release":
            locks.release(step.owner, step.start, step.stop)
            for byte in span:
                cells.pop((step.owner, byte), None)
        else:
            locks.release_handle(step.handle)
            cells = {at: cell for at, cell in cells.items() if cell[1] != step.handle}
        assert as_cells(locks) == cells
        assert not mergeable(locks)
        weaker = any(at not in cells or old[0] > cells[at][0] for at, old in before.items())
        assert calls or not weaker, "somebody could have what he waits for and was not told"
        assert cells != before or not calls or step.kind == "acquire", "told of nothing"
