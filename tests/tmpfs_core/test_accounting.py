"""accounting: budgets, and the counters."""

import errno
from dataclasses import asdict

import pytest

from tmpfs_core.accounting import Budget, Counters

from .support import refused


def test_a_budget_is_used_up_to_its_limit() -> None:
    budget = Budget(3)
    budget.take(2)
    budget.take(1)
    assert (budget.used, budget.free) == (3, 0)
    budget.give(2)
    assert (budget.used, budget.free) == (1, 2)


def test_a_budget_refuses_more_than_is_free_and_takes_nothing() -> None:
    budget = Budget(3)
    budget.take(2)
    with refused(errno.ENOSPC):
        budget.take(2)
    assert budget.used == 2


@pytest.mark.parametrize("limit", [0, 1])
def test_nothing_can_be_taken_from_any_budget(limit: int) -> None:
    budget = Budget(limit)
    budget.take(limit)
    budget.take(0)
    assert budget.free == 0


def test_nothing_has_happened_at_the_start() -> None:
    assert set(asdict(Counters()).values()) == {0}
