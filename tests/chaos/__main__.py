"""Chaos: ``python -m tests.chaos [--seed N] [--seconds M]`` (``make chaos``).

Half of the time in one process, then around a real kernel, where one can be had.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from contextlib import closing
from pathlib import Path

import uvloop

from tests.kernel.uml import Lab, why_not

from .inside import inside
from .mount import MIB, around_a_mount
from .plan import plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=120)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    end = time.monotonic() + given.seconds / 2
    rounds = itertools.takewhile(lambda _: time.monotonic() < end, plan(given.seed))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            count = runner.run(inside(place, given.seed, rounds))
        print("in one process:", dict(count), flush=True)
        reason = why_not()
        if reason is not None:
            print(f"not around a mount: {reason}")
            return
        with closing(Lab(place)) as lab:
            outcome = around_a_mount(lab, lab.guest(), place, given.seed, given.seconds / 2)
        print("around a mount:", outcome.done)
        resident = (outcome.before, outcome.peak, outcome.after)
        print("MiB resident before, at most, after:", *(size // MIB for size in resident))


if __name__ == "__main__":
    main()
