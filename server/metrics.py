"""Metrics: what a server does and holds, as Prometheus reads it.

Rules of this file:

* Nothing is kept here: at each scrape, the families are made of what :mod:`.status` tells.
* Labels have few values: types of messages, errnos, exports, memories; never clients or files.
* Base units and names as Prometheus' conventions have them (prometheus.io/docs/practices/naming).
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .meter import SAMPLED
from .status import Status

#: Of the whole server: key of a status, name, help.
GAUGES: Final = (
    ("uptime", "uptime_seconds", "Time since the server started."),
    ("connections", "connections", "Connections that there are."),
    ("fids", "fids", "Files that clients hold, those in their kernels' caches too."),
    ("locks", "locks", "Byte ranges that clients have locked."),
    (
        "waiting",
        "requests_in_flight",
        "Requests that wait for a page, for RAM or for a lock; all others are answered at once.",
    ),
)
COUNTERS: Final = (
    ("connections_ended", "connections_ended", "Connections that have ended."),
    ("connections_refused", "connections_refused", "Clients that were not let in."),
    ("received", "received_bytes", "Bytes received from clients."),
    ("sent", "sent_bytes", "Bytes sent to clients."),
)
#: The same of each export.
EXPORT_GAUGES: Final = (
    ("size", "export_size_bytes", "Bytes that its files may take."),
    ("used", "export_used_bytes", "Bytes that its files take, in RAM and in swap."),
    ("swapped", "export_swapped_bytes", "Bytes of these that are in swap and not in RAM."),
    ("nr_inodes", "export_inodes_limit", "Files and directories that it may have."),
    ("inodes", "export_inodes", "Files and directories that it has."),
    ("clients", "export_clients", "Clients that have attached to it."),
)
#: The same of each memory: keys of :meth:`tmpfs_core.memory.Memory.statistics`.
MEMORY_GAUGES: Final = (
    ("ram", "memory_size_bytes", "RAM that its files may take."),
    ("resident", "memory_resident_bytes", "RAM that they take."),
    ("in_use", "memory_in_use_bytes", "RAM of open files that can not be paged out as it is."),
    ("swapped", "memory_swapped_bytes", "Bytes of its files that are in swap and not in RAM."),
)
MEMORY_COUNTERS: Final = (
    ("moved_in", "moves_in", "Blocks of 64 KiB that came into use."),
    ("moved_home", "moves_home", "Blocks that went out of use again, and can be paged out."),
    ("bytes_copied_by_moves", "move_copied_bytes", "Bytes copied by that: none, ever."),
    ("paged_in", "page_ins", "Blocks read from swap."),
    ("paged_out", "page_outs", "Blocks written to swap."),
    ("dropped_clean", "page_outs_clean", "Blocks freed without writing, as swap had them still."),
    ("zero_pages", "page_outs_zero", "Blocks freed without writing, as they were all zeros."),
    ("readahead_hits", "readahead_hits", "Blocks read before they were asked for, and then were."),
    ("reclaim_stalls", "reclaim_stalls", "Requests that had to wait until RAM was free."),
    ("failed_page_outs", "page_outs_failed", "Blocks that could not be written to swap."),
    ("lost", "blocks_lost", "Blocks that could not be read from swap again: their data is lost."),
)
#: Of the swap, which all memories share.
SWAP_GAUGES: Final = (
    ("swap_size", "swap_size_bytes", "Bytes of swap that there may be."),
    ("swap_used", "swap_used_bytes", "Bytes of swap in use."),
)


class StatusCollector(Collector):
    """Makes metrics of a server's status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """Nothing needs to be known before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        now = self._status.summary()
        yield InfoMetricFamily(
            "tmpfs9p_build", "The version of the server.", {"version": now["version"]}
        )
        yield from _families(GaugeMetricFamily, GAUGES, [now])
        yield from _families(CounterMetricFamily, COUNTERS, [now])
        yield from _requests(now["requests"], now["bounds"])
        exports, memories = now["exports"], now["memories"]
        info = InfoMetricFamily("tmpfs9p_export", "The memory that it lives in.", labels=["export"])
        for export in exports:
            info.add_metric([export["name"]], {"memory": export["memory"]})
        yield info
        yield from _families(GaugeMetricFamily, EXPORT_GAUGES, exports, "export")
        yield from _families(GaugeMetricFamily, MEMORY_GAUGES, memories, "memory")
        yield from _families(CounterMetricFamily, MEMORY_COUNTERS, memories, "memory")
        yield from _families(GaugeMetricFamily, SWAP_GAUGES, memories[:1])


class Metrics:
    """All metrics of a server, its process' too."""

    def __init__(self, status: Status) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(status))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """A scrape and its media type, of those that ``accept`` (a header of HTTP) has."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


def _families(
    family: Callable[..., Any],
    rows: tuple[tuple[str, str, str], ...],
    things: list[dict[str, Any]],
    label: str | None = None,
) -> Iterator[Metric]:
    """A family of each row, with a value of each thing; ``label`` tells them apart by name."""
    for key, name, text in rows:
        made = family(f"tmpfs9p_{name}", text, labels=[label] if label else [])
        for thing in things:
            made.add_metric([thing["name"]] if label else [], thing[key])
        yield made


def _requests(requests: dict[str, dict[str, Any]], bounds: tuple[float, ...]) -> Iterator[Metric]:
    counts = CounterMetricFamily("tmpfs9p_requests", "Requests, each of them.", labels=["type"])
    errors = CounterMetricFamily(
        "tmpfs9p_errors", "Requests that were refused, each of them.", labels=["type", "errno"]
    )
    seconds = HistogramMetricFamily(
        "tmpfs9p_request_duration_seconds",
        "Time from when the server takes up a request until its reply is ready. Sampled: of "
        f"{SAMPLED} requests one has its time taken and counts for all; each that waits has.",
        labels=["type"],
    )
    ends = [*map(floatToGoString, bounds), "+Inf"]
    for name, one in requests.items():
        counts.add_metric([name], one["count"])
        for error, count in one["errors"].items():
            errors.add_metric([name, error], count)
        buckets = list(zip(ends, accumulate(one["buckets"]), strict=True))
        seconds.add_metric([name], buckets, one["seconds"])
    yield from (counts, errors, seconds)
