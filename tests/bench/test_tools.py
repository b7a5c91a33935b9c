"""What the benches compute from the load generator's lines."""

import pytest

from bench.report import table
from bench.throughput import Workload, cliff_row, ratio, tail
from bench.tools import Load, parse_load

LINE = (
    "randread  c=1 q=32 msize=1048576 io=4096  92859 ops/s  380.3 MB/s"
    "  p50 197.9 us  p99 4296.2 us  errors 0\n"
)


def loads(*speeds: float) -> list[Load]:
    return [Load(4096, speed, 0, 10, 20) for speed in speeds]


def test_a_line_of_npload() -> None:
    assert parse_load(LINE) == Load(4096, 92859, 380.3, 197.9, 4296.2)


def test_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of npload: 'connection closed"):
        parse_load("connection closed by server")


def test_a_ratio_is_the_median_of_those_of_each_round() -> None:
    found = {"ours": loads(40, 10, 30), "npnull": loads(80, 100, 40)}
    assert ratio(found, "ours") == 0.5  # of 0.5, 0.1, 0.75
    assert ratio(found, "npnull", "ours") == 2


def test_a_ratio_is_of_bytes_where_messages_differ() -> None:
    found = {"diod": [Load(100, 30, 0, 0, 0)], "npnull": [Load(1000, 6, 0, 0, 0)]}
    assert ratio(found, "diod") == 0.5


def test_a_tail_is_relative_to_the_median_latency() -> None:
    assert tail([Load(0, 0, 0, 10, 50), Load(0, 0, 0, 10, 20), Load(0, 0, 0, 5, 15)]) == 3


@pytest.mark.parametrize(("last", "worst", "reached"), [(45, "0.90", "yes"), (20, "0.40", "NO")])
def test_a_cliff_is_a_step_down_in_the_ratio(last: float, worst: str, reached: str) -> None:
    sizes = {
        512: {"ours": loads(40), "npnull": loads(100)},
        1024: {"ours": loads(50), "npnull": loads(100)},
        2048: {"ours": loads(last), "npnull": loads(100)},
    }
    assert cliff_row("x", sizes)[1::2] == [worst, reached]


def test_a_workload_is_named_as_it_is_run() -> None:
    assert str(Workload("getattr", 4, 0.4, 64)) == "getattr -c 64 -q 4"
    assert Workload("getattr", 1, 0.8, more=("-s", "512")).options == [
        "-q",
        "1",
        "-c",
        "1",
        "-s",
        "512",
    ]


def test_a_table_is_aligned() -> None:
    assert table(["a", "long"], [["longer", "b"]]).splitlines() == [
        "| a      | long |",
        "| ------ | ---- |",
        "| longer | b    |",
    ]
