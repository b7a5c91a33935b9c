"""On whose behalf a client acts."""

import os
import pwd

import pytest

from server.exports import Export
from server.identity import NOBODY, Peer, cred_of
from server.wire.constants import NONUNAME
from tmpfs_core.mount import Mount


@pytest.mark.parametrize(
    ("uname", "n_uname", "uid"),
    [
        (b"", 1000, 1000),
        (b"daemon", 0, 0),
        (pwd.getpwuid(os.getuid()).pw_name.encode(), NONUNAME, os.getuid()),
        (b"no such user", NONUNAME, NOBODY),
        (b"", NONUNAME, NOBODY),
        (b"\xff\0", NONUNAME, NOBODY),
    ],
)
def test_the_number_counts_and_then_the_name(
    mount: Mount, uname: bytes, n_uname: int, uid: int
) -> None:
    assert cred_of(Peer("peer"), Export("", mount), uname, n_uname).uid == uid
