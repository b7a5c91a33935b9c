"""Store: the RAM and the swap of a server, and the exports that live in them.

Rules of this file:

* Exports share one memory, but for those that have RAM of their own, which is taken from it and
  goes back to it when they are removed.  All memories share the swap, and each has its pager.
* Exports come and go one at a time.  One that is removed is gone for clients at once, and its fids
  are stale; then its files are freed, with turns for others in between.
"""

import asyncio
import errno

import structlog

from tmpfs_core.errors import refuse
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.vnode import NotResident

from .config import ExportConfig
from .exports import Export, Exports
from .heap import Heap
from .pager import Pager

log = structlog.get_logger()

#: What the memory is called that exports share; no other is, as those have a slash in front.
SHARED = "shared"
#: Files of an export that was removed that are freed in one turn.
FREED = 100


class Store:
    """Makes exports, and removes them.

    Args:
        shared: the RAM that they share; it is empty.
        max_depth: how many directories there may be below one another in any of them.
    """

    def __init__(self, shared: Memory, max_depth: int) -> None:
        self.exports = Exports()
        self._shared = shared
        self._max_depth = max_depth
        self._pagers = {shared: Pager(shared)}
        self._heap = Heap()
        self._changing = asyncio.Lock()

    def put(self, export: Export) -> None:
        """Let clients attach to an export.

        Raises:
            OSError: EEXIST, there is one of that name.
        """
        self.exports.add(export)
        self._heap.watch(export.mount)

    def ram_of(self, export: Export) -> int | None:
        """The RAM that an export has for itself, in bytes; None if it shares that of the server."""
        memory = export.mount.memory
        return None if memory is self._shared else memory.ram.limit * FRAME

    def memory_name(self, export: Export) -> str:
        """What the memory is called that an export lives in."""
        return SHARED if export.mount.memory is self._shared else f"/{export.name}"

    @property
    def memories(self) -> dict[str, Memory]:
        """All memories by name."""
        own = {self.memory_name(export): export.mount.memory for export in self.exports}
        return {SHARED: self._shared, **own}

    async def add(self, config: ExportConfig) -> Export:
        """Make an export.

        Raises:
            OSError: EEXIST, there is one of that name; ENOSPC, there is not as much RAM; ENOMEM,
                the host refuses the address space.
        """
        async with self._changing:
            if config.name in self.exports:
                refuse(errno.EEXIST)
            memory = self._shared if config.ram is None else await self._carve(config.ram // FRAME)
            too_large = _too_large(config.size, memory)
            if too_large is not None:
                raise OSError(errno.ENOSPC, f"size: {too_large}")
            mount = Mount(
                config.size,
                config.nr_inodes,
                config.mode,
                config.uid,
                config.gid,
                memory,
                self._max_depth,
            )
            export = Export(
                config.name,
                mount,
                readonly=config.ro,
                allow=config.allow,
                squash=config.squash,
                anonuid=config.anonuid,
                anongid=config.anongid,
                permissions=config.permissions,
            )
            self.put(export)
            return export

    def change(self, config: ExportConfig) -> dict[str, str]:
        """Have an export be as ``config`` says, but for its RAM and its root directory.

        Its limits are other ones at once, the rest is for those who attach from now on.

        Returns:
            Why a limit is the old one, by key.

        Raises:
            OSError: ENOENT, there is none of that name.
        """
        export = self.exports.get(config.name.encode())
        export.readonly, export.allow, export.squash = config.ro, config.allow, config.squash
        export.anonuid, export.anongid = config.anonuid, config.anongid
        export.permissions = config.permissions
        mount = export.mount
        refused: dict[str, str] = {}
        too_large = _too_large(config.size, mount.memory)
        if too_large is not None:
            refused["size"] = too_large
        elif config.size // FRAME < mount.blocks.used:
            refused["size"] = f"{config.size} is less than what is in use"
        else:
            mount.blocks.limit = config.size // FRAME
        if config.nr_inodes < mount.inodes.used:
            refused["nr_inodes"] = f"{config.nr_inodes} is less than what is in use"
        else:
            mount.inodes.limit = config.nr_inodes
        return refused

    async def remove(self, name: str, force: bool) -> None:
        """Remove an export and all that is in it.

        Args:
            force: even if clients are attached; their fids are stale then (ESTALE).

        Raises:
            OSError: ENOENT, there is none of that name; EBUSY, clients are attached.
        """
        async with self._changing:
            export = self.exports.get(name.encode())
            if export.clients and not force:
                count = len(export.clients)
                who = "1 client is" if count == 1 else f"{count} clients are"
                raise OSError(errno.EBUSY, f"{who} attached")
            self.exports.remove(export)
            for client in list(export.clients):
                client.expel(export)
            mount = export.mount
            for freed, _ in enumerate(mount.clear()):
                if not freed % FREED:
                    await asyncio.sleep(0)
            self._heap.forget(mount)
            if mount.memory is not self._shared:
                await self._give_back(mount.memory)

    def provide_now(self, absent: NotResident) -> bool:
        """Make what an operation needs resident, if that can be done without waiting."""
        pager = self._pagers.get(absent.memory)
        return pager is not None and pager.provide_now(absent)

    async def provide(self, absent: NotResident) -> None:
        """Do what can be done for an operation to be tried again (see :meth:`.Pager.provide`)."""
        pager = self._pagers.get(absent.memory)
        if pager is not None:  # else its export was removed meanwhile
            await pager.provide(absent)

    async def close(self) -> None:
        """Give up what is under way."""
        for pager in self._pagers.values():
            await pager.close()
        self._heap.close()

    async def _carve(self, frames: int) -> Memory:
        """A memory of so many frames, which are taken from the shared one."""
        shared = self._shared
        pager = self._pagers[shared]
        await pager.make_room(frames + shared.reserve)
        if frames > shared.ram.free:
            left = shared.ram.free * FRAME
            raise OSError(errno.ENOSPC, f"only {left} bytes of the server's RAM are not in use")
        memory = Memory(frames, shared.swap)
        pager.resize(shared.ram.limit - frames)
        self._pagers[memory] = Pager(memory)
        return memory

    async def _give_back(self, memory: Memory) -> None:
        """The shared memory has these frames again."""
        pager = self._pagers[memory]
        await pager.idle()
        del self._pagers[memory]
        await pager.close()
        memory.close()
        shared = self._shared
        self._pagers[shared].resize(shared.ram.limit + memory.ram.limit)


def _too_large(size: int, memory: Memory) -> str | None:
    """Why an export of so many bytes can not be filled, if it can not."""
    ram = memory.ram.limit
    if memory.swap is not None or size // FRAME <= ram:
        return None
    return f"{size} is more than the RAM ({ram * FRAME}), without swap"
