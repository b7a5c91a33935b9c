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


def test_an_export_comes_and_goes(exports: Exports, mount: Mount) -> None:
    new = Export("new", mount)
    exports.add(new)
    assert exports.get(b"new") is new
    assert "new" in exports
    assert [export.name for export in exports] == ["", "scratch", "new"]
    exports.remove(new)
    assert "new" not in exports
    with raises_errno(errno.ENOENT):
        exports.get(b"new")


def test_a_name_is_one_exports(exports: Exports, mount: Mount) -> None:
    with raises_errno(errno.EEXIST):
        exports.add(Export("scratch", mount))
    assert len(list(exports)) == 2


def test_by_default_an_export_is_for_all_and_for_everything(mount: Mount) -> None:
    export = Export("x", mount)
    assert (export.readonly, export.allow, export.squash) == (False, (), "none")
    assert (export.anonuid, export.anongid, export.permissions) == (65534, 65534, "auto")
    assert export.clients == set()
