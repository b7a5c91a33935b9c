"""The dashboard: its queries are of what a server tells, and a real Prometheus answers them."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import GUARD
from tests.server.test_main import ask, serving

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "deploy/grafana/tmpfs9p.json").read_text(encoding="utf-8")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: A query that the documentation has.
JOIN = "tmpfs9p_export_info * on (instance, memory) group_left() tmpfs9p_memory_resident_bytes"
#: What Prometheus adds to each sample.
ADDED = {"job", "instance"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the metrics of a server are that has swap, an export, and refused a request."""
    port = free_port()
    swap = tmp_path_factory.mktemp("swap") / "swap"
    options = f"--listen tcp://127.0.0.1:0 --metrics tcp://127.0.0.1:{port} --export a --ram 1m"
    with serving(*options.split(), "--swap", str(swap)) as server, server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        for aname in (b"a", b"missing"):
            ask(sock, m.Tattach(0, c.NOFID, b"", aname, 0))
        yield f"127.0.0.1:{port}"


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=GUARD) as reply:
        text: str = reply.read().decode()
    return text


def samples(metrics: str) -> dict[str, set[str]]:
    """The names of all samples of a server, and of their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(fetched(f"http://{metrics}/metrics")):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_is_of_metrics_and_labels_that_there_are(metrics: str) -> None:
    there = samples(metrics)
    for panel in PANELS:
        for target in panel["targets"]:
            names = set(re.findall(r"\b(?:tmpfs9p|process)_\w+", target["expr"]))
            assert names
            assert names <= set(there)
            labels = {label for name in names for label in there[name]} | ADDED
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {word for group in grouped for word in re.split(r",\s*", group)}
            used |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            used |= set(re.findall(r"[{,](\w+)=", target["expr"]))
            assert used <= labels, target["expr"]


def test_the_documentation_has_the_query_that_is_tested() -> None:
    assert JOIN in (Path(__file__).parents[2] / "docs/operations.md").read_text()


def test_every_metric_of_a_memory_an_export_and_of_requests_is_shown(metrics: str) -> None:
    shown = " ".join(QUERIES)
    wanted = r"tmpfs9p_(memory|export|request|error|page|move|swap|block|stall)\w+"
    for name in samples(metrics):
        if re.fullmatch(wanted, name) and name not in (
            "tmpfs9p_export_info",
            "tmpfs9p_move_copied_bytes_total",  # always 0
        ):
            assert name in shown


def test_grafana_can_import_it() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= set(DASHBOARD)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & places, f"{panel['title']} is over another panel"
        assert max(x for x, _ in cells) < 24
        places |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval"}
    assert used == variables


@contextlib.contextmanager
def prometheus(metrics: str, folder: Path) -> Iterator[str]:
    """Where a Prometheus answers that scrapes the metrics."""
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms}\n"
        "scrape_configs:\n"
        f"  - {{job_name: tmpfs9p, static_configs: [{{targets: ['{metrics}']}}]}}\n"
    )
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def answer(address: str, query: str) -> Any:
    """What Prometheus answers, None while it does not yet."""
    with contextlib.suppress(ConnectionError, urllib.error.URLError):
        url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        return json.loads(fetched(url))["data"]["result"]
    return None


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs the package prometheus")
def test_prometheus_answers_every_query(metrics: str, tmp_path: Path) -> None:
    with prometheus(metrics, tmp_path) as address:
        end = time.monotonic() + GUARD
        for query in [*QUERIES, JOIN]:
            real = query.replace("$__rate_interval", "1m").replace("$job", "tmpfs9p")
            real = real.replace("$instance", ".*")
            while not answer(address, real):
                assert time.monotonic() < end, f"{real}: no data"
                time.sleep(0.1)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs the package prometheus")
def test_promtool_finds_no_fault_in_the_metrics(metrics: str) -> None:
    text = fetched(f"http://{metrics}/metrics")
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)
