"""meter: what is counted, and whose time is taken."""

from time import perf_counter

import pytest

from server.meter import BOUNDS, SAMPLED, Meter, Tally

READ, WRITE = 116, 118


def test_every_request_is_counted_and_one_of_many_has_its_time_taken() -> None:
    meter = Meter()
    begun = [meter.begin(READ) for _ in range(3 * SAMPLED)]
    meter.begin(WRITE)
    assert (meter.tallies[READ].count, meter.tallies[WRITE].count) == (3 * SAMPLED, 1)
    assert [place for place, since in enumerate(begun, 1) if since] == [
        SAMPLED,
        2 * SAMPLED,
        3 * SAMPLED,
    ]


def test_who_is_timed_counts_for_those_who_are_not() -> None:
    meter = Meter()
    meter.answered(READ, perf_counter())
    meter.waited(READ, perf_counter())
    assert sum(meter.tallies[READ].buckets) == SAMPLED + 1
    assert 0 < meter.tallies[READ].longest < meter.tallies[READ].seconds


@pytest.mark.parametrize(
    ("seconds", "place"),
    [(0.0, 0), (1e-6, 0), (1.1e-6, 1), (0.003, BOUNDS.index(0.005)), (60.0, -2), (61.0, -1)],
)
def test_a_time_is_in_the_bucket_of_the_next_bound(seconds: float, place: int) -> None:
    tally = Tally()
    tally.time(seconds, 2)
    assert tally.buckets[place] == sum(tally.buckets) == 2
    assert (tally.seconds, tally.longest) == (2 * seconds, seconds)


def test_refusals_are_counted_by_errno() -> None:
    meter = Meter()
    for code in (2, 2, 13):
        meter.refused(READ, code)
    assert meter.tallies[READ].refused == {2: 2, 13: 1}
    assert not meter.tallies[WRITE].refused


def test_the_bounds_grow() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
