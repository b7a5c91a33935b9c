"""Byte-range locks of one file, as fcntl(2) has them.

Rules of this file:

* A lock belongs to an owner (any hashable); an owner never conflicts with itself: its new lock
  replaces what it held in that range, splitting and merging as needed.
* A lock remembers the handle (any object) through which it was taken, and goes with it.
* ``changed`` is called for every waiter when something was released; a waiter then tries again.
  The order of the waiters is the order in which they came.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

#: End of a lock that reaches to the end of the file, however far that is.
FOREVER = 1 << 64


class Lock(NamedTuple):
    """A lock on bytes ``[start, stop)``."""

    start: int
    stop: int
    exclusive: bool
    owner: Hashable
    handle: Hashable

    def overlaps(self, start: int, stop: int) -> bool:
        return self.start < stop and start < self.stop


class RangeLocks:
    """The locks held on one file, and who waits for one."""

    __slots__ = ("held", "waiters")

    def __init__(self) -> None:
        self.held: list[Lock] = []
        self.waiters: list[Callable[[], None]] = []

    def conflict(self, wanted: Lock) -> Lock | None:
        """The first lock of another owner that excludes ``wanted``, lowest start first."""
        excluding = (
            lock
            for lock in self.held
            if lock.owner != wanted.owner
            and (lock.exclusive or wanted.exclusive)
            and lock.overlaps(wanted.start, wanted.stop)
        )
        return min(excluding, key=lambda lock: lock.start, default=None)

    def acquire(self, wanted: Lock) -> Lock | None:
        """Take ``wanted``, or tell what excludes it.

        A change from exclusive to shared lets others in, so the waiters hear of it.
        """
        blocker = self.conflict(wanted)
        if blocker is None:
            downgraded = self._cut(wanted.owner, wanted.start, wanted.stop)
            merged = self._merged(wanted)
            self.held.append(merged)
            if downgraded and not wanted.exclusive:
                self._notify()
        return blocker

    def release(self, owner: Hashable, start: int, stop: int) -> None:
        """Give up what ``owner`` holds of ``[start, stop)``; holding nothing there is no error."""
        if self._cut(owner, start, stop):
            self._notify()

    def splits(self, owner: Hashable, start: int, stop: int) -> bool:
        """Whether to give up ``[start, stop)`` would leave its owner with one lock more."""
        return any(
            lock.owner == owner and lock.start < start and stop < lock.stop for lock in self.held
        )

    def release_handle(self, handle: object) -> None:
        """Give up every lock taken through ``handle``."""
        kept = [lock for lock in self.held if lock.handle is not handle]
        if len(kept) < len(self.held):
            self.held = kept
            self._notify()

    def _cut(self, owner: Hashable, start: int, stop: int) -> bool:
        """Take ``[start, stop)`` out of the owner's locks; whether there was anything."""
        kept = []
        cut = False
        for lock in self.held:
            if lock.owner != owner or not lock.overlaps(start, stop):
                kept.append(lock)
                continue
            cut = True
            if lock.start < start:
                kept.append(lock._replace(stop=start))
            if stop < lock.stop:
                kept.append(lock._replace(start=stop))
        self.held = kept
        return cut

    def _merged(self, new: Lock) -> Lock:
        """``new`` together with the owner's locks of the same kind that touch it."""
        kept = []
        for lock in self.held:
            if (
                lock.owner == new.owner
                and lock.handle is new.handle
                and lock.exclusive == new.exclusive
                and (lock.stop == new.start or new.stop == lock.start)
            ):
                new = new._replace(start=min(lock.start, new.start), stop=max(lock.stop, new.stop))
            else:
                kept.append(lock)
        self.held = kept
        return new

    def _notify(self) -> None:
        for waiter in list(self.waiters):
            waiter()
