"""Fixtures: a laboratory for the session, in it a guest, and a server for each test; and virtual
machines for a module.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from . import qemu
from .uml import Guest, Lab, Server, why_not


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture
def guest(lab: Lab) -> Guest:
    return lab.guest()


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    with lab.serve("--size", "512m") as server:
        yield server


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., qemu.Guest]]:
    """Boots machines, as :class:`qemu.Guest`, that live as long as the module's tests."""
    reason = qemu.why_not()
    if reason is not None:
        pytest.skip(reason)
    scratch = tmp_path_factory.mktemp("machines")
    with ExitStack() as stack:

        def boot(*arguments: str, **options: Any) -> qemu.Guest:
            guest = qemu.Guest(scratch, *arguments, **options)
            stack.callback(guest.kill)
            return guest

        yield boot
