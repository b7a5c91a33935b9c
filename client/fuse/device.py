"""Device: /dev/fuse, through which the kernel asks.

Rules of this file:

* What can be answered at once is answered at once; whatever has to wait becomes a task, or is
  answered by who has returned None.
* What is written stays in the buffer in which it came, until that is recycled.
* The end of a mount is an error of the device, which uvloop tells nobody of; an epoll(7) for that
  alone makes it something to read.
* Who asks and is interrupted has his task cancelled only if the file system allows it.
"""

import asyncio
import errno
import os
import select
import socket
import struct
import subprocess
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from io import FileIO
from typing import Any

from . import protocol
from .protocol import Request

#: Bytes of one write, at most.
IO_MAX = 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")
#: Requests that the kernel makes of its own accord (read-ahead, ...) at a time.
BACKGROUND = 64
#: Buffers that are kept.
SPARE = 16
#: Looks for another request before the loop is asked to; to sleep and be woken up takes longer.
LOOKS = 20
#: Looks after which it is somebody else's turn.
TURN = 100
#: Writes of up to so many bytes are copied out of the buffer.
SMALL = 1 << 16

#: What is asked for of what the kernel has.
FLAGS = (
    protocol.ASYNC_READ
    | protocol.POSIX_LOCKS
    | protocol.ATOMIC_O_TRUNC
    | protocol.BIG_WRITES
    | protocol.DONT_MASK
    | protocol.FLOCK_LOCKS
    | protocol.AUTO_INVAL_DATA
    | protocol.DO_READDIRPLUS
    | protocol.ASYNC_DIO
    | protocol.PARALLEL_DIROPS
    | protocol.MAX_PAGES
    | protocol.CACHE_SYMLINKS
    | protocol.HANDLE_KILLPRIV_V2
)

#: An answer, or its parts.
Answer = list[bytes | bytearray | memoryview] | bytes


def mount(directory: str, options: Iterable[str]) -> int:
    """Have fusermount3 mount it: the descriptor of the device.

    Raises:
        OSError: it refuses; says what it says.
    """
    ours, its = socket.socketpair()
    with ours, its:
        command = ["fusermount3", "-o", ",".join(options), "--", directory]
        done = subprocess.run(  # noqa: S603 fusermount3 checks what it is told
            command,
            env={**os.environ, "_FUSE_COMMFD": str(its.fileno())},
            pass_fds=[its.fileno()],
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode:
            raise OSError(done.stderr.strip().removeprefix("fusermount3: ") or "it is refused")
        _, found, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_blocking(found[0], False)
    return found[0]


def unmount(directory: str) -> None:
    """End a mount, when nobody uses it any more."""
    command = ["fusermount3", "-u", "-q", "-z", "--", directory]
    subprocess.run(command, check=False)  # noqa: S603


class Device:
    """Serves one mount.

    Args:
        descriptor: of the device; it is closed at the end.
        io_max: bytes that a request may write, or read.
        operations: whose methods answer, by name; each takes a :class:`.Request`, and the fields
            and names of what is asked; it returns an :data:`Answer`, a coroutine of one, or None:
            none, or later.  Its ``may_be_interrupted(unique)`` says whether to cancel that.
    """

    def __init__(self, descriptor: int, io_max: int, operations: Any) -> None:
        self._descriptor = descriptor
        self._requests = FileIO(descriptor, closefd=False)
        self._pages = max(min(io_max, IO_MAX) // PAGE, 1)
        self._operations = operations
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._buffer = bytearray(self._pages * PAGE + protocol.HEAD_MAX)
        self._spare: list[bytearray] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._methods = {
            opcode: (getattr(operations, layout.method), layout)
            for opcode, layout in protocol.REQUESTS.items()
            if hasattr(operations, layout.method)
        }

    async def serve(self) -> None:
        """Answer until it is unmounted."""
        errors = select.epoll()
        errors.register(self._descriptor, 0)
        self._loop.add_reader(errors.fileno(), self.end)
        self._loop.add_reader(self._descriptor, self._readable)
        try:
            await self._ended
        finally:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_reader(errors.fileno())
            errors.close()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            os.close(self._descriptor)
            self._descriptor = -1  # who still has an answer has nobody to give it to

    def end(self) -> None:
        """Have :meth:`serve` return."""
        if not self._ended.done():
            self._ended.set_result(None)

    def invalidate(self, inode: int) -> None:
        """Have the kernel forget what it knows of a file; waits for pages that are being read."""
        body = protocol.INVAL_INODE.pack(inode, 0, 0)
        head = protocol.OUT.pack(protocol.OUT.size + len(body), protocol.NOTIFY_INVAL_INODE, 0)
        with suppress(FileNotFoundError):  # it knows none
            os.writev(self._descriptor, [head, body])

    def recycle(self, data: memoryview) -> None:
        """What was written is not needed any more."""
        whole = data.obj
        data.release()
        if isinstance(whole, bytearray) and len(self._spare) < SPARE:
            self._spare.append(whole)

    def _readable(self) -> None:
        """Requests are here; who is answered at once often makes the next a moment later."""
        looks = 1
        try:
            for _ in range(TURN):
                size = self._requests.readinto(self._buffer)
                if size is not None:
                    looks = LOOKS if self._take(size) else 0
                else:
                    looks -= 1
                if not looks:
                    return
        except OSError as error:
            if error.errno != errno.ENOENT:  # it was not interrupted before it was taken
                self.end()

    def _take(self, size: int) -> bool:
        """Take a request; whether it is answered already."""
        buffer = self._buffer
        _, opcode, unique, inode, uid, gid, pid = protocol.IN.unpack_from(buffer)
        request = Request(unique, inode, uid, gid, pid)
        if opcode == protocol.INIT:
            self._agree(request)
            return False
        if opcode == protocol.INTERRUPT:
            self._interrupted(struct.unpack_from("=Q", buffer, protocol.IN.size)[0])
            return False
        known = self._methods.get(opcode)
        if known is None:
            self.refuse(request, errno.ENOSYS)
            return True
        method, (_, fields, names, has_data) = known
        at = protocol.IN.size
        arguments = fields.unpack_from(buffer, at)
        at += fields.size
        while names:
            names -= 1
            end = buffer.index(0, at)
            arguments += (bytes(buffer[at:end]),)
            at = end + 1
        if has_data:
            arguments += (self._data(at, size),)
        try:
            answer = method(request, *arguments)
        except OSError as error:
            self.refuse(request, number_of(error))
            return True
        except Exception:
            self.refuse(request, errno.EIO)
            raise
        if isinstance(answer, (bytes, list)):
            self.answer(request, answer)
            return True
        if answer is not None:
            self.finish(request, answer)
        return False

    def _data(self, start: int, stop: int) -> memoryview:
        """What the buffer has there; if that is much, there is another buffer then."""
        if stop - start <= SMALL:
            return memoryview(bytes(memoryview(self._buffer)[start:stop]))
        data = memoryview(self._buffer)[start:stop]
        self._buffer = self._spare.pop() if self._spare else bytearray(len(self._buffer))
        return data

    def finish(self, request: Request, work: Coroutine[Any, Any, Answer]) -> None:
        """Answer with what becomes of this."""
        self._tasks[request.unique] = self._loop.create_task(self._answer_later(request, work))

    async def _answer_later(self, request: Request, work: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await work
        except OSError as error:
            self.refuse(request, number_of(error))
        except asyncio.CancelledError:
            self.refuse(request, errno.EINTR)
        except BaseException:
            self.refuse(request, errno.EIO)
            raise
        else:
            self.answer(request, answer)
        finally:
            del self._tasks[request.unique]

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer a request for which ``operations`` returned None."""
        size = protocol.OUT.size
        try:
            if isinstance(answer, bytes):
                head = protocol.OUT.pack(size + len(answer), 0, request.unique)
                os.write(self._descriptor, head + answer)
                return
            for part in answer:
                size += len(part)
            head = protocol.OUT.pack(size, 0, request.unique)
            os.writev(self._descriptor, [head, *answer])
        except OSError:
            return  # whoever has asked is gone, or the mount

    def refuse(self, request: Request, number: int) -> None:
        """Refuse one, with an errno."""
        try:
            head = protocol.OUT.pack(protocol.OUT.size, -number, request.unique)
            os.write(self._descriptor, head)
        except OSError:
            return

    def _agree(self, request: Request) -> None:
        """The first request: what both can do."""
        major, _, ahead, flags = protocol.INIT_IN.unpack_from(self._buffer, protocol.IN.size)
        if major != protocol.MAJOR:
            self.refuse(request, errno.EPROTO)
            return
        words = protocol.MAJOR, protocol.MINOR, ahead, flags & FLAGS
        limits = BACKGROUND, BACKGROUND * 3 // 4, self._pages * PAGE, 1, self._pages
        self.answer(request, protocol.INIT_OUT.pack(*words, *limits))

    def _interrupted(self, unique: int) -> None:
        task = self._tasks.get(unique)
        if task is not None and self._operations.may_be_interrupted(unique):
            task.cancel()


def number_of(error: OSError) -> int:
    """The errno that the kernel is told."""
    return errno.EIO if isinstance(error, ConnectionError) else error.errno or errno.EIO
