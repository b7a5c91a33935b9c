"""Screen: the status of a server as lines of text, for a terminal of any size.

Rules of this file:

* No terminal is known here: a line is spans of text, each with the name of a style, and no line is
  wider than it may be.  What colours tell, characters tell too.
* Rates are of the time between two looks at the server, the times that requests took of a longer
  one; without an earlier look, both are of the time since its start.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from .human import age, number, seconds, size

Status = dict[str, Any]
#: Text, and the name of its style: plain, title, head, ram, swap, free, dim or bad.
Span = tuple[str, str]
Line = list[Span]

#: Columns beyond which lines do not become longer: the eye would not find their ends.
WIDEST: Final = 120
#: Columns of a figure, and the most of an export's name.
FIGURE, NAME = 9, 16
#: Columns of a rate, beside its name and what is between the two.
PAIR = 19


class Glyphs(NamedTuple):
    """What bars are made of."""

    ram: str
    swap: str
    free: str


FINE: Final = Glyphs("█", "▒", "·")
#: For terminals that do not know these.
ASCII: Final = Glyphs("#", "=", ".")


class Looks(NamedTuple):
    """The last look at a server; if there were any, the one before, and one some time ago."""

    now: Status
    before: Status | None = None
    earlier: Status | None = None


class Section(NamedTuple):
    """A table: what stands above its columns, and its rows, of which the first matter most."""

    head: str
    rows: list[Line]


def screen(looks: Looks, width: int, height: int | None, glyphs: Glyphs) -> list[Line]:
    """All lines; if there is a ``height``, so many, and the first rows of what does not fit."""
    width = min(width, WIDEST)
    recent, longer = Change(looks.now, looks.before), Change(looks.now, looks.earlier)
    lines = _summary(recent, width, glyphs)
    sections = [
        _exports(looks.now, width, glyphs),
        _requests(recent, longer, width),
        _clients(recent, width),
    ]
    counts = [len(section.rows) for section in sections]
    if height is not None:
        counts = share(height - len(lines) - 2 * len(sections), counts)
    for section, count in zip(sections, counts, strict=True):
        lines += [[], [(section.head, "head")], *section.rows[:count]]
    return [clipped(line, width) for line in lines[:height]]


def legend(glyphs: Glyphs) -> Line:
    """What the bars are made of, and the one key that there is."""
    parts = (
        (glyphs.ram, "ram", "in RAM"),
        (glyphs.swap, "swap", "in swap"),
        (glyphs.free, "free", "free"),
    )
    bars = [
        span for glyph, style, text in parts for span in ((glyph, style), (f" {text}   ", "dim"))
    ]
    return [("q", "title"), (" quit     ", "dim"), *bars]


def share(room: int, wanted: Sequence[int]) -> list[int]:
    """So many of ``room`` rows for each; who wants little gets it, the others get as much."""
    given = [0] * len(wanted)
    left = max(room, 0)
    while left and given != list(wanted):
        for place, count in enumerate(wanted):
            if left and given[place] < count:
                given[place] += 1
                left -= 1
    return given


def clipped(line: Line, width: int) -> Line:
    """The first columns of a line."""
    spans: Line = []
    for text, style in line:
        spans.append((text[:width], style))
        width -= len(spans[-1][0])
    return spans


# What changes


class Change:
    """What has changed from one look at a server to another, or since its start."""

    def __init__(self, now: Status, before: Status | None) -> None:
        self.now = now
        again = before is not None and before["pid"] == now["pid"]
        self.before: Status = before if before is not None and again else {}
        self._seconds: float = max(now["uptime"] - self.before.get("uptime", 0.0), 1e-3)

    def per_second(self, now: float, before: float) -> float:
        """By how much something has grown that was ``before``."""
        grown = max(now - before, 0)
        return grown / self._seconds

    def of(self, key: str) -> float:
        """By how much a counter of the server has grown a second."""
        return self.per_second(self.now[key], self.before.get(key, 0))

    def of_memories(self, key: str) -> float:
        """By how much a counter of all memories has."""
        now, before = (
            sum(memory[key] for memory in status.get("memories", ()))
            for status in (self.now, self.before)
        )
        return self.per_second(now, before)

    def requests(self, name: str) -> tuple[Status, Status]:
        """What is told of requests of a type, now and before."""
        none = {"count": 0, "errors": {}, "seconds": 0.0, "buckets": []}
        return self.now["requests"][name], self.before.get("requests", {}).get(name, none)

    def rate(self, counter: Callable[[Status], int], name: str) -> float:
        """By how much a counter of requests of a type has grown a second."""
        now, before = self.requests(name)
        return self.per_second(counter(now), counter(before))

    def of_requests(self, counter: Callable[[Status], int]) -> float:
        """By how much a counter of all requests has."""
        return sum(self.rate(counter, name) for name in self.now["requests"])


def quantile(bounds: Sequence[float], buckets: Sequence[int], part: float) -> float:
    """The time in which this part of the requests was answered, as exact as buckets can tell."""
    rank = part * sum(buckets)
    below = 0
    for place, count in enumerate(buckets):
        if count and below + count >= rank:
            low = bounds[place - 1] if place else 0.0
            high = bounds[min(place, len(bounds) - 1)]
            return low + (high - low) * (rank - below) / count
        below += count
    return 0.0


# What is shown


def _summary(change: Change, width: int, glyphs: Glyphs) -> list[Line]:
    """The server as a whole: who uses it, its RAM and swap, and what goes in and out."""
    now = change.now
    name = f" tmpfs9p {now['version']}  "
    use = f"{_plural(now['connections'], 'client')}   {number(now['fids'])} files held   "
    use += f"{number(now['waiting'])} waiting   up {age(now['uptime'])} "
    memories = now["memories"]
    ram, resident, lost = (sum(it[key] for it in memories) for key in ("ram", "resident", "lost"))
    swap, swapped = memories[0]["swap_size"], memories[0]["swap_used"]
    traffic = {
        "in": size(change.of("received")),
        "out": size(change.of("sent")),
        "requests": number(change.of_requests(_count)),
        "errors": number(change.of_requests(_errors)),
    }
    lines: list[Line] = [
        [(name + use.rjust(width - len(name)), "title")],
        [],
        _gauge("RAM", resident, ram, "ram", width, glyphs),
    ]
    if swap:
        paging = {
            "paged in": number(change.of_memories("paged_in")),
            "paged out": number(change.of_memories("paged_out")),
            "stalls": number(change.of_memories("reclaim_stalls")),
        }
        lines += [_gauge("swap", swapped, swap, "swap", width, glyphs), _rates(traffic)]
        lines += [_rates(paging)]
    else:
        lines += [_rates(traffic)]
    if lost:
        lines.append(
            [(f"{_plural(lost, 'block')} of 64k lost: could not be read from swap", "bad")]
        )
    return lines


def _exports(now: Status, width: int, glyphs: Glyphs) -> Section:
    """The fullest first."""
    exports = sorted(now["exports"], key=lambda export: -export["used"])
    name = 1 + max(len("EXPORT"), *(len(export["name"][:NAME]) for export in exports), 0)
    room = max(width - name - 5 * FIGURE, 0)

    def row(export: Status) -> Line:
        swapped = export["swapped"]
        ram, free = export["used"] - swapped, export["size"] - export["used"]
        sizes = _figures(size(ram), size(swapped), size(free))
        counts = _figures(number(export["inodes"]), number(export["clients"]))
        bar = _bar(ram, swapped, export["size"], room, glyphs)
        return [(export["name"][:NAME].ljust(name), "plain"), *bar, (sizes + counts, "plain")]

    head = "EXPORT".ljust(name + room) + _figures("RAM", "SWAP", "FREE", "FILES", "CLIENTS")
    return Section(head, [row(export) for export in exports])


class Took(NamedTuple):
    """How long requests of a type took, in seconds; nothing but zeros if it was never taken."""

    tail: float
    median: float
    mean: float
    longest: float


def took(change: Change, name: str) -> Took:
    """Those that there were meanwhile; the longest is that since the server's start."""
    one, before = change.requests(name)
    buckets = [a - b for a, b in zip_longest(one["buckets"], before["buckets"], fillvalue=0)]
    timed = sum(buckets)
    if not timed:
        return Took(0.0, 0.0, 0.0, one["longest"])
    bounds = change.now["bounds"]
    tail, median = (min(quantile(bounds, buckets, it), one["longest"]) for it in (0.99, 0.5))
    return Took(tail, median, (one["seconds"] - before["seconds"]) / timed, one["longest"])


def _requests(recent: Change, longer: Change, width: int) -> Section:
    """Those that there were of late, the slowest first."""
    room = max(width - 6 * FIGURE, FIGURE)
    names = [name for name in recent.now["requests"] if longer.rate(_count, name)]
    times = {name: took(longer, name) for name in names}

    def row(name: str) -> Line:
        tail, median, mean, longest = (seconds(it) if it else "-" for it in times[name])
        figures = _figures(number(recent.rate(_count, name)), mean, median, tail, longest)
        errors = recent.rate(_errors, name)
        refused = (_figures(number(errors)), "bad" if errors else "plain")
        return [(name.ljust(room), "plain"), (figures, "plain"), refused]

    heads = _figures("PER S", "MEAN", "P50", "P99", "SLOWEST", "ERRORS/S")
    names.sort(key=times.__getitem__, reverse=True)
    return Section("SLOWEST REQUESTS".ljust(room) + heads, [row(name) for name in names])


def _clients(change: Change, width: int) -> Section:
    """The busiest first."""
    room = max(width - 5 * FIGURE, FIGURE)
    before = {(it["fd"], it["peer"]): it for it in change.before.get("clients", ())}

    def rates(client: Status) -> tuple[float, float, float]:
        old = before.get((client["fd"], client["peer"]), {})
        requests, received, sent = (
            change.per_second(client[key], old.get(key, 0))
            for key in ("requests", "received", "sent")
        )
        return requests, received, sent

    def row(client: Status) -> Line:
        requests, received, sent = rates(client)
        user = "" if client["uid"] is None else f" uid {client['uid']}"
        who: Line = [(f"{client['peer']}{user}  ", "plain"), (",".join(client["exports"]), "dim")]
        who.append((" " * room, "plain"))
        counts = _figures(number(client["fids"]), number(client["waiting"]), number(requests))
        return [*clipped(who, room), (counts + _figures(size(received), size(sent)), "plain")]

    heads = _figures("FILES", "WAITING", "REQS/S", "IN/S", "OUT/S")
    clients = sorted(change.now["clients"], key=rates, reverse=True)
    return Section("BUSIEST CLIENTS".ljust(room) + heads, [row(client) for client in clients])


def _gauge(name: str, used: int, whole: int, style: str, width: int, glyphs: Glyphs) -> Line:
    """A line for how much of something is used."""
    figures = f"  {size(used)} of {size(whole)}"
    room = max(width - 6 - 20, 0)
    ram, swap = (used, 0) if style == "ram" else (0, used)
    return [(name.ljust(6), "head"), *_bar(ram, swap, whole, room, glyphs), (figures, "plain")]


def _bar(ram: int, swap: int, whole: int, width: int, glyphs: Glyphs) -> Line:
    """What is there at all has a column."""
    first, second = (
        min(width, max(1, round(width * part / whole))) if part and whole else 0
        for part in (ram, swap)
    )
    first = min(first, width - second)
    return [
        (glyphs.ram * first, "ram"),
        (glyphs.swap * second, "swap"),
        (glyphs.free * (width - first - second), "free"),
    ]


def _rates(rates: dict[str, str]) -> Line:
    """Figures a second, with their names."""
    line: Line = []
    for name, rate in rates.items():
        line += [(f"{name} ", "dim"), (f"{rate}/s".ljust(PAIR - len(name)), "plain")]
    return line


def _figures(*texts: str) -> str:
    return "".join(text.rjust(FIGURE) for text in texts)


def _plural(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def _count(requests: Status) -> int:
    """How many requests there were."""
    count: int = requests["count"]
    return count


def _errors(requests: Status) -> int:
    """How many of them were refused."""
    return sum(requests["errors"].values())
