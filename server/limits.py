"""Limits: what clients may make this server hold, and for how long.

Rules of this file:

* A limit is of one connection unless it says otherwise.  What one connection may hold is too much
  if all of them do, so ``client_memory`` is the limit of all together: half of it for what they
  keep (fids, locks, attributes), a quarter for requests that are on their way or wait, and a
  quarter for replies that nobody takes.
* What is counted is what it takes in this process, rounded up.
"""

from dataclasses import dataclass
from typing import Final

#: Bytes that a fid takes, its place in the table and a name that was unlinked included.
FID_BYTES: Final = 640
#: Bytes that a lock takes, the longest name of a client included.
LOCK_BYTES: Final = 640
#: Bytes that a request takes which waits, beside its data.
WAITING_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of a server; their defaults.

    Attributes:
        max_connections: of all clients.
        max_connections_per_peer: of one address, or of one user on this machine.
        max_fids: one more is refused with EMFILE, or ENFILE where ``client_memory`` is used up.
        max_locks: byte ranges held; one more is refused with ENOLCK.
        max_xattr_bytes: bytes of attributes being read and written; more is refused with ENOSPC.
        max_requests: that wait (for a lock, or a page); one more is refused with EAGAIN.
        max_request_bytes: bytes that requests hold which wait; then no more are received.
        max_depth: directories above one another; a deeper one is refused with ENAMETOOLONG.
        client_memory: bytes, of all clients, see above.
        frame_timeout: seconds from the first byte of a request to its last.
        version_timeout: seconds until a client has sent a Tversion that is understood.
        idle_timeout: seconds without a request; 0: no limit.
    """

    max_connections: int = 4096
    max_connections_per_peer: int = 1024
    max_fids: int = 1 << 19
    max_locks: int = 4096
    max_xattr_bytes: int = 4 << 20
    max_requests: int = 1024
    max_request_bytes: int = 8 << 20
    max_depth: int = 2048
    client_memory: int = 1 << 30
    frame_timeout: int = 60
    version_timeout: int = 30
    idle_timeout: int = 0

    @property
    def state_bytes(self) -> int:
        return self.client_memory // 2

    @property
    def request_bytes(self) -> int:
        return self.client_memory // 4

    @property
    def reply_bytes(self) -> int:
        return self.client_memory // 4
