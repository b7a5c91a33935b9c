"""access: which mode bits a change of data or owner takes away."""

import pytest

from tmpfs_core.access import (
    ROOT,
    Cred,
    mode_after_write,
    without_foreign_sgid,
    without_privilege_bits,
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0o644, 0o644),
        (0o4755, 0o0755),
        (0o2755, 0o0755),
        (0o6755, 0o0755),
        (0o2745, 0o2745),  # no group execution: not a privilege but mandatory locking's mark
        (0o6745, 0o2745),
        (0o1777, 0o1777),
        (0o107755, 0o101755),
    ],
)
def test_privilege_bits_go_and_all_others_stay(before: int, after: int) -> None:
    assert without_privilege_bits(before, 0, Cred(1000)) == after
    assert mode_after_write(before, 0, Cred(1000)) == after


def test_root_writes_without_losing_the_privilege_bits() -> None:
    assert mode_after_write(0o106755, 0, ROOT) == 0o106755


def test_root_is_user_0_whatever_object_says_so() -> None:
    assert Cred(0) == ROOT
    assert mode_after_write(0o106755, 0, Cred(0)) == 0o106755


@pytest.mark.parametrize(
    ("cred", "after"),
    [
        (Cred(1000, gid=5, checked=True), 0o2644),
        (Cred(1000, gid=6, groups=frozenset({5}), checked=True), 0o2644),
        (Cred(0, checked=True), 0o2644),
        (Cred(1000, gid=6, checked=True), 0o0644),
        (Cred(1000, gid=6), 0o2644),  # his groups are known to the client's kernel only
    ],
)
def test_who_is_checked_keeps_set_group_id_only_in_the_group(cred: Cred, after: int) -> None:
    assert without_privilege_bits(0o6644, 5, cred) == after
    assert without_foreign_sgid(0o2644, 5, cred) == after
