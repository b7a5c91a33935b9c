"""Pager: runs the core's page-outs and page-ins beside the event loop.

Rules of this file:

* The loop only begins and finishes a job; its I/O is done in a thread, so nothing waits for a disk
  but the request that needs it.  What the host has in its page cache needs no disk, and is read at
  once.
* Page-out starts when RAM runs low and works ahead in small slices, one at a time, until enough is
  free; so a write rarely waits for it.
* A block is read once, however many requests wait for it.
* Only so many requests are provided for at a time that what one has brought in is still there when
  it is tried again.
"""

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import structlog

from tmpfs_core.errors import refuse
from tmpfs_core.memory import Memory
from tmpfs_core.pageout import SLICE, Arrival, Laundry
from tmpfs_core.vnode import NotResident, Place

log = structlog.get_logger()

#: Seconds after page-out failed, or found nothing to free, until it is tried again.
RETRY = 1.0
#: Jobs under way at a time.
THREADS = 4
#: Most requests provided for at a time, each with RAM for 1 MiB (SLICE).
PROVIDED = 16


class Pager:
    """Pages for one memory, which calls it when RAM runs low and when blocks will be wanted."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pager")
        if memory.swap is not None:
            self._start_threads()
        self._arriving: dict[Place, asyncio.Task[None]] = {}
        self._cleaning: asyncio.Task[None] | None = None
        self._goal = memory.high
        self._turns = _turns(memory)
        memory.on_pressure = self._clean
        memory.on_ahead = self._read_ahead

    def _start_threads(self) -> None:
        """Have all threads now: later the host may refuse one, with a job already handed over."""
        together = Barrier(THREADS + 1)
        for _ in range(THREADS):
            self._threads.submit(together.wait)
        together.wait()

    def provide_now(self, absent: NotResident) -> bool:
        """Do what :meth:`provide` does, if it can be done without waiting; whether it was."""
        memory = self._memory
        if absent.frames > memory.writable or memory.ram.free < _frames(absent.places):
            return False
        if any(place in self._arriving for place in absent.places):
            return False
        arrival = Arrival(memory, absent.places)
        if not arrival.run_now():
            return False
        arrival.finish()
        if memory.ram.free < memory.low:
            self._clean()
        return True

    async def provide(self, absent: NotResident) -> None:
        """Do what can be done for an operation to be tried again.

        Raises:
            OSError: ENOMEM, there is no RAM to read into.
        """
        async with self._turns:
            if absent.frames > self._memory.writable:
                self._memory.counters.reclaim_stalls += 1
                await self.make_room(absent.frames + self._memory.reserve)
            if absent.places:
                await self._bring_in(absent.places)

    async def make_room(self, frames: int) -> None:
        """Wait until so many frames are free, or no more can be."""
        while self._memory.ram.free < frames and not self._memory.stuck:
            self._goal = max(self._goal, frames)
            self._clean()
            assert self._cleaning is not None
            await asyncio.wait([self._cleaning])

    def resize(self, frames: int) -> None:
        """Let the memory use so many frames from now on (see :meth:`.Memory.resize`)."""
        self._memory.resize(frames)
        self._goal = self._memory.high
        self._turns = _turns(self._memory)
        self._memory.retry()

    async def idle(self) -> None:
        """Wait until nothing is under way; all files of the memory are gone."""
        while tasks := {*self._arriving.values()} | ({self._cleaning} if self._cleaning else set()):
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Give up what is under way, and end the threads."""
        tasks = {*self._arriving.values()} | ({self._cleaning} if self._cleaning else set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown()

    # Page-out

    def _clean(self) -> None:
        """Begin to free RAM, unless that is under way or hopeless."""
        if self._cleaning is None and not self._memory.stuck:
            self._cleaning = self._loop.create_task(self._clean_to_goal())

    async def _clean_to_goal(self) -> None:
        """Page out until as many frames are free as anybody wants, or no more can be."""
        memory = self._memory
        try:
            while memory.ram.free < self._goal and not memory.stuck:
                await self._clean_slice()
        except Exception as error:
            memory.stuck = True
            log.error("page-out failed unexpectedly", exc_info=error)
        finally:
            self._goal = memory.high
            self._cleaning = None
            if memory.stuck:
                self._loop.call_later(RETRY, memory.retry)

    async def _clean_slice(self) -> None:
        memory = self._memory
        assert memory.swap is not None
        if memory.swap.free < SLICE and memory.swap.ungrown:
            await self._loop.run_in_executor(self._threads, memory.swap.grow)
        laundry = Laundry(memory)
        if not laundry.transfers:
            await asyncio.sleep(0)
            return
        try:
            await self._loop.run_in_executor(self._threads, laundry.run)
        except OSError as error:
            laundry.finish(done=False)
            log.error("page-out failed", file=error.filename, why=error.strerror)
        else:
            laundry.finish(done=True)

    # Page-in

    async def _bring_in(self, places: list[Place]) -> None:
        """Wait until these blocks have been read."""
        new = [place for place in places if place not in self._arriving]
        if new:
            self._arrive(new, ahead=False)
        tasks = {self._arriving[place] for place in places}
        done, _ = await asyncio.wait(tasks)
        for task in done:
            task.result()

    def _read_ahead(self, places: list[Place]) -> None:
        """Read these blocks if nobody does yet, and RAM is not short."""
        new = [place for place in places if place not in self._arriving]
        if new and self._memory.ram.free - _frames(new) > self._memory.low:
            self._arrive(new, ahead=True)

    def _arrive(self, places: list[Place], ahead: bool) -> asyncio.Task[None]:
        task = self._loop.create_task(self._read(places, ahead))
        task.add_done_callback(_seen)
        for place in places:
            self._arriving[place] = task
        return task

    async def _read(self, places: list[Place], ahead: bool) -> None:
        """Read blocks from swap; which of them are lost is logged."""
        try:
            failures = 0
            while self._memory.ram.free < _frames(places):
                if failures == 2:  # once, page-out may have passed over what others wait for
                    refuse(errno.ENOMEM)
                self._memory.retry()
                await self.make_room(_frames(places))
                failures = failures + 1 if self._memory.stuck else 0
            arrival = Arrival(self._memory, places, ahead)
            await self._loop.run_in_executor(self._threads, arrival.run)
            arrival.finish()
            if self._memory.ram.free < self._memory.low:
                self._clean()
            for line in arrival.lost:
                log.error("page-in failed, a block is lost", at=line)
        finally:
            for place in places:
                del self._arriving[place]


def _seen(task: asyncio.Task[None]) -> None:
    """Nobody may be left who waits for this: that it failed is no news then."""
    if not task.cancelled():
        task.exception()


def _turns(memory: Memory) -> asyncio.Semaphore:
    """How many requests are provided for at a time."""
    return asyncio.Semaphore(max(1, min(PROVIDED, memory.ram.limit // (4 * SLICE))))


def _frames(places: list[Place]) -> int:
    """How many frames these blocks take in RAM."""
    swapped = (uobj.swapped.get(pindex) for uobj, pindex in places)
    return sum(entry.mask.bit_count() for entry in swapped if entry is not None)
