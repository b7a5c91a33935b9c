"""acl: what is an ACL, whom it allows what, and what it becomes; Linux' own word: tests/kernel."""

import errno
import struct

import pytest

from tmpfs_core import acl
from tmpfs_core.access import Cred

from .support import refused

NOBODY = 0xFFFFFFFF
ME = Cred(1001, gid=2001, groups=frozenset({2002}), checked=True)


def value_of(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


MINIMAL = value_of((1, 6, NOBODY), (4, 4, NOBODY), (32, 1, NOBODY))
NAMED = value_of(
    *((1, 7, NOBODY), (2, 6, 1001), (4, 1, NOBODY), (8, 2, 2002), (16, 5, NOBODY), (32, 7, NOBODY))
)


def test_the_entries_are_tag_permissions_and_id() -> None:
    assert acl.parse(MINIMAL) == [(1, 6, NOBODY), (4, 4, NOBODY), (32, 1, NOBODY)]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        value_of(),
        NAMED[:-1],
        value_of((1, 6, NOBODY), (32, 1, NOBODY)),
        value_of((1, 6, NOBODY), (2, 6, 1001), (4, 4, NOBODY), (32, 1, NOBODY)),
        value_of((4, 4, NOBODY), (1, 6, NOBODY), (32, 1, NOBODY)),
        value_of((1, 8, NOBODY), (4, 4, NOBODY), (32, 1, NOBODY)),
        value_of((1, 6, NOBODY), (4, 4, NOBODY), (0xD800, 1, NOBODY)),
        value_of((1, 6, NOBODY), (2, 6, NOBODY), (4, 4, 0), (16, 7, NOBODY), (32, 1, NOBODY)),
    ],
)
def test_what_is_no_acl_is_refused(value: bytes) -> None:
    with refused(errno.EINVAL):
        acl.parse(value)


def test_another_version_is_not_supported() -> None:
    with refused(errno.EOPNOTSUPP):
        acl.parse(b"\1" + MINIMAL[1:])


@pytest.mark.parametrize(
    ("cred", "gid", "allowed"),
    [
        (ME, 1, {4}),  # his own entry, masked
        (Cred(1, gid=2002), 1, set()),  # the named group's, masked
        (Cred(1, gid=2001), 2001, {1}),  # the owning group's
        (Cred(1, gid=1, groups=frozenset({2001, 2002})), 2001, {1}),  # any group that gives it
        (Cred(1, gid=1), 2001, {1, 2, 3, 4, 5, 6, 7}),  # others, whom no mask concerns
    ],
)
def test_the_first_entry_that_fits_decides(cred: Cred, gid: int, allowed: set[int]) -> None:
    assert {wanted for wanted in range(1, 8) if acl.allows(NAMED, cred, gid, wanted)} == allowed


def test_the_mode_shows_the_mask_or_the_group() -> None:
    assert acl.mode_of(MINIMAL) == (0o641, True)
    assert acl.mode_of(NAMED) == (0o757, False)


def test_chmod_changes_the_mask_or_the_group() -> None:
    assert acl.mode_of(acl.with_mode(MINIMAL, 0o107123)) == (0o123, True)
    changed = acl.with_mode(NAMED, 0o124)
    assert acl.parse(changed) == [
        *((1, 1, NOBODY), (2, 6, 1001), (4, 1, NOBODY)),
        *((8, 2, 2002), (16, 2, NOBODY), (32, 4, NOBODY)),
    ]


def test_a_new_file_gets_what_both_its_mode_and_the_default_allow() -> None:
    assert acl.inherited(MINIMAL, 0o102777) == (0o102641, None)
    mode, value = acl.inherited(NAMED, 0o100640)
    assert mode == 0o100640
    assert value == acl.with_mode(NAMED, 0o640)
