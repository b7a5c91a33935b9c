"""screen: a status as lines of text, of any width and height."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.meter import BOUNDS
from server.screen import (
    ASCII,
    FINE,
    Change,
    Line,
    Looks,
    clipped,
    legend,
    quantile,
    screen,
    share,
    took,
)

MIB = 1 << 20


def requests(count: int, took: int, errors: int = 0) -> dict[str, Any]:
    """So many requests, all of which took as long as a bucket says."""
    buckets = [0] * (len(BOUNDS) + 1)
    buckets[took] = count
    slowest = BOUNDS[took]
    return {
        "count": count,
        "errors": {"ENOENT": errors} if errors else {},
        "seconds": count * slowest / 2,
        "longest": slowest,
        "buckets": buckets,
    }


def memory(**changes: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("swap_size", "swap_used", "lost", "paged_in", "paged_out"), 0)
    return {
        "name": "shared",
        "ram": 8 * MIB,
        "resident": 2 * MIB,
        "reclaim_stalls": 0,
        **numbers,
    } | changes


def export(name: str, **changes: int) -> dict[str, Any]:
    numbers = {"size": 8 * MIB, "used": 4 * MIB, "swapped": 2 * MIB, "inodes": 5, "clients": 1}
    return {"name": name, **numbers} | changes


def client(fd: int, **changes: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(("fids", "waiting", "requests", "received", "sent"), 0)
    return {"fd": fd, "peer": f"10.0.0.1:{fd}", "uid": None, "exports": ["/"], **numbers} | changes


@pytest.fixture
def now() -> dict[str, Any]:
    """A server that has been up for ten seconds."""
    return {
        "version": "1.2.3",
        "pid": 5,
        "uptime": 10.0,
        "connections": 1,
        "fids": 1234,
        "waiting": 0,
        "received": 10 * MIB,
        "sent": 100,
        "memories": [memory(swap_size=4 * MIB, swap_used=MIB, paged_out=50)],
        "exports": [export("/")],
        "bounds": list(BOUNDS),
        "requests": {"Tread": requests(1000, 2), "Twalk": requests(20, 10, errors=5)},
        "clients": [client(7, requests=1020, received=10 * MIB, sent=100)],
    }


def later(status: dict[str, Any], seconds: float = 2.0) -> dict[str, Any]:
    """The same server, which has done nothing more."""
    return copy.deepcopy(status) | {"uptime": status["uptime"] + seconds}


def text(lines: list[Line]) -> list[str]:
    return ["".join(part for part, _ in line).rstrip() for line in lines]


def shown(looks: Looks, width: int = 80, height: int | None = None) -> list[str]:
    return text(screen(looks, width, height, FINE))


def row(lines: list[str], name: str) -> list[str]:
    """The cells of the row that begins so."""
    (found,) = (line for line in lines if line.startswith(name))
    return found.split()


def test_all_of_it(now: dict[str, Any]) -> None:
    assert shown(Looks(now)) == [
        " tmpfs9p 1.2.3             1 client   1,234 files held   0 waiting   up 0:00:10",
        "",
        "RAM   ██████████████········································  2m of 8m",
        "swap  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒········································  1m of 4m",
        "in 1m/s             out 10/s            requests 102/s      errors 0.5/s",
        "paged in 0/s        paged out 5/s       stalls 0/s",
        "",
        "EXPORT                                   RAM     SWAP     FREE    FILES  CLIENTS",
        "/      ███████▒▒▒▒▒▒▒··············       2m       2m       4m        5        1",
        "",
        "SLOWEST REQUESTS              PER S     MEAN      P50      P99  SLOWEST ERRORS/S",
        "Twalk                             2   1.25ms   1.75ms   2.49ms    2.5ms      0.5",
        "Tread                           100    2.5us   3.75us   4.98us      5us        0",
        "",
        "BUSIEST CLIENTS                        FILES  WAITING   REQS/S     IN/S    OUT/S",
        "10.0.0.1:7  /                              0        0      102       1m       10",
    ]


def test_rates_are_of_the_time_between_two_looks(now: dict[str, Any]) -> None:
    after = later(now)
    after["requests"]["Tread"] = requests(1500, 2)
    after["received"] += 4 * MIB
    after["clients"][0]["requests"] += 500
    lines = shown(Looks(after, now, now))
    assert row(lines, "in ")[:2] == ["in", "2m/s"]
    assert row(lines, "Tread")[1] == "250"
    assert row(lines, "10.0.0.1:7")[-3] == "250"
    assert "errors 0/s" in lines[4]


def test_requests_that_there_were_none_of_late_are_not_shown(now: dict[str, Any]) -> None:
    after = later(now)
    after["requests"]["Tread"]["count"] += 1  # its time was not taken
    lines = shown(Looks(after, now, now))
    assert row(lines, "Tread")[1:5] == ["0.5", "-", "-", "-"]
    assert not any(line.startswith("Twalk") for line in lines)


def test_times_are_of_a_longer_time_than_rates(now: dict[str, Any]) -> None:
    after = later(now)
    lines = shown(Looks(after, now, None))
    assert row(lines, "Tread")[1:] == ["0", "2.5us", "3.75us", "4.98us", "5us", "0"]


def test_a_server_that_was_started_again_has_no_past(now: dict[str, Any]) -> None:
    before = later(now, 1000.0) | {"pid": 4}
    assert shown(Looks(now, before, before)) == shown(Looks(now))


def test_a_descriptor_may_be_that_of_another_client(now: dict[str, Any]) -> None:
    after = later(now)
    after["clients"] = [client(7, peer="10.0.0.2:1", requests=10), client(8, uid=0, exports=[])]
    lines = shown(Looks(after, now, now))
    assert row(lines, "10.0.0.2:1")[-3] == "5"
    assert row(lines, "10.0.0.1:8")[:3] == ["10.0.0.1:8", "uid", "0"]


def test_without_swap_nothing_is_said_of_it(now: dict[str, Any]) -> None:
    now["memories"] = [memory()]
    lines = shown(Looks(now))
    assert not any(line.startswith(("swap", "paged")) for line in lines)


def test_lost_blocks_are_told(now: dict[str, Any]) -> None:
    now["memories"].append(memory(lost=1))
    assert "1 block of 64k lost: could not be read from swap" in shown(Looks(now))


def test_exports_are_sorted_and_their_bars_full_when_they_are(now: dict[str, Any]) -> None:
    now["exports"] = [
        export("empty", used=0, swapped=0),
        export("full", used=8 * MIB, swapped=0),
        export("a-name-that-is-too-long-to-show", used=4096, swapped=4096),
    ]
    lines = shown(Looks(now), width=81)
    place = next(at for at, line in enumerate(lines) if line.startswith("EXPORT"))
    names, bars = zip(*(line.split()[:2] for line in lines[place + 1 : place + 4]), strict=True)
    assert names == ("full", "a-name-that-is-t", "empty")
    assert bars == ("█" * 19, "▒" + "·" * 18, "·" * 19)


def test_a_terminal_without_these_characters_gets_others(now: dict[str, Any]) -> None:
    lines = text([*screen(Looks(now), 80, None, ASCII), legend(ASCII)])
    assert "".join(lines).isascii()
    assert "#######=======......" in "".join(lines)


@given(st.integers(1, 200), st.integers(0, 60))
def test_it_fits_whatever_the_size_is(width: int, height: int) -> None:
    status = now_of(9)
    lines = screen(Looks(status), width, height, FINE)
    assert len(lines) <= height
    assert all(len("".join(part for part, _ in line)) <= width for line in lines)


def now_of(things: int) -> dict[str, Any]:
    """A server with so many exports and clients."""
    made: dict[str, Any] = now.__wrapped__()  # type: ignore[attr-defined]
    made["exports"] = [export(f"export{it}", used=it * 4096) for it in range(things)]
    made["clients"] = [client(it, requests=it) for it in range(things)]
    return made


def test_what_does_not_fit_is_the_least_busy() -> None:
    lines = shown(Looks(now_of(9)), height=23)
    assert len(lines) == 23
    assert [line.split()[0] for line in lines if "10.0.0.1" in line] == [
        "10.0.0.1:8",
        "10.0.0.1:7",
        "10.0.0.1:6",
        "10.0.0.1:5",
    ]
    assert [line.split()[0] for line in lines if line.startswith("export")] == [
        *("export8", "export7", "export6", "export5", "export4"),
    ]


@pytest.mark.parametrize(
    ("room", "wanted", "given"),
    [(10, [1, 2, 3], [1, 2, 3]), (5, [1, 9, 9], [1, 2, 2]), (0, [1], [0]), (-3, [1], [0])],
)
def test_who_wants_little_gets_it(room: int, wanted: list[int], given: list[int]) -> None:
    assert share(room, wanted) == given


def test_a_line_is_cut_within_a_span() -> None:
    assert clipped([("abc", "head"), ("def", "dim")], 4) == [("abc", "head"), ("d", "dim")]


@pytest.mark.parametrize(
    ("buckets", "part", "time"),
    [([4, 0, 0], 0.5, 0.5), ([0, 4, 0], 0.25, 1.25), ([2, 2, 0], 0.75, 1.5), ([0, 0, 1], 0.5, 2.0)],
)
def test_a_quantile_is_within_its_bucket(buckets: list[int], part: float, time: float) -> None:
    assert quantile([1.0, 2.0], buckets, part) == time


def test_no_quantile_is_above_the_slowest(now: dict[str, Any]) -> None:
    now["requests"]["Tread"]["longest"] = 2.6e-6
    assert took(Change(now, None), "Tread").tail == 2.6e-6
