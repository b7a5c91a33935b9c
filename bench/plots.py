"""The pictures of ``python -m bench``."""

import statistics
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.throughput import Loads, Sweep, Workload, ratio
from bench.tools import RESULTS

COLOURS = {"ours": "tab:blue", "npnull": "black", "diod": "tab:orange"}
PICTURES = ("ratios", "latency", "io-sizes", "file-sizes")

mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tmpfs9p", "font.size": 9})


def plot_ratios(found: dict[Workload, Loads]) -> None:
    """Bars of what part of npnull's operations a server does, and marks where ours must be."""
    figure, (axes,) = _figure(1, height=0.38 * len(found) + 1)
    for i, (workload, loads) in enumerate(found.items()):
        for name, place, height in (("ours", i - 0.12, 0.5), ("diod", i + 0.28, 0.2)):
            if name in loads:
                axes.barh(place, ratio(loads, name), height=height, color=COLOURS[name])
        axes.plot([workload.target] * 2, [i - 0.42, i + 0.42], color="red", linewidth=2)
    for label, colour in (("ours", COLOURS["ours"]), ("diod", COLOURS["diod"]), ("target", "red")):
        axes.plot([], [], color=colour, linewidth=4, label=label)
    axes.set_yticks(range(len(found)), [str(workload) for workload in found])
    axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="operations per second, npnull = 1")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    _save(figure, "ratios")


def plot_latencies(found: dict[str, list[float]]) -> None:
    figure, (axes,) = _figure(1)
    for name, times in found.items():
        shares = [(i + 1) / len(times) for i in range(len(times))]
        axes.plot(times[::10], shares[::10], color=COLOURS[name], label=name)
    longest = max(times[int(len(times) * 0.999)] for times in found.values())
    axes.set(
        xscale="log", xlim=(None, longest), xlabel="us (log scale)", ylabel="share of getattrs"
    )
    axes.set_title("getattr at depth 1, client in Python")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    _save(figure, "latency")


def plot_io_sizes(sweeps: dict[str, Sweep]) -> None:
    figure, plots = _figure(len(sweeps))
    for axes, (workload, found) in zip(plots, sweeps.items(), strict=True):
        for name in next(iter(found.values())):
            speeds = {
                size: statistics.median(each.megabytes for each in loads[name])
                for size, loads in found.items()
                if loads[name][0].io >= size - 24  # else the server has no messages so large
            }
            axes.plot([*speeds], [*speeds.values()], color=COLOURS[name], marker=".", label=name)
        axes.set_title(f"{workload} -q 8")
        axes.set(yscale="log", ylabel="MB/s (log scale)")
        _by_size(axes, list(found)[::-2])
    _save(figure, "io-sizes")


def plot_file_sizes(found: Sweep) -> None:
    figure, (axes,) = _figure(1)
    for name in next(iter(found.values())):
        speeds = [
            statistics.median(each.ops for each in by_name[name]) for by_name in found.values()
        ]
        axes.plot(list(found), speeds, color=COLOURS[name], marker=".", label=name)
    axes.set_title("randread of 4 KiB, -q 8, by the size of the file")
    axes.set(ylim=(0, None), ylabel="operations per second")
    _by_size(axes, list(found))
    _save(figure, "file-sizes")


def _figure(columns: int, height: float = 4) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _by_size(axes: Axes, marked: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(marked, [_size(size) for size in marked])
    axes.grid(alpha=0.3)
    axes.legend()


def _size(size: int) -> str:
    unit = max(shift for shift in (0, 10, 20, 30) if size >> shift)
    return f"{size >> unit} {['B', 'KiB', 'MiB', 'GiB'][unit // 10]}"


def _save(figure: Figure, name: str) -> None:
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
