"""The fuzzer: ``python -m tests.fuzz``, options as libFuzzer has them (``make fuzz``).

Rules of this file:

* It begins with the corpus beside it, and keeps what it learns in a folder of its own
  (``build/fuzz``), from where the next run goes on.  A finding is written there, too.
* The corpus beside it is the seeds, and the few other inputs that reach what these do not (as
  libFuzzer's ``-merge=1 -use_counters=0`` chooses them).
* Of an input, either some steps change as the grammar has it, or bytes as libFuzzer does it.
* Messages are counted as the sessions take them: whole frames, whether they are answered, refused
  or wait; not those behind a frame that ends the connection.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["server", "tmpfs_core"]):
    from server.wire.codec import DECLARED, Message

    from . import grammar, target
    from .seeds import CORPUS

LEARNT = Path("build/fuzz")
#: The most bytes of an input; an input that says more does not say it better.
LENGTH = 4096
#: Seconds that one input may take.
TIMEOUT = 20


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    if seed % 4:
        return grammar.mutated(data, max_size, seed)
    flipped: bytes = atheris.Mutate(data, max_size)
    return flipped


def main() -> NoReturn:
    for declared in DECLARED:  # their source is generated, and so not instrumented yet
        atheris.instrument_func(declared.unpack)
        if issubclass(declared, Message):
            atheris.instrument_func(declared.call)
    loop = target.make_loop()
    began = time.monotonic()
    seconds = float(os.environ.get("FUZZ_SECONDS") or "inf")
    inputs = messages = 0

    def fuzz(data: bytes) -> None:
        nonlocal inputs, messages
        inputs += 1
        messages += target.run(data, loop)
        if time.monotonic() - began > seconds:
            over()

    def over(*_: object) -> NoReturn:
        took = time.monotonic() - began
        print(f"{messages} messages in {inputs} inputs, {took:.0f} s: nothing found", flush=True)
        os._exit(0)

    signal.signal(signal.SIGINT, over)
    LEARNT.mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={LENGTH}", f"-timeout={TIMEOUT}", f"-artifact_prefix={LEARNT}/found-"]
    folders = [str(LEARNT / "corpus"), str(CORPUS)]
    Path(folders[0]).mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], *folders], fuzz, custom_mutator=mutated)
    atheris.Fuzz()
    raise AssertionError("it does not return")


if __name__ == "__main__":
    main()
