"""Page replacement policies compared: ``python -m bench.replacement [--tune]``.

Rules of this file:

* A trace is a list of keys; a policy is a function that counts the misses of a trace in a RAM of
  ``size`` pages.  The textbook's are written here, as short as they can be; ours is the class that
  the server uses, driven as the server drives it.
* All is seeded: who runs it gets the table of ``bench/results/replacement.md`` and its picture.
* Traces come in three groups.  *Gate*: there, ours must miss at most as often as LRU, and at most
  0.85 times as often where a scan comes through; the exit status tells.  *Files*: what a file
  server's pages may see, with several requests in a row for each block.  *LRU's own*: there, LRU is
  (all but) optimal, so that no policy that withstands scans can be as good; how near is it?
* ``--tune`` adds the table of what our policy's constants do (a minute).
"""

import argparse
import importlib
import random
import statistics
import sys
import time
import tracemalloc
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import accumulate, count
from pathlib import Path
from typing import Any

from bench.report import table
from bench.tools import RESULTS
from tmpfs_core import replacement

RAM = 1000  # pages
LENGTH = 100_000  # references in a trace, about
SCAN_LIMIT = 0.85  # of LRU's misses

Trace = list[int]
Policy = Callable[[Trace, int], int]


# --- Traces ---------------------------------------------------------------------------------------


def zipf(rng: random.Random, pages: int, alpha: float, length: int) -> Trace:
    """Independent references; the k-th most popular page is met k**alpha times less often."""
    names = rng.sample(range(pages), pages)
    weights = list(accumulate((k + 1) ** -alpha for k in range(pages)))
    return rng.choices(names, cum_weights=weights, k=length)


def scanned(rng: random.Random, base: Trace, scan: int, every: int, mix: float = 0.0) -> Trace:
    """Base with a scan over ``scan`` pages that nobody uses again after ``every`` references.

    ``mix`` is the chance that a page of the scan is followed by a reference of base.
    """
    trace: Trace = []
    cold = count(10**9)
    references = iter(base)
    while True:
        for _ in range(every):
            if (page := next(references, None)) is None:
                return trace
            trace.append(page)
        for _ in range(scan):
            trace.append(next(cold))
            while rng.random() < mix and (page := next(references, None)) is not None:
                trace.append(page)


def loop(pages: int, length: int) -> Trace:
    return [i % pages for i in range(length)]


def drifting(rng: random.Random, pages: int, alpha: float, every: int, length: int) -> Trace:
    """A working set in which each ``every`` references a new page replaces one, at random."""
    names = list(range(pages))
    fresh = count(pages)
    trace = zipf(rng, pages, alpha, length)
    for i, rank in enumerate(trace):
        if i % every == 0:
            names[rng.randrange(pages)] = next(fresh)
        trace[i] = names[rank]
    return trace


def jumping(
    rng: random.Random, pages: int, alpha: float, phase: int, length: int, step: int
) -> Trace:
    """A working set that changes at once: ``step`` 0 shuffles who is popular, else all is new."""
    return [
        page + step * start
        for start in range(0, length, phase)
        for page in zipf(rng, pages, alpha, phase)
    ]


def sliding(rng: random.Random, pages: int, every: int, length: int) -> Trace:
    """All of a window of pages are equally popular; it moves on by one each ``every``."""
    return [i // every + rng.randrange(pages) for i in range(length)]


def recent(rng: random.Random, mean: int, pages: int, length: int) -> Trace:
    """LRU's model of the world: the chance of a page falls with the time since its last use."""
    stack = list(range(pages))
    fresh = count(pages)
    trace = []
    for _ in range(length):
        depth = int(rng.expovariate(1 / mean))
        page = stack.pop(min(depth, pages - 1))
        if depth >= pages:
            page = next(fresh)
        stack.insert(0, page)
        trace.append(page)
    return trace


def in_pieces(rng: random.Random, base: Trace, pieces: int, clients: int) -> Trace:
    """Each block is read in so many requests in a row, by clients whose requests mingle."""
    references = iter(base)
    current = [next(references) for _ in range(clients) for _ in range(pieces)]
    trace = []
    while True:
        place = rng.randrange(clients) * pieces
        for i in range(place, place + pieces):
            if current[i] >= 0:
                trace.append(current[i])
                current[i] = -1
                break
        else:
            if (page := next(references, None)) is None:
                return trace
            current[place : place + pieces] = [page] * pieces


def big_file(rng: random.Random, hot: int, big: int, pieces: int, length: int) -> Trace:
    """A big file is read again and again, each block in pieces, beside small hot files."""
    files = iter(zipf(rng, hot, 0.8, length))
    trace = []
    for block in count():
        for _ in range(pieces):
            trace.append(10**6 + block % big)
            if rng.random() < 0.3:
                trace.append(next(files))
        if len(trace) >= length:
            return trace
    raise AssertionError


def database(rng: random.Random, leaves: int, length: int) -> Trace:
    """Like SQLite: B-tree lookups, a journal that is written and checkpointed, a rare full scan."""
    rows = iter(zipf(rng, leaves, 0.9, length))
    trace: Trace = []
    journal = 0
    while len(trace) < length:
        leaf = next(rows)
        trace += (-1, -2 - leaf // 64, leaf)
        if rng.random() < 0.3:
            trace += [10**6 + journal] * 2
            journal += 1
        if journal == 300:
            trace += range(10**6, 10**6 + journal)
            journal = 0
        if rng.random() < 0.00015:
            for leaf in range(leaves):
                trace += (-2 - leaf // 64, leaf)
    return trace


def traces(ram: int = RAM, length: int = LENGTH, seed: int = 9) -> dict[str, dict[str, Trace]]:
    """The traces by group and name; sizes are in units of the RAM."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed} {name}")

    def popular(pages: float, alpha: float) -> Trace:
        return zipf(rng(f"zipf {pages} {alpha}"), int(pages * ram), alpha, length)

    gate = {f"zipf {alpha}, 10 RAM": popular(10, alpha) for alpha in (0.7, 1.0, 1.2)}
    gate["zipf 1.0, 2 RAM + scan 1 RAM"] = scanned(rng("a"), popular(2, 1.0), ram, 8 * ram)
    gate["zipf 1.0, 2 RAM + scan 1 RAM, mingled"] = scanned(
        rng("b"), popular(2, 1.0), ram, 4 * ram, mix=0.7
    )
    gate["zipf 0.8, 1 RAM + scan 2 RAM"] = scanned(rng("c"), popular(1, 0.8), 2 * ram, 16 * ram)
    gate["loop 1.1 RAM"] = loop(ram * 11 // 10, length)
    gate["loop 1.5 RAM"] = loop(ram * 3 // 2, length)
    gate["shifting: zipf 0.9, 3 RAM, drifting"] = drifting(rng("d"), 3 * ram, 0.9, 10, length)
    gate["shifting: zipf 0.9, 4 RAM, reshuffled"] = jumping(
        rng("e"), 4 * ram, 0.9, 10 * ram, length, 0
    )
    gate["shifting: zipf 0.9, 4 RAM, all new"] = jumping(
        rng("f"), 4 * ram, 0.9, 10 * ram, length, 1
    )
    return {
        "gate": gate,
        "files": {
            "4 clients read blocks in 4 requests": in_pieces(
                rng("g"), zipf(rng("h"), 5 * ram, 0.9, length // 4), 4, 4
            ),
            "8 clients in 16, and a scan": in_pieces(
                rng("i"), scanned(rng("j"), popular(2, 1.0)[: length // 8], ram, 4 * ram), 16, 8
            ),
            "big file 2 RAM again and again + hot 0.5": big_file(
                rng("k"), ram // 2, 2 * ram, 16, 2 * length
            ),
            "big file 1.3 RAM again and again + hot 0.25": big_file(
                rng("l"), ram // 4, ram * 13 // 10, 16, 2 * length
            ),
            "database 4 RAM": database(rng("m"), 4 * ram, length),
        },
        "LRU's own": {
            "window 0.8 RAM slides": sliding(rng("n"), ram * 4 // 5, 10, length),
            "set of 0.8 RAM jumps": jumping(rng("o"), ram * 4 // 5, 0, 10 * ram, length, 1),
            "set of 1.2 RAM jumps": jumping(rng("p"), ram * 6 // 5, 0, 10 * ram, length, 1),
            "zipf 0.9, 1 RAM jumps": jumping(rng("q"), ram, 0.9, 10 * ram, length, 1),
            "recency alone": recent(rng("r"), ram * 2 // 5, 4 * ram, length),
        },
    }


# --- Policies -------------------------------------------------------------------------------------


def belady(trace: Trace, size: int) -> int:
    """The optimum: evict what is used again last (Belady 1966)."""
    following = [0] * len(trace)
    seen: dict[int, int] = {}
    for i in range(len(trace) - 1, -1, -1):
        following[i] = seen.get(trace[i], len(trace) + i)
        seen[trace[i]] = i
    resident: dict[int, int] = {}
    heap: list[tuple[int, int]] = []
    misses = 0
    for i, key in enumerate(trace):
        if key not in resident:
            misses += 1
            if len(resident) == size:
                while True:
                    use, victim = heappop(heap)
                    if resident.get(victim) == -use:
                        break
                del resident[victim]
        resident[key] = following[i]
        heappush(heap, (-following[i], key))
    return misses


def fifo(trace: Trace, size: int) -> int:
    queue: deque[int] = deque()
    resident: set[int] = set()
    misses = 0
    for key in trace:
        if key not in resident:
            misses += 1
            if len(queue) == size:
                resident.remove(queue.popleft())
            queue.append(key)
            resident.add(key)
    return misses


def lru(trace: Trace, size: int) -> int:
    queue: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for key in trace:
        if key in queue:
            queue.move_to_end(key)
        else:
            misses += 1
            if len(queue) == size:
                queue.popitem(last=False)
            queue[key] = None
    return misses


def clock(trace: Trace, size: int) -> int:
    """CLOCK, or second chance (Corbato 1968)."""
    queue: deque[int] = deque()
    used: dict[int, bool] = {}
    misses = 0
    for key in trace:
        if key in used:
            used[key] = True
        else:
            misses += 1
            if len(used) == size:
                while used[victim := queue.popleft()]:
                    used[victim] = False
                    queue.append(victim)
                del used[victim]
            used[key] = False
            queue.append(key)
    return misses


def two_q(trace: Trace, size: int) -> int:
    """2Q, full version, Kin 25 %, Kout 50 % (Johnson, Shasha, VLDB 1994)."""
    first: OrderedDict[int, None] = OrderedDict()
    ghosts: OrderedDict[int, None] = OrderedDict()
    main: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for key in trace:
        if key in main:
            main.move_to_end(key)
        elif key not in first:
            misses += 1
            if len(first) + len(main) == size:
                if len(first) > size // 4 or not main:
                    ghosts[first.popitem(last=False)[0]] = None
                    if len(ghosts) > size // 2:
                        ghosts.popitem(last=False)
                else:
                    main.popitem(last=False)
            if key in ghosts:
                del ghosts[key]
                main[key] = None
            else:
                first[key] = None
    return misses


def arc(trace: Trace, size: int) -> int:
    """ARC (Megiddo, Modha, FAST 2003)."""
    once: OrderedDict[int, None] = OrderedDict()
    often: OrderedDict[int, None] = OrderedDict()
    once_ghosts: OrderedDict[int, None] = OrderedDict()
    often_ghosts: OrderedDict[int, None] = OrderedDict()
    share = 0.0
    misses = 0

    def evict(came_back_often: bool) -> None:
        if once and (len(once) > share or (came_back_often and len(once) == share)):
            once_ghosts[once.popitem(last=False)[0]] = None
        else:
            often_ghosts[often.popitem(last=False)[0]] = None

    for key in trace:
        if key in often:
            often.move_to_end(key)
            continue
        if key in once:
            del once[key]
            often[key] = None
            continue
        misses += 1
        if key in once_ghosts:
            share = min(size, share + max(1.0, len(often_ghosts) / len(once_ghosts)))
            evict(False)
            del once_ghosts[key]
            often[key] = None
        elif key in often_ghosts:
            share = max(0, share - max(1.0, len(once_ghosts) / len(often_ghosts)))
            evict(True)
            del often_ghosts[key]
            often[key] = None
        else:
            if len(once) == size:
                once.popitem(last=False)
            elif len(once) + len(often) == size:
                if len(once) + len(once_ghosts) == size:
                    once_ghosts.popitem(last=False)
                elif len(once_ghosts) + len(often_ghosts) == size:
                    often_ghosts.popitem(last=False)
                evict(False)
            once[key] = None
    return misses


def sieve(trace: Trace, size: int) -> int:
    """SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi, NSDI 2024)."""
    older: dict[int, int] = {}  # a ring through None's place, -1
    newer: dict[int, int] = {}
    used: dict[int, bool] = {}
    end = -(10**12)
    older[end] = newer[end] = hand = end
    misses = 0
    for key in trace:
        if key in used:
            used[key] = True
            continue
        misses += 1
        if len(used) == size:
            while hand == end or used[hand]:
                if hand != end:
                    used[hand] = False
                hand = newer[hand]
            victim, hand = hand, newer[hand]
            del used[victim]
            older[hand] = older.pop(victim)
            newer[older[hand]] = newer.pop(victim)
        used[key] = False
        older[key], newer[key] = older[end], end
        newer[older[end]] = key
        older[end] = key
    return misses


def s3_fifo(trace: Trace, size: int) -> int:
    """S3-FIFO, small queue 10 %, hits counted up to 3 (Yang and others, SOSP 2023)."""
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghosts: OrderedDict[int, None] = OrderedDict()
    hits: dict[int, int] = {}
    misses = 0
    for key in trace:
        if key in hits:
            hits[key] = min(hits[key] + 1, 3)
            continue
        misses += 1
        while len(hits) == size:
            if len(small) >= size // 10:
                victim = small.popleft()
                if hits[victim]:
                    hits[victim] = 0
                    main.append(victim)
                    continue
                ghosts[victim] = None
                if len(ghosts) > size - size // 10:
                    ghosts.popitem(last=False)
            else:
                victim = main.popleft()
                if hits[victim]:
                    hits[victim] -= 1
                    main.append(victim)
                    continue
            del hits[victim]
        hits[key] = 0
        if key in ghosts:
            del ghosts[key]
            main.append(key)
        else:
            small.append(key)
    return misses


class _Node:
    """A page of CLOCK-Pro's ring: hot, cold, or (not resident) in its test period."""

    __slots__ = ("key", "next", "previous", "state", "used")

    def __init__(self, key: int) -> None:
        self.key = key
        self.state = "cold"
        self.used = False
        self.next = self.previous = self


class _ClockPro:
    """CLOCK-Pro (Jiang, Chen, Zhang, USENIX ATC 2005)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.cold_size = size
        self.count = {"hot": 0, "cold": 0, "test": 0}
        self.nodes: dict[int, _Node] = {}
        self.hot = self.cold = self.test = _Node(-(10**12))  # the hands; all on a stopper
        self.hot.state = "stopper"

    def access(self, key: int) -> bool:
        node = self.nodes.get(key)
        if node is not None and node.state != "test":
            node.used = True
            return True
        state = "cold"
        if node is not None:
            self.cold_size = min(self.cold_size + 1, self.size)
            self.unlink(node)
            state = "hot"
        while self.count["hot"] + self.count["cold"] >= self.size:
            self.run_cold()
        node = self.nodes[key] = _Node(key)
        self.turn(node, state, new=True)
        node.next, node.previous = self.hot, self.hot.previous
        node.previous.next = node.next.previous = node
        while self.count["hot"] > max(self.size - self.cold_size, 1):
            self.run_hot()
        return False

    def turn(self, node: _Node, state: str, new: bool = False) -> None:
        if not new:
            self.count[node.state] -= 1
        node.state = state
        node.used = False
        self.count[state] += 1

    def unlink(self, node: _Node) -> None:
        for hand in ("hot", "cold", "test"):
            if getattr(self, hand) is node:
                setattr(self, hand, node.next)
        node.previous.next, node.next.previous = node.next, node.previous
        self.count[node.state] -= 1
        del self.nodes[node.key]

    def run_cold(self) -> None:
        node = self.cold
        self.cold = node.next
        if node.state == "cold":
            self.turn(node, "hot" if node.used else "test")
            while self.count["test"] > self.size:
                self.run_test()
            while self.count["hot"] > max(self.size - self.cold_size, 1):
                self.run_hot()

    def run_hot(self) -> None:
        node = self.hot
        if node is self.test:
            self.run_test()
        if node is self.hot:
            self.hot = node.next
        if node.state == "hot":
            if node.used:
                node.used = False
            else:
                self.turn(node, "cold")

    def run_test(self) -> None:
        node = self.test
        self.test = node.next
        if node.state == "test":
            self.unlink(node)
            self.cold_size = max(self.cold_size - 1, 1)


def clock_pro(trace: Trace, size: int) -> int:
    ring = _ClockPro(size)
    return sum(not ring.access(key) for key in trace)


class _Page:
    __slots__ = ("heat", "key", "queue")

    def __init__(self, key: tuple[int, int]) -> None:
        self.heat = 0
        self.key = key
        self.queue = 0


def ours(trace: Trace, size: int) -> int:
    """The policy of tmpfs_core/replacement.py."""
    policy: replacement.Replacement[_Page] = replacement.Replacement()
    resident: dict[int, _Page] = {}
    misses = 0
    for key in trace:
        page = resident.get(key)
        if page is not None:
            page.heat = policy.generation
            continue
        misses += 1
        if len(resident) == size:
            victim = policy.pick()
            assert victim is not None
            del resident[victim.key[1]]
        resident[key] = page = _Page((0, key))
        policy.insert(page)
    return misses


POLICIES: dict[str, Policy] = {
    "optimum": belady,
    "LRU": lru,
    "FIFO": fifo,
    "CLOCK": clock,
    "2Q": two_q,
    "SIEVE": sieve,
    "S3-FIFO": s3_fifo,
    "CLOCK-Pro": clock_pro,
    "ARC": arc,
    "ours": ours,
}

# What --tune tries: constants of our policy.
VARIANTS: list[dict[str, float]] = [
    {},
    {"LEAST_SHARE": 1 / 100},
    {"LEAST_SHARE": 1 / 32},
    {"LEAST_SHARE": 1 / 10},
    {"LEAST_SHARE": 1 / 4},
    {"STEP": 0, "LEAST_STEP": 0},
    {"STEP": 0, "LEAST_STEP": 0, "LEAST_SHARE": 1 / 10},
    {"STEP": 1 / 256, "LEAST_STEP": 4},
    {"STEP": 1 / 16},
    {"GENERATIONS": 8},
    {"GENERATIONS": 16},
    {"GENERATIONS": 128},
    {"GENERATIONS": 1000},
    {"SMALL_GHOSTS": 1 / 2, "MAIN_GHOSTS": 1 / 2},
    {"SMALL_GHOSTS": 5 / 6, "MAIN_GHOSTS": 1 / 6},
    {"SMALL_GHOSTS": 4 / 3, "MAIN_GHOSTS": 2 / 3},
    {"MOST_MOVES": 8},
    {"MOST_MOVES": 10**9},
]


# --- Tables ---------------------------------------------------------------------------------------


Ratios = dict[str, dict[str, dict[str, float]]]  # group, trace, policy: miss ratio


def measure(groups: dict[str, dict[str, Trace]], policies: dict[str, Policy]) -> Ratios:
    return {
        group: {
            name: {policy: run(trace, RAM) / len(trace) for policy, run in policies.items()}
            for name, trace in named.items()
        }
        for group, named in groups.items()
    }


def miss_table(ratios: Ratios) -> str:
    rows = []
    for group, named in ratios.items():
        for name, ratio in named.items():
            cells = [
                f"{ratio[policy]:.3f} ({ratio[policy] / ratio['LRU']:.2f})" for policy in ratio
            ]
            rows.append([group, name, *cells])
    relative = [
        {policy: ratio[policy] / ratio["LRU"] for policy in ratio}
        for named in ratios.values()
        for ratio in named.values()
    ]
    for title, combine in (("geometric mean", statistics.geometric_mean), ("worst", max)):
        cells = [f"({combine([row[policy] for row in relative]):.2f})" for policy in POLICIES]
        rows.append(["all", title, *cells])
    return table(["group", "trace", *POLICIES], rows)


def tune_table(groups: dict[str, dict[str, Trace]], ratios: Ratios) -> str:
    rows = []
    for variant in VARIANTS:
        usual = {name: getattr(replacement, name) for name in variant}
        for name, value in variant.items():
            setattr(replacement, name, value)
        found = measure(groups, {"ours": ours})
        for name, value in usual.items():
            setattr(replacement, name, value)
        title = ", ".join(f"{name} = {value:.3g}" for name, value in variant.items())
        relative = [
            [row["ours"] / ratios[group][name]["LRU"] for name, row in named.items()]
            for group, named in found.items()
        ]
        cells = [f"{statistics.geometric_mean(values):.3f}" for values in relative]
        rows.append([title or "as it is", *cells, *(f"{max(values):.3f}" for values in relative)])
    means = [f"{group}, mean" for group in groups]
    return table(["constants", *means, *(f"{group}, worst" for group in groups)], rows)


def costs(pages: int = 200_000) -> str:
    """Time and memory with so many pages resident."""
    policy: replacement.Replacement[_Page] = replacement.Replacement()

    def make(first: int) -> list[_Page]:
        return [_Page((1 + i // 1000, i)) for i in range(first, first + pages)]

    def insert() -> None:
        for page in resident:
            policy.insert(page)

    def hit() -> None:
        for page in resident:
            page.heat = policy.generation

    def turn_over() -> None:
        for page in fresh:
            policy.pick()
            policy.insert(page)

    def remove() -> None:
        for page in fresh:
            policy.remove(page)

    def time_of(step: Callable[[], object]) -> str:
        start = time.perf_counter()
        step()
        return f"{(time.perf_counter() - start) / pages * 1e9:.0f} ns"

    def memory() -> float:
        return tracemalloc.get_traced_memory()[0] / pages

    resident, fresh = make(0), make(pages)
    rows = [["insert", time_of(insert)], ["a hit (and the loop around it)", time_of(hit)]]
    rows.append(["pick and insert, every page hit before", time_of(turn_over)])
    rows.append(
        ["pick, one by one until none is left", time_of(lambda: [*iter(policy.pick, None)])]
    )
    insert()
    fresh = resident
    rows.append(["remove", time_of(remove)])

    policy = replacement.Replacement()
    tracemalloc.start()
    resident, fresh = make(0), make(pages)
    before = memory()
    insert()
    rows.append(["memory of the queues", f"{memory() - before:.0f} bytes a page"])
    turn_over()
    resident.clear()
    before = memory()
    policy = replacement.Replacement()
    rows.append(["with ghosts and their keys", f"{before - memory():.0f} bytes a page"])
    tracemalloc.stop()
    return table([f"{pages:,} pages", "cost"], rows)


def draw(ratios: Ratios, path: Path) -> None:
    """Bars of the miss ratio relative to LRU's, by policy, for each trace."""
    matplotlib: Any = importlib.import_module("matplotlib")
    figure_module: Any = importlib.import_module("matplotlib.figure")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tmpfs9p", "font.size": 8})
    named = {name: row for rows in ratios.values() for name, row in rows.items()}
    figure = figure_module.Figure(figsize=(9, 0.75 * len(named)), layout="constrained")
    axes = figure.subplots()
    colours = ["silver", *matplotlib.colormaps["tab10"].colors[:8], "black"]
    for i, policy in enumerate(POLICIES):
        places = [place + (i + 1) / (len(POLICIES) + 2) for place in range(len(named))]
        values = [row[policy] / row["LRU"] for row in named.values()]
        axes.barh(places, values, height=0.08, label=policy, color=colours[i])
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xlim(0, 2)
    axes.set_ylim(len(named), 0)
    axes.set_yticks([place + 0.5 for place in range(len(named))], list(named))
    axes.set_xlabel("misses, LRU = 1 (cut off at 2)")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.3, 1))
    figure.savefig(path, metadata={"Date": None})


def failures(ratios: Ratios) -> Iterator[str]:
    for name, row in ratios["gate"].items():
        limit = SCAN_LIMIT if "scan" in name else 1.0
        if row["ours"] > limit * row["LRU"]:
            yield f"{name}: {row['ours'] / row['LRU']:.3f} of LRU's misses, more than {limit}"


def main() -> int:
    parser = argparse.ArgumentParser(description="compare page replacement policies")
    parser.add_argument("--tune", action="store_true", help="try other constants, too")
    options = parser.parse_args()
    groups = traces()
    ratios = measure(groups, POLICIES)
    parts = [
        "# Page replacement",
        "Made by `python -m bench.replacement --tune`; what the traces are is told there. "
        f"RAM: {RAM} pages. A cell is the miss ratio, and in brackets the part of LRU's.",
        miss_table(ratios),
        "![misses relative to LRU's](replacement.svg)",
        "## What it costs",
        costs(),
    ]
    if options.tune:
        parts += [
            "## Constants",
            "Misses relative to LRU's: geometric mean and worst of each group.",
            tune_table(groups, ratios),
        ]
    text = "\n\n".join(parts) + "\n"
    print(text)
    (RESULTS / "replacement.md").write_text(text)
    try:
        draw(ratios, RESULTS / "replacement.svg")
    except ImportError:
        print("no picture: matplotlib is not installed")
    wrong = list(failures(ratios))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
