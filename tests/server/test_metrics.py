"""metrics: what Prometheus reads, read by its own library."""

import errno
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from server import metrics as metrics_module
from server.meter import SAMPLED
from server.metrics import MEMORY_COUNTERS, MEMORY_GAUGES, SWAP_GAUGES, Metrics
from server.wire import messages as m
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory

from .peer import ROOT, raises_errno
from .watched import MIB, Watched, watched


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Watched]:
    async with watched(tmp_path) as world:
        yield world


class Scrape:
    """The samples of a scrape."""

    def __init__(self, world: Watched) -> None:
        body, self.media_type = Metrics(world.status).text("")
        self.families = list(parse(body.decode()))
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self._samples[f"tmpfs9p_{name}", frozenset(labels.items())]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self._samples if found == f"tmpfs9p_{name}"]


async def test_requests_and_errors_are_counted_by_type(world: Watched) -> None:
    peer = await world.begin()
    with raises_errno(errno.ENOENT):
        await peer.call(m.Tunlinkat(ROOT, b"missing", 0))
    scrape = Scrape(world)
    assert scrape.value("requests_total", type="Tversion") == 1
    assert scrape.value("requests_total", type="Tunlinkat") == 1
    assert scrape.value("errors_total", type="Tunlinkat", errno="ENOENT") == 1
    assert len(scrape.labels("errors_total")) == 1


async def test_times_are_a_histogram_and_say_that_they_are_samples(world: Watched) -> None:
    peer = await world.begin()
    for _ in range(SAMPLED):
        await peer.call(m.Tstatfs(ROOT))
    scrape = Scrape(world)
    name = "request_duration_seconds"
    buckets = [
        scrape.value(f"{name}_bucket", type="Tstatfs", le=labels["le"])
        for labels in scrape.labels(f"{name}_bucket")
        if labels["type"] == "Tstatfs"
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == scrape.value(f"{name}_count", type="Tstatfs") == SAMPLED
    assert scrape.value(f"{name}_sum", type="Tstatfs") > 0
    (family,) = (it for it in scrape.families if it.name == f"tmpfs9p_{name}")
    assert (family.type, "Sampled: of 61 requests one" in family.documentation) == (
        "histogram",
        True,
    )


async def test_exports_and_memories_are_told_apart_and_can_be_joined(world: Watched) -> None:
    peer = await world.begin(b"own")
    await peer.create(b"file", bytes(3 * FRAME))
    scrape = Scrape(world)
    assert scrape.value("export_used_bytes", export="own") == 3 * FRAME
    assert scrape.value("export_used_bytes", export="/") == 0
    assert scrape.value("export_size_bytes", export="/") == 4 * MIB
    assert scrape.value("export_clients", export="own") == 1
    assert scrape.value("memory_resident_bytes", memory="/own") == 3 * FRAME
    assert scrape.value("memory_in_use_bytes", memory="/own") == 3 * FRAME
    assert scrape.value("memory_size_bytes", memory="shared") == 8 * MIB
    assert scrape.labels("export_info") == [
        {"export": "/", "memory": "shared"},
        {"export": "more", "memory": "shared"},
        {"export": "own", "memory": "/own"},
    ]


async def test_clients_are_told_in_numbers_only(world: Watched) -> None:
    await world.begin()
    scrape = Scrape(world)
    assert scrape.value("connections") == 1
    assert scrape.value("fids") == 1
    assert scrape.value("requests_in_flight") == 0
    assert scrape.value("received_bytes_total") > 0 < scrape.value("sent_bytes_total")


async def test_the_process_is_told_too(world: Watched) -> None:
    names = {family.name for family in Scrape(world).families}
    assert {"process_resident_memory_bytes", "process_cpu_seconds"} <= names


def test_every_statistic_of_the_core_is_a_metric() -> None:
    told = {key for key, _, _ in (*MEMORY_GAUGES, *MEMORY_COUNTERS, *SWAP_GAUGES)}
    assert told == set(Memory(16).statistics())


async def test_names_are_as_prometheus_wants_them(world: Watched) -> None:
    for family in Scrape(world).families:
        assert re.fullmatch(r"(tmpfs9p|process)_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")


async def test_openmetrics_for_who_asks_for_it(world: Watched) -> None:
    await world.begin()
    accept = "application/openmetrics-text;version=1.0.0"
    body, media_type = Metrics(world.status).text(accept)
    assert media_type.startswith("application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"tmpfs9p_requests", "tmpfs9p_build", "tmpfs9p_connections"} <= names
    assert Scrape(world).media_type.startswith("text/plain")


def test_the_readme_of_metrics_names_all_of_them() -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    rows = [
        row
        for table in ("GAUGES", "COUNTERS", "EXPORT_GAUGES", "MEMORY_GAUGES", "MEMORY_COUNTERS")
        for row in getattr(metrics_module, table)
    ]
    for _, name, _ in (*rows, *SWAP_GAUGES):
        assert re.search(rf"`tmpfs9p_{name}(_total)?`", text), name
