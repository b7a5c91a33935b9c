"""UnixSocket: a unix socket to listen on.

Rules of this file:

* A socket on which nobody listens any more is replaced; nothing else at its path is.
* It goes from its path when it is closed, unless another server has come to have that, or the
  server has become a user who may not do that: then whoever is next replaces it.
"""

import errno
import os
import socket
import stat
from contextlib import suppress

BACKLOG = 1024


class UnixSocket:
    """Listens at ``path``.

    Args:
        mode: the permissions of the socket, whatever the umask is.
        owner: the user to whom it belongs, whoever the server becomes; None: that is the server's.

    Raises:
        OSError: EADDRINUSE, somebody listens there, or it is no socket; else as bind(2).
        ValueError: a path with a NUL.
    """

    def __init__(self, path: str, mode: int, owner: int | None = None) -> None:
        _remove_stale(path)
        self._path = path
        self._owner = owner
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(
                self.sock.fileno(), mode
            )  # so that it is for nobody else from the first moment
            self.sock.bind(path)
            os.chmod(path, mode)  # what the umask has taken from it
            if owner is not None:
                os.chown(path, owner, -1, follow_symlinks=False)
            self._identity = _identity(path)
            self.sock.listen(BACKLOG)
            self.sock.setblocking(False)
        except OSError:
            self.sock.close()
            raise

    def give(self, uid: int, gid: int) -> None:
        """Have it belong to this user and group, unless it has an owner.

        Raises:
            OSError: as chown(2).
        """
        if self._owner is None:
            os.chown(self._path, uid, gid, follow_symlinks=False)

    def close(self) -> None:
        self.sock.close()
        with suppress(FileNotFoundError, PermissionError):
            if _identity(self._path) == self._identity:
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove a socket on which nobody listens any more.

    Raises:
        OSError: EADDRINUSE, somebody does, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # its queue may be full
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
        raise OSError(errno.EADDRINUSE, "another server listens there")
