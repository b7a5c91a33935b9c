"""Commands: what a running server can be told to do, over its control socket.

Rules of this file:

* A command is an entry of the table that :func:`commands` makes; its arguments are a dataclass.
* What it returns is what JSON has: sizes are in bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .config import Config, export_name, export_of
from .control import Command
from .status import Status, described
from .store import Store


@dataclass(frozen=True, slots=True)
class Add:
    """Make an export, as ``--export`` has it."""

    export: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an export; ``force``: even if clients are attached."""

    name: str
    force: bool


@dataclass(frozen=True, slots=True)
class List:
    """List the exports."""


@dataclass(frozen=True, slots=True)
class Show:
    """Tell what the server does and holds."""


def commands(store: Store, config: Callable[[], Config], status: Status) -> dict[str, Command]:
    """All commands by name, for the exports of a store.

    Args:
        config: what the server runs with now; new exports have its defaults.
    """

    async def add(arguments: Add) -> Any:
        return described(store, await store.add(export_of(arguments.export, config(), "add")))

    async def remove(arguments: Remove) -> Any:
        await store.remove(export_name("rm", arguments.name), arguments.force)

    async def list_(arguments: List) -> Any:
        return [described(store, export) for export in store.exports]

    async def show(arguments: Show) -> Any:
        return {**status.summary(), "clients": await status.clients()}

    return {
        "status": Command(Show, show),
        "export add": Command(Add, add),
        "export rm": Command(Remove, remove),
        "export ls": Command(List, list_),
    }
