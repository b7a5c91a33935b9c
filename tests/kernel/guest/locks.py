"""flock and fcntl locks between processes, on one mount or on two."""

import fcntl
import os
import signal
import struct
from errno import EAGAIN
from fcntl import F_GETLK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from .check import equal, run_case

EXCLUSIVE, SHARED, RELEASE = LOCK_EX | LOCK_NB, LOCK_SH | LOCK_NB, LOCK_UN
FLOCK = struct.Struct("hhqqi4x")


class Locker:
    """A process with the file open: it does one lock operation at a time and tells its errno."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "file").touch()
        self._pipe, far_end = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._pipe.close()
            self._work(far_end)
        far_end.close()

    def _work(self, pipe: Connection) -> None:
        descriptor = os.open(self._directory / "file", os.O_RDWR)
        while True:
            function, arguments = pipe.recv()
            pipe.send("starting")
            try:
                getattr(fcntl, function)(descriptor, *arguments)
                pipe.send(0)
            except OSError as error:
                pipe.send(error.errno)

    def __enter__(self) -> "Locker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.kill()

    def flock(self, operation: int) -> int:
        self.start("flock", operation)
        return self.result()

    def lockf(self, operation: int, start: int, length: int) -> int:
        self.start("lockf", operation, length, start)
        return self.result()

    def start(self, function: str, *arguments: int) -> None:
        self._pipe.send((function, arguments))
        equal(self._pipe.recv(), "starting")

    def wait_until_blocked(self) -> None:
        """The process sleeps, and the server has seen all that its mount had sent before."""
        while Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0] not in "SD":
            os.sched_yield()
        self._directory.stat()

    def result(self) -> int:
        errno = self._pipe.recv()
        assert isinstance(errno, int)
        return errno

    def is_waiting(self) -> bool:
        return not self._pipe.poll()

    def kill(self) -> None:
        if not self._pipe.closed:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pipe.close()


def flock_exclusive_excludes(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.flock(EXCLUSIVE), 0)
        equal(two.flock(EXCLUSIVE), EAGAIN)
        equal(two.flock(SHARED), EAGAIN)
        equal(one.flock(RELEASE), 0)
        equal(two.flock(EXCLUSIVE), 0)
        equal(one.flock(SHARED), EAGAIN)


def flock_shared_is_shared(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two, Locker(b) as three:
        equal([one.flock(SHARED), two.flock(SHARED)], [0, 0])
        equal(three.flock(EXCLUSIVE), EAGAIN)
        equal([one.flock(RELEASE), two.flock(RELEASE)], [0, 0])
        equal(three.flock(EXCLUSIVE), 0)


def flock_is_upgraded_and_downgraded(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal([one.flock(SHARED), two.flock(SHARED)], [0, 0])
        equal(one.flock(EXCLUSIVE), EAGAIN)
        equal(two.flock(RELEASE), 0)
        equal(one.flock(EXCLUSIVE), 0)
        equal(two.flock(SHARED), EAGAIN)
        equal(one.flock(SHARED), 0)
        equal(two.flock(SHARED), 0)


def flock_waiters_get_it_one_after_the_other(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two, Locker(a) as three:
        equal(one.flock(EXCLUSIVE), 0)
        for waiter in (two, three):
            waiter.start("flock", LOCK_EX)
            waiter.wait_until_blocked()
        equal([two.is_waiting(), three.is_waiting()], [True, True])
        equal(one.flock(RELEASE), 0)
        equal(two.result(), 0)
        equal(three.is_waiting(), True)
        equal(two.flock(RELEASE), 0)
        equal(three.result(), 0)


def flock_of_a_killed_holder_goes_to_the_waiter(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.flock(EXCLUSIVE), 0)
        two.start("flock", LOCK_EX)
        two.wait_until_blocked()
        one.kill()
        equal(two.result(), 0)


def flock_of_a_killed_waiter_is_nobodys(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two, Locker(b) as three:
        equal(one.flock(EXCLUSIVE), 0)
        two.start("flock", LOCK_EX)
        two.wait_until_blocked()
        two.kill()
        equal(one.flock(RELEASE), 0)
        equal(three.flock(EXCLUSIVE), 0)


def fcntl_excludes_where_ranges_overlap(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.lockf(EXCLUSIVE, 0, 100), 0)
        equal(two.lockf(EXCLUSIVE, 100, 100), 0)
        equal(two.lockf(EXCLUSIVE, 99, 1), EAGAIN)
        equal(two.lockf(SHARED, 0, 1), EAGAIN)
        equal(one.lockf(EXCLUSIVE, 50, 100), EAGAIN)


def fcntl_ranges_are_split_and_joined(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.lockf(EXCLUSIVE, 0, 100), 0)
        equal(one.lockf(RELEASE, 40, 20), 0)
        equal(two.lockf(EXCLUSIVE, 40, 20), 0)
        for start in (0, 39, 60, 99):
            equal(two.lockf(EXCLUSIVE, start, 1), EAGAIN)
        equal(one.lockf(EXCLUSIVE, 100, 100), 0)
        equal(one.lockf(RELEASE, 60, 140), 0)
        equal(two.lockf(EXCLUSIVE, 60, 140), 0)
        equal(two.lockf(EXCLUSIVE, 39, 1), EAGAIN)


def fcntl_is_upgraded_and_downgraded_in_parts(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal([one.lockf(SHARED, 0, 100), two.lockf(SHARED, 50, 100)], [0, 0])
        equal(one.lockf(EXCLUSIVE, 40, 20), EAGAIN)
        equal(one.lockf(EXCLUSIVE, 0, 50), 0)
        equal(two.lockf(SHARED, 49, 1), EAGAIN)
        equal(one.lockf(SHARED, 20, 30), 0)
        equal(two.lockf(SHARED, 20, 30), 0)
        equal(two.lockf(SHARED, 19, 1), EAGAIN)


def fcntl_reaches_to_the_end_and_beyond(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.lockf(EXCLUSIVE, 1000, 0), 0)
        equal(two.lockf(EXCLUSIVE, 0, 1000), 0)
        equal(two.lockf(EXCLUSIVE, 1 << 40, 1), EAGAIN)


def fcntl_waiters_get_it_when_all_their_range_is_free(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(a) as two, Locker(b) as three:
        equal(one.lockf(EXCLUSIVE, 0, 10), 0)
        equal(two.lockf(EXCLUSIVE, 10, 10), 0)
        three.start("lockf", LOCK_EX, 20, 0)
        three.wait_until_blocked()
        equal(one.lockf(RELEASE, 0, 10), 0)
        three.wait_until_blocked()
        equal(three.is_waiting(), True)
        equal(two.lockf(RELEASE, 10, 10), 0)
        equal(three.result(), 0)


def fcntl_locks_of_a_killed_holder_go_to_the_waiter(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.lockf(EXCLUSIVE, 0, 10), 0)
        two.start("lockf", LOCK_EX, 1, 5)
        two.wait_until_blocked()
        one.kill()
        equal(two.result(), 0)


def fcntl_locks_go_when_any_descriptor_of_the_process_is_closed(a: Path, b: Path) -> None:
    with (a / "file").open("w") as stream, Locker(b) as other:
        fcntl.lockf(stream, EXCLUSIVE)
        equal(other.lockf(EXCLUSIVE, 0, 0), EAGAIN)
        (a / "file").open("rb").close()
        equal(other.lockf(EXCLUSIVE, 0, 0), 0)


def fcntl_tells_who_is_in_the_way(a: Path, b: Path) -> None:
    with Locker(a) as one, (b / "file").open("r+b") as stream:
        equal(one.lockf(EXCLUSIVE, 10, 20), 0)
        question = FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 100, 0)
        answer = FLOCK.unpack(fcntl.fcntl(stream, F_GETLK, question))
        equal(answer[:4], (fcntl.F_WRLCK, os.SEEK_SET, 10, 20))
        question = FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 30, 100, 0)
        answer = FLOCK.unpack(fcntl.fcntl(stream, F_GETLK, question))
        equal(answer[0], fcntl.F_UNLCK)


def locks_stay_when_the_file_loses_its_name(a: Path, b: Path) -> None:
    with Locker(a) as one, Locker(b) as two:
        equal(one.flock(EXCLUSIVE), 0)
        equal(two.flock(EXCLUSIVE), EAGAIN)
        (a / "file").unlink()
        equal(two.flock(EXCLUSIVE), EAGAIN)
        with Locker(a) as other_file:
            equal(other_file.flock(EXCLUSIVE), 0)


if __name__ == "__main__":
    run_case(globals())
