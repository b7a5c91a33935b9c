"""Volumes: what containers are given, each an export of its own, mounted while somebody holds it.

Rules of this file:

* What volumes there are, and who holds them, is in the state file, which is replaced as a whole.
* A volume that the server does not have (any more) is made again, empty.
* Nobody holds what is not mounted, whatever the state file says, and what nobody holds is unmounted
  when that is noticed.  So being killed between two steps does no harm.
* What concerns one volume is done in turn; several volumes are worked at side by side.
"""

import asyncio
import errno
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import structlog

from .config import EXPORT_OPTIONS, INHERITED
from .control import Refused, ask
from .mounts import MountError, Mounts

log = structlog.get_logger()

#: The options of a volume, and what they are of its export.
OPTIONS = {**{key: key for key in ("size", "ram", *INHERITED[1:])}, "readonly": "ro"}


class VolumeError(Exception):
    """It can not be done; says why."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume.

    Attributes:
        options: as they were given.
        holders: how often each container has mounted it, by the engine's ID of the container.
    """

    options: Mapping[str, str]
    holders: Mapping[str, int] = field(default_factory=dict)


class Volumes:
    """The volumes that ``directory`` knows of.

    Args:
        directory: where the state file is.
        control: the control socket of the server.

    Raises:
        OSError: the state file can not be read.
        ValueError: it is none.
    """

    def __init__(self, directory: Path, control: str, mounts: Mounts) -> None:
        self._state = directory / "volumes.json"
        self._control = control
        self._mounts = mounts
        self._volumes = _load(self._state)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reconcile(self) -> None:
        """Find out what has become of the volumes since this has last run."""
        for name in list(self._volumes):
            async with self._lock(name):
                try:
                    if self._is_mounted(name) and not self._volumes[name].holders:
                        await self._mounts.unmount(name)
                    await self._make_again(name)
                except (VolumeError, MountError) as error:
                    log.warning("volume not as it should be", volume=name, why=str(error))

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make a volume; nothing if it is there and has these options.

        Raises:
            VolumeError: it can not be.
        """
        text = export_of(name, options)
        async with self._lock(name):
            known = self._volumes.get(name)
            if known is not None and dict(known.options) == dict(options):
                return
            if known is not None:
                raise VolumeError(f"{name}: it is there already, with other options than these")
            self._put(name, Volume(options))
            try:
                await self._ask("export add", export=text)
            except VolumeError:
                self._put(name, None)
                raise

    async def remove(self, name: str) -> None:
        """Remove a volume and all that is in it.

        Raises:
            VolumeError: there is none; it is in use; the server can not be told.
        """
        async with self._lock(name):
            volume = self._volume(name)
            if self._is_mounted(name):
                if volume.holders:
                    raise VolumeError(f"{name}: in use by {', '.join(volume.holders)}")
                await self._unmount(name)
            if name in await self._exports():
                await self._ask("export rm", name=name, force=False)
            self._put(name, None)
            self._mounts.forget(name)

    async def mount(self, name: str, holder: str) -> str:
        """Mount a volume for a container; its directory.

        Raises:
            VolumeError: there is none; it can not be mounted.
        """
        async with self._lock(name):
            volume = self._volume(name)
            await self._make_again(name)
            try:
                if self._is_mounted(name) and not await self._mounts.answers(name):
                    log.warning("volume does not answer: mounted anew", volume=name)
                    await self._mounts.detach(name)
                readonly = volume.options.get("readonly", "false") != "false"
                await self._mounts.mount(name, ["ro"] if readonly else [])
            except MountError as error:
                raise VolumeError(f"{name}: {error}") from None
            holders = self._volumes[name].holders
            self._hold(name, {**holders, holder: holders.get(holder, 0) + 1})
            return self._mounts.path(name)

    async def unmount(self, name: str, holder: str) -> None:
        """A container needs a volume no more, as often as it has mounted it.

        Raises:
            VolumeError: there is none; it can not be unmounted.
        """
        async with self._lock(name):
            self._volume(name)
            if not self._is_mounted(name):
                return
            holders = dict(self._volumes[name].holders)
            if holder not in holders:
                log.warning("unmount by somebody who does not hold it", volume=name, by=holder)
                return
            holders[holder] -= 1
            self._hold(name, {key: count for key, count in holders.items() if count})
            if not self._volumes[name].holders:
                await self._unmount(name)

    def path(self, name: str) -> str:
        """The directory on which a volume is mounted; empty if it is not.

        Raises:
            VolumeError: there is none.
        """
        self._volume(name)
        return self._mounts.path(name) if self._mounts.has(name) else ""

    def names(self) -> list[str]:
        """All volumes."""
        return list(self._volumes)

    async def status(self, name: str) -> dict[str, Any]:
        """What there is to say of a volume; sizes in bytes.

        Raises:
            VolumeError: there is none.
        """
        volume = self._volume(name)
        holders = sum(volume.holders.values()) if self._mounts.has(name) else 0
        try:
            export = (await self._exports()).get(name)
        except VolumeError as error:
            return {"holders": holders, "server": str(error)}
        if export is None:
            return {"holders": holders, "server": "it has lost the volume; a mount makes it again"}
        told = ("size", "used", "ram", "inodes", "nr_inodes", "clients")
        return {"holders": holders, **{key: export[key] for key in told}}

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        """The turn of who asked for it first."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            yield

    def _volume(self, name: str) -> Volume:
        if name not in self._volumes:
            raise VolumeError(f"{name}: no such volume")
        return self._volumes[name]

    def _is_mounted(self, name: str) -> bool:
        """Whether it is mounted; if not, nobody holds it."""
        mounted = self._mounts.has(name)
        if not mounted and self._volumes[name].holders:
            log.warning("volume is mounted no more", volume=name)
            self._hold(name, {})
        return mounted

    async def _unmount(self, name: str) -> None:
        try:
            await self._mounts.unmount(name)
        except MountError as error:
            raise VolumeError(f"{name}: {error}") from None

    async def _make_again(self, name: str) -> None:
        """Make the export of a volume again if the server has lost it."""
        if name not in await self._exports():
            await self._ask("export add", export=export_of(name, self._volumes[name].options))
            log.warning("the server had lost a volume: made again, empty", volume=name)

    async def _exports(self) -> dict[str, dict[str, Any]]:
        return {export["name"]: export for export in await self._ask("export ls")}

    async def _ask(self, command: str, **arguments: str | bool) -> Any:
        """Let the server carry out a command.

        Raises:
            VolumeError: it refuses, or is not reachable.
        """
        name = str(arguments.get("export", arguments.get("name", ""))).partition(":")[0]
        try:
            return await asyncio.to_thread(ask, self._control, command, arguments)
        except Refused as refused:
            if refused.code == errno.EEXIST:
                raise VolumeError(f"{name}: the server has an export of that name") from None
            raise VolumeError(f"{name}: {refused}") from None
        except OSError as error:
            why = error.strerror or error
            raise VolumeError(f"the server is not reachable: {self._control}: {why}") from None

    def _hold(self, name: str, holders: Mapping[str, int]) -> None:
        self._put(name, Volume(self._volumes[name].options, holders))

    def _put(self, name: str, volume: Volume | None) -> None:
        """Have the state file say what a volume is; None: there is none.

        Raises:
            OSError: it can not be written; then all is as before.
        """
        changed = {key: value for key, value in self._volumes.items() if key != name}
        if volume is not None:
            changed[name] = volume
        _save(self._state, changed)
        self._volumes = changed


def export_of(name: str, options: Mapping[str, str]) -> str:
    """The export that is a volume, as ``tmpfs9p export add`` has it.

    Raises:
        VolumeError: it can not be; says which option, which value, and what is allowed.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", name):
        raise VolumeError(f"{name!r} is not allowed; it takes a name of letters, digits and _.-")
    words = []
    for key, given in options.items():
        if key not in OPTIONS:
            raise VolumeError(f"{name}: {key}: no such option; there are: {', '.join(OPTIONS)}")
        option = EXPORT_OPTIONS[OPTIONS[key]]
        value = given or "true" if option.is_flag else given
        try:
            option.parse(value)
        except ValueError as error:
            why = f"{name}: {key}: {value!r} is not allowed; it takes {error}"
            raise VolumeError(why) from None
        words.append(f"{OPTIONS[key]}={value}")
    return f"{name}:{','.join(words)}" if words else name


def _load(state: Path) -> dict[str, Volume]:
    """What the state file says.

    Raises:
        OSError: it can not be read.
        ValueError: it is not what :func:`_save` writes.
    """
    try:
        table = json.loads(state.read_text())
        return {name: Volume(**volume) for name, volume in table.items()}
    except FileNotFoundError:
        return {}
    except (TypeError, AttributeError):
        raise ValueError("not a table of volumes") from None


def _save(state: Path, volumes: Mapping[str, Volume]) -> None:
    draft = state.with_suffix(".new")
    with draft.open("w") as file:
        json.dump({name: asdict(volume) for name, volume in volumes.items()}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(state)
