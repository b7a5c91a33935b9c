"""Processes that rename files across directories: `storm directory...`, one process for each.

Every file holds its own number. Files move between four directories by plain renames, renames over
a scrap file, and exchanges of two files in three renames; the processes of one mount also rename
files over one and the same name. (Those of two do not: the client's kernel warns of a link count
below zero if what it renames over was replaced meanwhile.) In the end every number is there once.
"""

import os
import random
import sys
from pathlib import Path

from .check import equal

FILES = 60
ROUNDS = 300
DIRECTORIES = "abcd"


def _storm(top: Path, worker: int) -> None:
    """No one else moves this worker's files: each must be where the worker believes it to be."""
    dice = random.Random(worker)
    places = {}
    for number in range(FILES):
        name = f"{worker}.{number}"
        places[number] = top / dice.choice(DIRECTORIES) / name
        places[number].write_text(name)
    for round_number in range(ROUNDS):
        one, two = dice.sample(sorted(places), 2)
        kind = dice.choice(["move", "replace", "exchange", "contend"])
        target = top / dice.choice(DIRECTORIES) / f"{worker}.{round_number}.{kind}"
        if kind == "contend":
            target.write_text("scrap")
            target.rename(top / "a" / f"contended on {top.name}")
        elif kind == "exchange":
            places[one].rename(target)
            places[two].rename(places[one])
            target.rename(places[two])
            places[one], places[two] = places[two], places[one]
        else:
            if kind == "replace":
                target.write_text("scrap")
            places[one].rename(target)
            places[one] = target
    for number, place in places.items():
        equal(place.read_text(), f"{worker}.{number}")


def main() -> None:
    tops = [Path(argument) for argument in sys.argv[1:]]
    for name in DIRECTORIES:
        (tops[0] / name).mkdir()
    children = []
    for worker, top in enumerate(tops):
        child = os.fork()
        if child == 0:
            try:
                _storm(top, worker)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(child)
    equal([os.waitpid(child, 0)[1] for child in children], [0] * len(tops))
    for top in tops:
        texts = [path.read_text() for path in top.rglob("*") if path.is_file()]
        expected = [f"{worker}.{number}" for worker in range(len(tops)) for number in range(FILES)]
        equal(sorted(texts), sorted([*expected, *["scrap"] * len(set(tops))]))


main()
