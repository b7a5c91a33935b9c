"""The plan of a chaos run: what happens in each round, given by the seed alone.

Rules of this file:

* A plan does not depend on how the run goes, so a seed always gives the same one.  What an act
  draws while it runs, it draws from a seed of its own.
* A run repeats as far as the kernel's sockets and the server's timers do: a failure may take
  several runs of its seed to come again.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

#: What a working client may do, and how often; see worker.py.
WORK = {"write": 18, "read": 18, "burst": 9, "truncate": 9, "remove": 3, "vanish": 3}
#: What a client may do that works against the server; see attacks.py.
ATTACKS = (
    *("comings", "crowd", "flushes", "garbage", "half_closed"),
    *("half_sent", "locks", "one_fid", "unread"),
)
CLIENTS = 4
#: Rounds until the machine changes.
SPELL = 50
HOUR = 3600 * 10**9


@dataclass(frozen=True)
class Act:
    """What a client does."""

    kind: str
    seed: int


@dataclass(frozen=True)
class Round:
    """What happens at once.

    Attributes:
        broken: how often writing to swap fails, from 0 to 1.
        clock: by how much the clock is wrong, in ns; it may step back.
        machine: for a server in a process of its own: "descriptors" to take away all that are
            left, "frozen" to stop it for a moment; "" for neither.
        work: an act for each worker.
        attacks: clients that come, and do harm.
    """

    number: int
    broken: float
    clock: int
    machine: str
    work: tuple[Act, ...]
    attacks: tuple[Act, ...]


#: Nothing happens, and all is well.
CALM = Round(-1, 0.0, 0, "", (), ())


@dataclass(frozen=True)
class Mounted:
    """What a real kernel does, on a mount of its own."""

    cache: str
    msize: int
    mapping: bool
    seed: int


def mounts(seed: int) -> Iterator[Mounted]:
    """The mounts of this seed, without end."""
    rng = random.Random(seed)
    while True:
        cache = rng.choice(("none", "mmap", "loose"))
        mapping = cache != "none"
        yield Mounted(cache, rng.choice((65536, 1 << 20)), mapping, rng.getrandbits(32))


def plan(seed: int) -> Iterator[Round]:
    """The rounds of this seed, without end."""
    rng = random.Random(seed)

    def act(kind: str) -> Act:
        return Act(kind, rng.getrandbits(32))

    broken, clock = 0.0, 0
    for number in itertools.count():
        if number % SPELL == 0:
            broken = rng.choice((0.0, 0.0, 0.1, 1.0))
            clock = rng.randrange(-HOUR, HOUR)
        work = rng.choices(tuple(WORK), tuple(WORK.values()), k=CLIENTS)
        attacks = rng.choices(ATTACKS, k=rng.choice((0,) * 16 + (1, 1, 2, 5)))
        yield Round(
            number,
            broken,
            clock,
            rng.choice(("",) * 38 + ("descriptors", "frozen")),
            tuple(map(act, work)),
            tuple(map(act, attacks)),
        )
