"""Mounts: the exports of a server, each on a directory of its own, by ``tmpfs9p mount``.

Rules of this file:

* What is mounted, the kernel says (proc_pid_mountinfo(5)); nothing is remembered here.
* Whoever makes, serves or ends a mount has its lock file locked (flock(2)), a process of an earlier
  run too.  So nothing is mounted twice, and when an unmount returns, no process of it is left.
"""

import asyncio
import fcntl
import os
import re
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import structlog

log = structlog.get_logger()

#: Seconds in which a command must end.
LIMIT = 30.0
#: Seconds that the process of a mount has to end.
END = 10.0
#: Seconds between two looks at a lock that somebody else has.
PAUSE = 0.01


class MountError(Exception):
    """It can not be mounted or unmounted; says why."""


class Mounts:
    """Mounts in ``directory``.

    Args:
        command: the command that mounts with these options on this directory.

    Raises:
        OSError: the directory can not be made.
    """

    def __init__(
        self, directory: Path, command: Callable[[Sequence[str], str], Sequence[str]]
    ) -> None:
        self._places = Path(os.path.realpath(directory)) / "mounts"
        self._locks = self._places.with_name("locks")
        self._command = command
        for made in (self._places, self._locks):
            # No other user comes through: set-user-id programs of containers are not for him.
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, name: str) -> str:
        """The directory of an export."""
        return str(self._places / name)

    def has(self, name: str) -> bool:
        """Whether it is mounted."""
        path = re.sub(r"[\\ \t\n]", lambda found: f"\\{ord(found[0]):03o}", self.path(name))
        with open("/proc/self/mountinfo", errors="surrogateescape") as lines:
            return any(line.split(" ", 5)[4] == path for line in lines)

    async def answers(self, name: str) -> bool:
        """Whether a mount does what it is there for; not so if its process was killed, say."""
        return await self._run("stat", "--file-system", self.path(name)) is None

    async def mount(self, name: str, options: Sequence[str]) -> None:
        """Mount an export, unless it is mounted.

        Raises:
            MountError: it can not be.
        """
        async with self._locked(name, LIMIT, unless=lambda: self.has(name)) as lock:
            if lock is not None:
                os.makedirs(self.path(name), mode=0o700, exist_ok=True)
                words = self._command([f"aname={name}", *options], self.path(name))
                await self._must(*words, descriptor=lock)

    async def unmount(self, name: str) -> None:
        """Unmount it, and wait for the end of its process.

        That goes on if somebody has copied the mount: a container that sees all of the host, say.

        Raises:
            MountError: it can not be: somebody is in there.
        """
        await self._must("umount", self.path(name))
        try:
            async with self._locked(name, END):
                pass
        except MountError:
            log.warning("unmounted, but somebody has a copy of the mount", path=self.path(name))
            self._leave(name)

    async def detach(self, name: str) -> None:
        """Take a mount that does not answer away; who has it keeps it, and no other gets it.

        Raises:
            MountError: it can not be.
        """
        await self._must("umount", "--lazy", self.path(name))
        self._leave(name)

    def forget(self, name: str) -> None:
        """Remove what there is for an export that is not mounted."""
        self._leave(name)
        with suppress(OSError):  # somebody may have written there
            os.rmdir(self.path(name))

    def _leave(self, name: str) -> None:
        """Leave the process that has the lock file alone with it; the next one has another."""
        (self._locks / name).unlink(missing_ok=True)

    @asynccontextmanager
    async def _locked(
        self, name: str, limit: float, unless: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[int | None]:
        """Its lock file, locked, when nobody else has it; None as soon as ``unless`` is so.

        Raises:
            MountError: somebody does not give it back for ``limit`` seconds.
        """
        lock = os.open(self._locks / name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            deadline = time.monotonic() + limit
            while not (found := unless()) and not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise MountError(f"{self.path(name)}: its process does not end")
                await asyncio.sleep(PAUSE)
            yield None if found else lock
        finally:
            os.close(lock)

    async def _must(self, *command: str, descriptor: int | None = None) -> None:
        told = await self._run(*command, descriptor=descriptor)
        if told is not None:
            raise MountError(told)

    async def _run(self, *command: str, descriptor: int | None = None) -> str | None:
        """What a command complains of, if it fails."""
        passed = () if descriptor is None else (descriptor,)
        with TemporaryFile() as told:  # no pipe: a process that stays would keep that open
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=DEVNULL, stderr=told, pass_fds=passed
            )
            try:
                async with asyncio.timeout(LIMIT):
                    status = await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                return f"{command[0]}: no end after {LIMIT:g} seconds"
            told.seek(0)
            text = told.read().decode(errors="replace").strip()
        return (text or f"{command[0]} failed") if status else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
