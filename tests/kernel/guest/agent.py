"""The guest's end of the console: it runs scripts and programs for the host, one at a time.

A line of JSON with words comes in, and is answered by one with an exit status and the output:
``["bash", ...]`` is a command, ``["python", name, argument...]`` a program of this package. Such a
program runs in a fork of this process, as its ``__main__``: Python and the modules of it that take
long to load are here already, and what a program does to itself ends with it.

Lines to the guest must be short: this console never recovers from a full input buffer. The output
is collected in a file, so that a process which is left behind cannot hold up the answer.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import tty
from typing import IO, NoReturn

CONSOLE = "/dev/tty1"

#: Modules that the programs use, which the guest is slow to load.
SLOW = ("hashlib", "mmap", "multiprocessing.connection", "pathlib", "random", "shutil", "sqlite3")


def main() -> None:
    for module in SLOW:
        importlib.import_module(module)
    with open(CONSOLE, "rb") as requests, open(CONSOLE, "wb") as replies:
        tty.setraw(requests.fileno())
        replies.write(b"ready\n")
        replies.flush()
        for line in requests:
            with tempfile.TemporaryFile() as output:
                status = run(json.loads(line), output)
                output.seek(0)
                text = output.read().decode(errors="backslashreplace")
            replies.write(json.dumps([status, text]).encode() + b"\n")
            replies.flush()


def run(words: list[str], output: IO[bytes]) -> int:
    if words[0] != "python":
        return subprocess.run(
            words, cwd="/tmp", stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        ).returncode
    child = os.fork()
    if child == 0:
        become(words[1:], output)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def become(words: list[str], output: IO[bytes]) -> NoReturn:
    """Be this program from now on, and end with it at once: to take Python down in order takes
    longer than most programs.
    """
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.chdir("/tmp")
    sys.argv = words
    status = 1
    try:
        runpy.run_module(f"{__package__}.{words[0]}", run_name="__main__", alter_sys=True)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


main()
