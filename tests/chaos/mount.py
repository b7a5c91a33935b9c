"""Chaos around a real kernel: its mounts hold what it wrote, whatever others do to the server.

Rules of this file:

* The kernel has an export of its own, for which there is always space: it is refused nothing.
* The verdict: no checksum of the kernel's and of the attackers' own work is wrong, the log has no
  error but those that were made, the server ends in order, and holds no descriptor and hardly any
  memory more than before.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.kernel.uml import REPOSITORY, SERVER_ADDRESS, Guest, Lab, Server

from .outside import PREY
from .plan import mounts

MIB = 1 << 20
#: What is served, all of it together, from 16 MiB of RAM.
RAM = 16
OPTIONS = (
    *("--ram", f"{RAM}m", "--size", "48m", "--swap-size", "128m"),
    *("--export", f"{PREY.decode()}:size=16m", "--log-format", "json", "--log-level", "warning"),
)
#: MiB that the process may have beside its files when most is going on.
OVERHEAD = 150
#: Steps of each of the guest's programs on a mount.
STEPS = 100


class Outcome(NamedTuple):
    """What a run did, and what the server had resident before, at most, and after it, in bytes."""

    done: dict[str, int]
    before: int
    peak: int
    after: int


def around_a_mount(lab: Lab, guest: Guest, place: Path, seed: int, seconds: float) -> Outcome:
    """Have a guest work, mount after mount, while clients attack for so long.

    Raises:
        Exception: the verdict, if it is bad.
    """
    with lab.serve(*OPTIONS, "--swap", str(place / "swap")) as server:
        at_first, before = server.descriptors(), server.rss()
        words = (SERVER_ADDRESS, server.port, server.pid, seed, seconds)
        attackers = subprocess.Popen(
            lab.command(sys.executable, "-m", "tests.chaos.outside", *map(str, words)),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        with attackers:
            try:
                done = work(guest, server, seed, attackers)
            finally:
                attackers.terminate()  # unless it has ended
            assert attackers.stdout is not None
            output = attackers.stdout.read()
        assert attackers.returncode == 0, f"the attackers of seed {seed} found something"
        while server.descriptors() > at_first:
            time.sleep(0.01)
        outcome = Outcome(
            json.loads(output) | {"mounts": done}, before, server.peak_rss(), server.rss()
        )
        assert outcome.peak - before < (RAM + OVERHEAD) * MIB
    errors = [
        line["event"]
        for line in map(json.loads, filter(lambda line: line[0] == "{", server.log().splitlines()))
        if line["level"] == "error"
    ]
    assert set(errors) <= {"accept failed"}
    return outcome


def work(guest: Guest, server: Server, seed: int, attackers: "subprocess.Popen[str]") -> int:
    """Work until the attackers end, and at least once; on how many mounts that was."""
    for number, this in enumerate(mounts(seed)):
        with guest.mount(server, cache=this.cache, msize=this.msize) as top:
            guest.sh(f"mkdir {top}/fsx {top}/sums")
            mapping = ("map",) if this.mapping else ()
            guest.python("fsx", f"{top}/fsx", str(this.seed), str(STEPS), *mapping)
            guest.python("checksums", f"{top}/sums", str(this.seed), str(STEPS))
            guest.sh(f"rm -r {top}/*")
        if attackers.poll() is not None:
            return number + 1
    raise AssertionError
