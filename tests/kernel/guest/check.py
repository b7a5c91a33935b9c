"""What the guest's test programs share.

Such a program is a list of cases: functions of one or more mounted directories, each run by name on
a fresh server (`program case directory...`). The helpers say what was there instead.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"got {actual!r}, expected {expected!r}")


@contextlib.contextmanager
def fails(expected: int) -> Iterator[None]:
    """The body must raise OSError with this errno."""
    try:
        yield
    except OSError as error:
        if error.errno != expected:
            raise AssertionError(f"{error}, expected {errno.errorcode[expected]}") from error
    else:
        raise AssertionError(f"no error, expected {errno.errorcode[expected]}")


def in_child(body: Callable[[], None], uid: int = 0) -> None:
    """Run the body in a process of its own, as this user; it must not raise."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            body()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    equal(os.waitpid(child, 0)[1], 0)


def run_case(cases: dict[str, object]) -> None:
    """Run the case that the command line names."""
    name, *directories = sys.argv[1:]
    case = cases[name]
    assert callable(case)
    case(*map(Path, directories))
