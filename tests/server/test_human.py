"""human: sizes, counts and times as text."""

import pytest

from server import human


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (4095, "4.0k"), (4096, "4k"), (1536, "1.5k"), (1 << 30, "1g"), (3 << 39, "1.5t")],
)
def test_sizes_have_a_unit(size: int, text: str) -> None:
    assert human.size(size) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.04, "0.0"),
        (0.5, "0.5"),
        (3, "3"),
        (12.5, "12"),
        (34567, "34,567"),
        (2.5e6, "2.5M"),
    ],
)
def test_counts_are_short(value: float, text: str) -> None:
    assert human.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0us"),
        (4.2e-7, "0.42us"),
        (1.5e-6, "1.5us"),
        (0.0123, "12.3ms"),
        (1, "1s"),
        (59.99, "60s"),
    ],
)
def test_times_have_a_unit(value: float, text: str) -> None:
    assert human.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (90061, "1d 1:01:01")],
)
def test_an_age_is_told_to_the_second(value: float, text: str) -> None:
    assert human.age(value) == text
