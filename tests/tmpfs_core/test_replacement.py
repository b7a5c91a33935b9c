"""The page-replacement policy against simple rules, and against LRU on small traces.

Rules of this file:

* ``Resident`` plays the server: pages by key, hits as one store, evictions when it is full.
* The four traces are those of ``bench/replacement.py`` in small; its table is the real comparison.
"""

import gc
import random
import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bench import replacement as bench
from tmpfs_core.replacement import MOST_MOVES, SLACK, Replacement


class Page:
    __slots__ = ("heat", "key", "queue")

    def __init__(self, block: int, inode: int = 1) -> None:
        self.heat = 0
        self.key = (inode, block)
        self.queue = 0


class Resident:
    """A RAM of ``size`` pages."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.policy: Replacement[Page] = Replacement()
        self.pages: dict[int, Page] = {}

    def use(self, block: int) -> bool:
        """Whether it was resident; now it is."""
        page = self.pages.get(block)
        if page is not None:
            page.heat = self.policy.generation
            return True
        if len(self.pages) == self.size:
            victim = self.policy.pick()
            assert victim is not None
            del self.pages[victim.key[1]]
        self.pages[block] = page = Page(block)
        self.policy.insert(page)
        return False


class Rules(RuleBasedStateMachine):
    """Whatever happens, a page that was inserted leaves once: by pick or by remove."""

    def __init__(self) -> None:
        super().__init__()
        self.policy: Replacement[Page] = Replacement()
        self.queued: dict[int, Page] = {}
        self.picked: dict[int, Page] = {}
        self.removed: dict[int, Page] = {}

    @rule(block=st.integers(0, 40))
    def insert(self, block: int) -> None:
        if block not in self.queued and block not in self.picked:
            self.removed.pop(block, None)
            self.queued[block] = page = Page(block)
            self.policy.insert(page)

    @rule(count=st.integers(1, 100))
    def insert_many(self, count: int) -> None:
        for block in range(100, 100 + count):
            self.insert(block)

    @rule(block=st.integers(0, 40))
    def hit(self, block: int) -> None:
        page = self.queued.get(block) or self.picked.get(block)
        if page is not None:
            page.heat = self.policy.generation

    @rule()
    def hit_all(self) -> None:
        for page in self.queued.values():
            page.heat = self.policy.generation

    @rule(which=st.integers(0, 200))
    def remove(self, which: int) -> None:
        if self.queued:
            block = list(self.queued)[which % len(self.queued)]
            self.removed[block] = page = self.queued.pop(block)
            self.policy.remove(page)

    @rule()
    def remove_in_vain(self) -> None:
        for page in (*self.removed.values(), *self.picked.values()):
            self.policy.remove(page)

    @rule()
    def remove_all(self) -> None:
        while self.queued:
            self.remove(0)

    @rule()
    def insert_again(self) -> None:
        for block, page in self.removed.items():
            if block not in self.picked:
                self.queued[block] = page
                self.policy.insert(page)
        self.removed.clear()

    @rule(count=st.integers(1, 50))
    def pick(self, count: int) -> None:
        for _ in range(count):
            page = self.policy.pick()
            if page is None:
                assert not self.queued
                break
            assert self.queued.pop(page.key[1]) is page
            self.picked[page.key[1]] = page

    @rule()
    def evicted(self) -> None:
        self.picked.clear()

    @rule()
    def give_back(self) -> None:
        for page in self.picked.values():
            self.policy.give_back(page)
        self.queued.update(self.picked)
        self.picked.clear()

    @invariant()
    def holds(self) -> None:
        self.policy.check()
        assert len(self.policy) == len(self.queued)

    def teardown(self) -> None:
        self.pick(len(self.queued) + 1)
        assert len(self.policy) == 0


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_nothing_to_pick() -> None:
    assert Replacement[Page]().pick() is None


def test_without_hits_the_order_is_first_in_first_out() -> None:
    policy = Replacement[Page]()
    for block in range(1000):
        policy.insert(Page(block))
    order = [page.key[1] for page in iter(policy.pick, None)]
    assert order == list(range(1000))


def test_a_hit_in_the_generation_of_the_insertion_does_not_count() -> None:
    """The other requests for a block that was just read must not make it look hot."""
    policy = Replacement[Page]()
    for block in range(1000):
        page = Page(block)
        policy.insert(page)
        page.heat = policy.generation
    victim = policy.pick()
    assert victim is not None
    assert victim.key == (1, 0)


def test_a_hot_set_survives_a_scan() -> None:
    ram = Resident(200)
    hot = range(150)
    for _ in range(3):
        for block in hot:
            ram.use(block)
    for block in range(1000, 1030):  # time passes
        ram.use(block)
    for block in hot:
        ram.use(block)
    for block in range(2000, 4000):
        ram.use(block)
        ram.policy.check()
    assert sum(not ram.use(block) for block in hot) == 0


def test_the_old_working_set_gives_way() -> None:
    ram = Resident(200)
    rng = random.Random(1)
    misses = [
        sum(not ram.use(1000 * i + rng.randrange(160)) for _ in range(4000)) for i in range(9)
    ]
    assert misses[0] == 160
    assert sum(misses[5:]) <= 4 * 160 * 1.05  # it learned to let the new set in at once


def test_given_back_pages_are_tried_once_each() -> None:
    policy = Replacement[Page]()
    for block in range(300):
        policy.insert(Page(block))
    seen = set()
    for _ in range(300):
        page = policy.pick()
        assert page is not None
        seen.add(page.key)
        policy.give_back(page)
        policy.check()
    assert len(seen) == len(policy) == 300


def test_a_page_that_was_given_back_was_not_hit() -> None:
    policy = Replacement[Page]()
    first = Page(0)
    policy.insert(first)
    for block in range(1, 100):
        policy.insert(Page(block))
    assert policy.pick() is first
    policy.give_back(first)
    order = [page.key[1] for page in iter(policy.pick, None)]
    assert order == [*range(1, 100), 0]


def test_one_search_is_short_even_if_every_page_was_hit() -> None:
    policy = Replacement[Page]()
    pages = [Page(block) for block in range(10_000)]
    for page in pages:
        policy.insert(page)
    for page in pages:
        page.heat = policy.generation
    policy.pick()
    moved = sum(page.queue != pages[-1].queue for page in pages)
    assert moved <= MOST_MOVES + 1


def count_pages() -> int:
    gc.collect()
    return sum(isinstance(thing, Page) for thing in gc.get_objects())


def test_memory_stays_bounded_without_any_eviction() -> None:
    policy = Replacement[Page]()
    for block in range(100):
        policy.insert(Page(block))
    alive = count_pages()
    tracemalloc.start()
    for block in range(1_000_000):
        if block == 10_000:
            tracemalloc.stop()  # it is slow
        page = Page(block, inode=2)
        policy.insert(page)
        policy.remove(page)
        if block == 9_999:
            assert tracemalloc.get_traced_memory()[1] < 100_000
    policy.check()
    assert len(policy) == 100
    assert count_pages() - alive <= 100 + SLACK


def test_memory_stays_bounded_while_pages_come_back() -> None:
    ram = Resident(100)
    tracemalloc.start()
    for block in range(20_000):
        ram.use(block if block % 2 else block % 300)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    ram.policy.check()


def test_removed_pages_are_forgotten_in_the_end() -> None:
    policy = Replacement[Page]()
    pages = [Page(block) for block in range(10_000)]
    for page in pages:
        policy.insert(page)
    for page in pages:
        policy.remove(page)
    policy.check()
    assert len(policy) == 0
    assert sum(page.queue != 0 for page in pages) <= SLACK
    assert policy.pick() is None


RAM = 200
SMALL = bench.traces(ram=RAM, length=100 * RAM)["gate"]


@pytest.mark.parametrize("name", SMALL)
def test_no_more_misses_than_lru(name: str) -> None:
    trace = SMALL[name]
    limit = bench.SCAN_LIMIT if "scan" in name else 1.0
    assert bench.ours(trace, RAM) <= limit * bench.lru(trace, RAM)


@pytest.mark.parametrize("name", SMALL)
def test_no_policy_beats_the_optimum(name: str) -> None:
    trace = SMALL[name][:5000]
    best = bench.belady(trace, RAM)
    assert all(policy(trace, RAM) >= best for policy in bench.POLICIES.values())
