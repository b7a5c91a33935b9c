"""The names of exports."""

import errno

import pytest

from server.exports import Export, Exports
from tmpfs_core.mount import Mount

from .peer import raises_errno


@pytest.fixture
def exports(mount: Mount) -> Exports:
    return Exports([Export("", mount), Export("scratch", mount)])


@pytest.mark.parametrize(
    ("aname", "name"), [(b"", ""), (b"/", ""), (b"scratch", "scratch"), (b"/scratch", "scratch")]
)
def test_an_export_is_found_with_and_without_a_slash(
    exports: Exports, aname: bytes, name: str
) -> None:
    assert exports.get(aname).name == name


@pytest.mark.parametrize("aname", [b"other", b"//", b"/scratch/", b"\xff"])
def test_no_other_export_is_found(exports: Exports, aname: bytes) -> None:
    with raises_errno(errno.ENOENT):
        exports.get(aname)
