"""Meter: what the requests of all connections were, how they ended and how long they took.

Rules of this file:

* Requests and refusals are counted one by one.  Time is taken of every ``SAMPLED``-th request of
  a type, which then counts for as many, and of each that waits.  So a request costs some
  nanoseconds, and what is told of all is right on average.
* ``SAMPLED`` is a prime, so that what clients repeat does not always show the same of itself.
* Nothing is worked out here: who reads this does that.
"""

from bisect import bisect_left
from time import perf_counter
from typing import Final

#: Of so many requests, one has its time taken.
SAMPLED: Final = 61
#: Seconds up to which a request counts in each bucket; the last one has no bound.
BOUNDS: Final = (
    *(1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4),
    *(1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
)
#: Types of messages that can be told apart.
_TYPES: Final = 256


class Tally:
    """What there was of requests of one type.

    Attributes:
        untimed: requests until one has its time taken.
        rounds: how often that was so.
        refused: how many were refused, by errno.
        buckets: how many took how long, by the places of ``BOUNDS``.
        seconds: how long all of these took together.
        longest: the most seconds that one took whose time was taken.
    """

    def __init__(self) -> None:
        self.untimed = SAMPLED
        self.rounds = 0
        self.refused: dict[int, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.longest = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return self.rounds * SAMPLED + SAMPLED - self.untimed

    def time(self, seconds: float, weight: int) -> None:
        """A request took so long, and counts for so many."""
        self.buckets[bisect_left(BOUNDS, seconds)] += weight
        self.seconds += weight * seconds
        self.longest = max(self.longest, seconds)


class Meter:
    """Counts requests.

    Attributes:
        tallies: by the type of their message.
    """

    def __init__(self) -> None:
        self.tallies = [Tally() for _ in range(_TYPES)]

    def begin(self, kind: int) -> float:
        """Count a request; when it began, if its time is to be taken, else 0."""
        tally = self.tallies[kind]
        untimed = tally.untimed - 1
        if untimed:
            tally.untimed = untimed
            return 0.0
        tally.untimed = SAMPLED
        tally.rounds += 1
        return perf_counter()

    def answered(self, kind: int, begun: float) -> None:
        """A request whose time is to be taken was answered at once."""
        self.tallies[kind].time(perf_counter() - begun, SAMPLED)

    def waited(self, kind: int, begun: float) -> None:
        """A request that had to wait was answered."""
        self.tallies[kind].time(perf_counter() - begun, 1)

    def refused(self, kind: int, code: int) -> None:
        """A request was refused with this errno."""
        refused = self.tallies[kind].refused
        refused[code] = refused.get(code, 0) + 1
