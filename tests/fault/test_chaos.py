"""chaos: a plan is its seed's, and short runs of fixed seeds lose nothing and leave nothing."""

import asyncio
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.inside import inside
from tests.chaos.plan import ATTACKS, WORK, mounts, plan


def test_a_seed_gives_the_same_plan_again() -> None:
    assert list(islice(plan(7), 500)) == list(islice(plan(7), 500))
    assert list(islice(plan(7), 500)) != list(islice(plan(8), 500))
    assert list(islice(mounts(7), 50)) == list(islice(mounts(7), 50))


@pytest.mark.parametrize("seed", [1, 2])
async def test_chaos_loses_nothing_and_leaves_nothing(tmp_path: Path, seed: int) -> None:
    asyncio.get_running_loop().set_debug(False)  # it keeps a traceback of each callback
    count = await inside(tmp_path, seed, islice(plan(seed), 200))
    assert count["rounds"] == 200
    assert {*WORK, *ATTACKS} <= set(count)
