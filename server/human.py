"""Human: sizes, counts and times as text for people, in few characters."""

from typing import Final

#: Of times, and how many there are in a second.
UNITS: Final = (("s", 1.0), ("ms", 1e3), ("us", 1e6))


def size(count: float) -> str:
    """Bytes with a unit, and one digit behind the point where that is not exact."""
    count = int(count)
    for unit, bits in (("t", 40), ("g", 30), ("m", 20), ("k", 10)):
        if count >= 1 << bits:
            number = count / (1 << bits)
            return f"{number:.0f}{unit}" if number.is_integer() else f"{number:.1f}{unit}"
    return str(count)


def number(value: float) -> str:
    """A count or a rate; one digit behind the point where it is small and not whole."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f}M"
    return f"{value:.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time that something took."""
    unit, factor = next((it for it in UNITS if value * it[1] >= 1), UNITS[-1])
    return f"{value * factor:.3g}{unit}"


def age(value: float) -> str:
    """A time for which something has been there."""
    minutes, left = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{left:02}"
    return f"{days}d {clock}" if days else clock
