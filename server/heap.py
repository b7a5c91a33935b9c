"""Heap: what deleted files leave behind in this process goes back to the host.

Rules of this file:

* File data is returned when it is freed (see tmpfs_core/frames.py); this is about the objects and
  tables around it, which Python and malloc(3) keep for the next ones when they are freed.
* The step takes the longer, the more files there still are.  So it is done only when more were
  freed than are left, and that is looked at once ``QUIET`` seconds after the first was freed, not
  while one after the other goes.
"""

import asyncio
import ctypes
import gc

from tmpfs_core.mount import Mount

#: Seconds from the first freed file to a look at how many there are.
QUIET = 1.0
#: Nodes and pages that must have been freed, for the step to be worth it.
MANY = 1000

#: malloc_trim(3), which musl does not have.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


class Heap:
    """Gives back what the files of mounts, which call it when one is freed, have left behind."""

    def __init__(self) -> None:
        self._mounts: set[Mount] = set()
        self._loop = asyncio.get_running_loop()
        self._freed = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, mount: Mount) -> None:
        self._mounts.add(mount)
        mount.on_freed = self._note

    def forget(self, mount: Mount) -> None:
        self._mounts.remove(mount)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, count: int) -> None:
        self._freed += count
        if self._timer is None:
            self._timer = self._loop.call_later(QUIET, self._look)

    def _look(self) -> None:
        self._timer = None
        pages = sum(len(memory.replacement) for memory in {it.memory for it in self._mounts})
        left = sum(mount.inodes.used for mount in self._mounts) + pages
        if self._freed >= max(MANY, left):
            self._freed = 0
            gc.collect()  # this empties Python's free lists, too
            if _malloc_trim is not None:
                _malloc_trim(0)
