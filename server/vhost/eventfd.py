"""Eventfd: how a VMM and a device tell each other that there is something (eventfd(2)).

Rules of this file:

* It is shared with the VMM: nothing here may wait for it, whatever it holds.  That it does not
  block, though, is shared as well: the VMM is trusted to leave it so.
* What is no eventfd is not taken: a read or write of anything else could wait, or do harm.
"""

import os
from contextlib import suppress

from .memory import VhostError

_ONE = (1).to_bytes(8, "little")


class Eventfd:
    """Takes over a descriptor that came from a VMM.

    Raises:
        VhostError: it is of no eventfd; then it is closed.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        if os.readlink(f"/proc/self/fd/{fd}") != "anon_inode:[eventfd]":
            os.close(fd)
            raise VhostError("a descriptor that is not an eventfd")
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        return self._fd

    def signal(self) -> None:
        """Tell that there is something."""
        with suppress(BlockingIOError):  # it was told so often that nobody can have looked
            os.write(self._fd, _ONE)

    def clear(self) -> None:
        """Hear what was told."""
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        os.close(self._fd)
