"""Accounting: budgets, and what is counted for those who watch."""

import errno
from dataclasses import dataclass

from .errors import refuse


class Budget:
    """A count of things of which there may be ``limit``: frames, or inodes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def free(self) -> int:
        return self.limit - self.used

    def take(self, count: int) -> None:
        """Count ``count`` more in use.

        Raises:
            OSError: ENOSPC, and nothing is taken.
        """
        if self.used + count > self.limit:
            refuse(errno.ENOSPC)
        self.used += count

    def give(self, count: int) -> None:
        self.used -= count


class Blocks(Budget):
    """Frames of a file system: its data, wherever it is, and what else is charged as such.

    Attributes:
        swapped: how many of those used are not in RAM.
    """

    __slots__ = ("swapped",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.swapped = 0


@dataclass(slots=True)
class Counters:
    """What has happened since the start, in blocks where nothing else is said."""

    moved_in: int = 0  # from a uobj to a vnode object
    moved_home: int = 0
    bytes_copied_by_moves: int = 0  # stays 0: a move changes the owner of a page
    paged_in: int = 0
    paged_out: int = 0
    dropped_clean: int = 0  # evicted without writing: swap still had them
    zero_pages: int = 0  # evicted without writing: all zeros
    readahead_hits: int = 0
    reclaim_stalls: int = 0  # requests that had to wait for RAM
    failed_page_outs: int = 0
    lost: int = 0  # could not be read from swap again
