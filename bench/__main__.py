"""The server against the physical limit and a peer: ``python -m bench``.

What is measured and how to read it is told in bench/README.md.  A whole run takes five to seven
minutes and writes bench/results/latest.md and its pictures; a part of it, ``--only``, is printed.
"""

import argparse
import contextlib
import shlex
import tempfile
from collections.abc import Iterator

from bench import latency, plots, report, throughput, tools
from bench.footprint import footprint_rows

MARGIN = 2  # of a file's size must be available


class Bench:
    """The tools, the server's command, and the part that is wanted."""

    def __init__(self, directory: str, command: list[str], only: str | None) -> None:
        self.npload = tools.build("npload", directory)
        self.npnull = tools.build("npnull", directory)
        self.diod = tools.find_diod()
        self.command = [*command, "serve"]
        self.only = only
        self.rows: list[list[str]] = []  # of the table of single figures
        self.parts: list[str] = []  # of the report

    def run(self) -> None:
        if not self.diod:
            print("no figures of diod: it is not installed")
        with self.servers() as servers:
            self.operations(servers)
            self.readdir(servers)
            self.io_sizes(servers)
            self.latency(servers)
        self.file_sizes()
        if self.wants("footprint"):
            self.rows += footprint_rows(self.command)
        if self.rows:
            self.parts.append(report.table(report.HEAD, self.rows))

    def wants(self, section: str) -> bool:
        return self.only in (None, section)

    @contextlib.contextmanager
    def servers(self, *options: str) -> Iterator[list[tools.Server]]:
        """Those that are compared."""
        with contextlib.ExitStack() as stack:
            ours = tools.ours(tools.pinned([*self.command, *options]))
            servers = [stack.enter_context(ours), stack.enter_context(tools.npnull(self.npnull))]
            if self.diod:
                servers.append(stack.enter_context(tools.diod(self.diod)))
            yield servers

    def operations(self, servers: list[tools.Server]) -> None:
        found = {}
        for workload in throughput.WORKLOADS:
            if self.wants(workload.name):
                loads = throughput.measure(self.npload, servers, workload.name, workload.options)
                print(f"{workload}: {throughput.ratio(loads, 'ours'):.3f}", flush=True)
                found[workload] = loads
        if found:
            self.parts.append(throughput.throughput_table(found))
        if alone := {workload: found[workload] for workload in found if workload.depth == 1}:
            self.parts.append(throughput.tail_table(alone))
        if not self.only:
            plots.plot_ratios(found)

    def readdir(self, servers: list[tools.Server]) -> None:
        if self.wants("readdir") and self.diod:
            able = [server for server in servers if server.name != "npnull"]
            readdir = throughput.READDIR
            loads = throughput.measure(self.npload, able, readdir.name, readdir.options)
            self.rows.append(throughput.readdir_row(loads))

    def io_sizes(self, servers: list[tools.Server]) -> None:
        if self.wants("io-sizes"):
            found = {}
            for name in ("randread", "randwrite"):
                found[name] = throughput.sweep(
                    self.npload, servers, name, "-s", throughput.IO_SIZES
                )
                self.rows.append(throughput.cliff_row(f"{name} by io size", found[name]))
            if not self.only:
                plots.plot_io_sizes(found)

    def latency(self, servers: list[tools.Server]) -> None:
        if self.wants("latency"):
            found = latency.latencies(servers)
            self.parts.append(latency.latency_table(found))
            if not self.only:
                plots.plot_latencies(found)

    def file_sizes(self) -> None:
        if self.wants("file-sizes"):
            sizes = [size for size in throughput.FILE_SIZES if size * MARGIN <= tools.available()]
            with self.servers(f"--size={sizes[-1] + (64 << 20)}") as servers:
                pair = [
                    server for server in servers if server.name != "diod"
                ]  # it fills files slowly
                found = throughput.sweep(self.npload, pair, "randread", "-f", sizes)
            self.rows.append(throughput.cliff_row("randread by file size", found))
            if not self.only:
                plots.plot_file_sizes(found)


def whole_report(conditions: str, bench: Bench) -> str:
    parts = [
        "# Speed",
        "Made by `make bench`; what it means is told in [the README](../README.md).",
        conditions,
        *bench.parts,
        *(f"![{picture}]({picture}.svg)" for picture in plots.PICTURES),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    names = [workload.name for workload in (*throughput.WORKLOADS, throughput.READDIR)]
    sections = ["io-sizes", "latency", "file-sizes", "footprint"]
    parser = argparse.ArgumentParser(prog="python -m bench", description="measure the speed")
    parser.add_argument(
        "--server",
        metavar="COMMAND",
        default=shlex.join(tools.OURS),
        help="tmpfs9p to measure, without its word serve (default: this repository's)",
    )
    parser.add_argument(
        "--only", choices=[*dict.fromkeys(names), *sections], help="measure and print just this"
    )
    options = parser.parse_args()
    if reason := tools.why_not():
        print(f"bench skipped: {reason}")
        return
    command = shlex.split(options.server)
    tools.pin_load()
    conditions = report.conditions(command)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(directory, command, options.only)
        bench.run()
    print(*bench.parts, sep="\n\n")
    if not options.only:
        (tools.RESULTS / "latest.md").write_text(whole_report(conditions, bench))


if __name__ == "__main__":
    main()
