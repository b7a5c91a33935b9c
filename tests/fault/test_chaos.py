"""chaos: short runs of fixed seeds."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos import Chaos


@pytest.mark.parametrize("seed", [1, 2])
async def test_chaos_loses_nothing_and_leaves_nothing(tmp_path: Path, seed: int) -> None:
    asyncio.get_running_loop().set_debug(False)  # it keeps a traceback of each callback
    chaos = Chaos(seed, tmp_path)
    await chaos.run(200)
    assert sum(chaos.count.values()) > 800
