"""What --swap-encrypt costs: ``python -m bench.encryption``.

MiBs go out to a swap file and come back in, in the host's page cache, where nothing waits for a
disk: plain and encrypted in turns, and the median of the rounds' ratios counts.
"""

import os
import statistics
import tempfile
import time

from bench.report import table
from server.encryption import Xts
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.swap import Cipher, SwapFile, Transfer, read_in, write_out

MIB = 1 << 20
SIZE = 256
ROUNDS = 9


def speeds(cipher: Cipher | None) -> tuple[float, float]:
    """MiB a second: out, in."""
    path = os.path.join(tempfile.gettempdir(), f"tmpfs9p-bench-{os.getpid()}")
    file = SwapFile(path, SIZE * MIB // FRAME, cipher)
    while file.ungrown:
        file.grow()
    views = [memoryview(bytearray(os.urandom(BLOCK))) for _ in range(MIB // BLOCK)]
    transfers = [Transfer(file, place * MIB, list(views)) for place in range(SIZE)]
    start = time.perf_counter()
    for transfer in transfers:
        write_out(transfer)
    between = time.perf_counter()
    for transfer in transfers:
        read_in(transfer)
    end = time.perf_counter()
    file.close()
    return SIZE / (between - start), SIZE / (end - between)


def main() -> None:
    rounds = [(speeds(None), speeds(Xts())) for _ in range(ROUNDS)]
    print(f"load average: {os.getloadavg()[0]:.1f}")
    rows = []
    for way, what in enumerate(("out", "in")):
        plain = statistics.median(plain[way] for plain, _ in rounds)
        encrypted = statistics.median(encrypted[way] for _, encrypted in rounds)
        ratios = sorted(encrypted[way] / plain[way] for plain, encrypted in rounds)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        median = f"{statistics.median(ratios):.2f}"
        rows.append([what, f"{plain:.0f}", f"{encrypted:.0f}", median, spread])
    print(table(["", "plain, MiB/s", "encrypted", "ratio", "of the rounds"], rows))


if __name__ == "__main__":
    main()
