"""Page replacement: which resident page leaves RAM next.

Rules of this file:

* Nothing here knows memory, swap or files: pages come in by :meth:`Replacement.insert`, victims
  go out by :meth:`Replacement.pick`.  It counts pages, whatever number of frames each holds.
* A hit is one store by the caller, ``page.heat = replacement.generation``; no queue moves.  The
  generation grows by one for each 48th of the pages that comes in, so the store tells *when* the
  page was last used, just closely enough.  What hits mean is settled when a victim is wanted.
* Time is counted in insertions, not in hits.  So the burst of requests that reads one block bit
  by bit falls in the generation in which the block came in, and does not make it look hot.
* Pages are in two queues.  New ones are in *small*; one that was hit there in a later generation
  moves up to *main*.  While *small* has its share of the pages or more, the victim is its coldest
  page; so a scan flows through it and leaves *main* alone.  Else it is the coldest of all.
* The keys of evicted pages are kept for a while as *ghosts*, about as many as there are pages at
  most.  A page that comes back while its ghost is there shows what was wrong:

  - It left *small*, and was used since the coldest page of *main* was: it takes a place in *main*,
    and *small*'s share grows.  If even the coldest of *main* is hotter, as in a loop over more
    pages than fit, it must pass through *small* again, and those in *main* keep their hits.
  - It left *main*: it goes back there, and *small*'s share shrinks.

  Each counts the more, the fewer ghosts of its kind there are; and each victim from *small* takes
  one page of the share back, down to a sixteenth.

Why this, and no policy from a textbook: each of them missed more often than LRU on some trace of
``bench/replacement.py``, or did nothing for a loop.  CLOCK and 2Q lose the hot set to a scan, or
the loop; ARC loses the loop.  S3-FIFO, CLOCK-Pro and SIEVE withstand the scan, but miss about
twice (SIEVE: four times) as often as LRU when the working set moves, for the new set must come in
past the old one.  Here, the ghosts move the border until it does: on the traces made to favour
LRU, some of which it serves optimally, this misses a few hundredths more often (a tenth, if RAM
is fewer than 100 pages), and on all others less often.

The queues and ghosts are those of 2Q [1] and S3-FIFO [2], the rule by which a ghost is hot that of
LIRS [3], the share that follows the ghosts is ARC's [4], and the lazily sorted generations are
those of Linux's multi-generational LRU [5].  ``bench/replacement.py`` measures all of it.

[1] Johnson, Shasha: 2Q, a low overhead high performance buffer management algorithm, VLDB 1994.
[2] Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction, SOSP 2023.
[3] Jiang, Zhang: LIRS, an efficient low inter-reference recency set policy, SIGMETRICS 2002.
[4] Megiddo, Modha: ARC, a self-tuning, low overhead replacement cache, FAST 2003.
[5] Zhao: Multi-gen LRU, Linux 6.1, 2022 (Documentation/mm/multigen_lru.rst).
"""

from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

Key = tuple[int, int]

GENERATIONS = 48  # in which every page could be replaced once
LEAST_SHARE = 1 / 16  # of the pages, that small may always hold
STEP = 1 / 64  # of the pages, by which a ghost moves the border
LEAST_STEP = 8  # pages
SMALL_GHOSTS = 2 / 3  # of the number of pages
MAIN_GHOSTS = 1 / 3
MOST_MOVES = 256  # in one search for a victim: it ends soon even if every page was hit
SLACK = 64  # removed pages that may wait in a queue beyond the number of those that live

_SMALL, _MAIN = 1, 2  # the queue of a page; 0: in none; negative: removed from that one


class Candidate(Protocol):
    """What a page must have; ``key`` is its inode number and block, and never changes.

    A new page has ``queue = 0``.  Its user stores ``heat``, and leaves ``queue`` alone.
    """

    heat: int
    queue: int

    @property
    def key(self) -> Key: ...


P = TypeVar("P", bound=Candidate)


class _Queue(Generic[P]):
    """Pages by generation, oldest first; in one generation, first in, first out.

    A page stays in the generation in which it was put, until it is the first and found to have
    been hit; then it goes up.  A removed page stays until it is the first, or too many such are.
    """

    __slots__ = ("_buckets", "_front", "_generations", "_mark", "_up", "dead", "live", "oldest")

    def __init__(self, mark: int, up: "_Queue[P] | None" = None) -> None:
        self._mark = mark
        self._up = up or self
        self.live = 0
        self.dead = 0
        self.oldest = 0  # all in front are of this generation or older ones
        self._front: list[P] = []  # its last is the first page of the queue
        self._buckets: dict[int, list[P]] = {}
        self._generations: list[int] = []  # the keys of buckets, as a heap

    def put(self, page: P, generation: int) -> None:
        page.queue = self._mark
        self.live += 1
        if generation < self.oldest:
            self._front.append(page)
        elif (bucket := self._buckets.get(generation)) is not None:
            bucket.append(page)
        else:
            self._buckets[generation] = [page]
            heappush(self._generations, generation)

    def take_first(self) -> P:
        """Take out the page that :meth:`coldest` gave."""
        page = self._front.pop()
        page.queue = 0
        self.live -= 1
        return page

    def coldest(self) -> P | None:
        """The first page, after those that were hit have gone up."""
        for _ in range(MOST_MOVES):
            page = self._first()
            if page is None or page.heat <= self.oldest:
                return page
            self._up.put(self.take_first(), page.heat)
        return self._first()

    def _first(self) -> P | None:
        front = self._front
        while self.live:
            while front:
                page = front[-1]
                if page.queue == self._mark:
                    return page
                front.pop().queue = 0
                self.dead -= 1
            self.oldest = heappop(self._generations)
            front[:] = reversed(self._buckets.pop(self.oldest))
        return None

    def remove(self, page: P) -> None:
        page.queue = -self._mark
        self.live -= 1
        self.dead += 1
        if self.dead > self.live + SLACK or not self.live:
            self._sweep()

    def restore(self, page: P) -> None:
        """Put a removed page that is still here back in its place."""
        page.queue = self._mark
        self.live += 1
        self.dead -= 1

    def _sweep(self) -> None:
        for pages in (self._front, *self._buckets.values()):
            for page in pages:
                if page.queue == -self._mark:
                    page.queue = 0
            pages[:] = [page for page in pages if page.queue]
        buckets = [(generation, pages) for generation, pages in self._buckets.items() if pages]
        self._buckets.clear()  # else it would not shrink
        self._buckets.update(buckets)
        self._generations[:] = sorted(self._buckets)  # sorted is a heap, too
        self.dead = 0

    def check(self) -> None:
        pages = [*self._front, *(page for bucket in self._buckets.values() for page in bucket)]
        assert len({id(page) for page in pages}) == len(pages), "a page is queued twice"
        assert sum(page.queue == self._mark for page in pages) == self.live
        assert sum(page.queue == -self._mark for page in pages) == self.dead
        assert self.live + self.dead == len(pages)
        assert self.dead <= self.live + SLACK
        assert sorted(self._generations) == sorted(self._buckets)
        assert all(self._buckets.values()), "an empty generation"


class _Ghosts:
    """Keys of evicted pages, and the heat they had; the oldest half goes when there are too many.

    (A dict from which the oldest is taken again and again must skip ever more empty places.)
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Key, int] = {}
        self._old: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, key: Key, heat: int, limit: float) -> None:
        if 2 * len(self._young) >= limit:
            self._old = self._young
            self._young = {}
        self._young[key] = heat

    def pop(self, key: Key) -> int | None:
        heat = self._young.pop(key, None)
        return self._old.pop(key, None) if heat is None else heat


class Replacement(Generic[P]):
    """The pages that may be evicted, and the order in which they should be.

    Attributes:
        generation: what the caller stores into a page's ``heat`` when the page is used.
    """

    __slots__ = (
        "_inserted",
        "_main",
        "_main_ghosts",
        "_share",
        "_small",
        "_small_ghosts",
        "generation",
    )

    def __init__(self) -> None:
        self.generation = 1
        self._inserted = 0  # pages in this generation
        self._share = LEAST_SHARE
        self._main: _Queue[P] = _Queue(_MAIN)
        self._small: _Queue[P] = _Queue(_SMALL, up=self._main)
        self._small_ghosts = _Ghosts()
        self._main_ghosts = _Ghosts()

    def __len__(self) -> int:
        return self._small.live + self._main.live

    def insert(self, page: P) -> None:
        """The page is resident now: it was made, or came back from swap.

        One that was removed and is inserted again may find its old place.
        """
        if page.queue < 0:
            (self._small if page.queue == -_SMALL else self._main).restore(page)
            return
        assert page.queue == 0, "the page is already here"
        count = self._small.live + self._main.live
        self._inserted += 1
        if self._inserted * GENERATIONS >= count:
            self._inserted = 0
            self.generation += 1
        page.heat = self.generation
        queue = self._main if self._belongs_to_main(page.key, count) else self._small
        queue.put(page, page.heat)

    def _belongs_to_main(self, key: Key, count: int) -> bool:
        heat = self._small_ghosts.pop(key)
        if heat is not None:
            coldest = self._main.coldest()
            if coldest is not None and coldest.heat < heat:
                self._move_border(1, count, self._small_ghosts, self._main_ghosts)
                return True
            return self._main.live < count * (1 - self._share)
        if self._main_ghosts.pop(key) is not None:
            self._move_border(-1, count, self._main_ghosts, self._small_ghosts)
            return True
        return False

    def _move_border(self, sign: int, count: int, met: _Ghosts, others: _Ghosts) -> None:
        step = max(STEP, LEAST_STEP / (count + 1)) * max(1.0, len(others) / (len(met) + 1))
        self._share = min(1.0, max(LEAST_SHARE, self._share + sign * step))

    def remove(self, page: P) -> None:
        """The page was freed; nothing happens if it is not here (because it was picked, say)."""
        if page.queue > 0:
            (self._small if page.queue == _SMALL else self._main).remove(page)

    def pick(self) -> P | None:
        """Take out the page to evict next; None if there is none."""
        small, main = self._small, self._main
        count = small.live + main.live
        cold, coldest = small.coldest(), main.coldest()
        if cold is not None and (
            coldest is None or small.live >= self._share * count or cold.heat < coldest.heat
        ):
            self._share = max(LEAST_SHARE, self._share - 1 / count)
            self._small_ghosts.add(cold.key, cold.heat, count * SMALL_GHOSTS)
            return small.take_first()
        if coldest is None:
            return None
        self._main_ghosts.add(coldest.key, coldest.heat, count * MAIN_GHOSTS)
        return main.take_first()

    def give_back(self, page: P) -> None:
        """A picked page could not be evicted: it goes to the end of the queue where it was.

        That is no hit.  It is tried again after the others of that queue.
        """
        assert page.queue == 0, "the page was not picked"
        page.heat = self.generation
        left_main = self._main_ghosts.pop(page.key) is not None
        self._small_ghosts.pop(page.key)
        (self._main if left_main else self._small).put(page, page.heat)

    def check(self) -> None:
        """Assert what must always hold; slow, for tests."""
        self._small.check()
        self._main.check()
        assert LEAST_SHARE <= self._share <= 1
