"""Fixtures of the fault tests."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.server.conftest import reads, world

__all__ = ["pytest_asyncio_loop_factories", "reads", "world"]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Faults are tried on the loop that the command uses."""
    return {"uvloop": uvloop.new_event_loop}
