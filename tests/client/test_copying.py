"""copying: what ``tmpfs9p cp`` copies, and how."""

import os
import stat
from pathlib import Path

import pytest

from client.sync import SyncFileSystem
from tests.tmpfs_core.paging import pattern

from .running import Tool

BIG = pattern(5, 9_000_001)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands are run in."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def tree(root: Path) -> dict[str, bytes | str | None]:
    """What is in a directory of this machine."""
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def plant(root: Path) -> None:
    """Something to copy."""
    (root / "d/empty").mkdir(parents=True)
    (root / "d/big").write_bytes(BIG)
    (root / "d/link").symlink_to("../none")
    for number in range(40):
        (root / f"d/{number}").write_text(f"{number}")


def test_trees_go_there_and_back_and_from_there_to_there(
    tool: Tool, here: Path, there: SyncFileSystem
) -> None:
    plant(here)
    assert tool("cp", "-r", "d", ":/") == (0, "", "")
    assert tool("cp", "-r", ":/d", ":/e") == (0, "", "")
    assert tool("cp", "-r", ":/e", ".") == (0, "", "")
    assert tree(here / "e") == tree(here / "d")
    there.rmtree("/d")
    there.rmtree("/e")


def test_into_a_directory_or_in_place_of_a_file(
    tool: Tool, here: Path, there: SyncFileSystem
) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    there.mkdir("/d")
    assert tool("cp", "a", "b", ":/d").status == 0
    assert tool("cp", "b", ":/d/a").status == 0
    assert (there.read_bytes("/d/a"), there.read_bytes("/d/b")) == (b"b", b"b")
    assert tool("cp", ":/d/?", ".").status == 0
    assert (here / "a").read_text() == "b"


@pytest.mark.parametrize("target", [":/none", ":/none/"])
def test_several_files_go_into_a_directory_only(tool: Tool, here: Path, target: str) -> None:
    (here / "a").write_text("a")
    sources = ["a"] if target.endswith("/") else ["a", "a"]
    assert tool("cp", *sources, target) == (1, "", f"tmpfs9p cp: {target}: Not a directory\n")


def test_a_directory_is_not_copied_unless_that_is_meant(tool: Tool, here: Path) -> None:
    plant(here)
    assert tool("cp", "d", ":/") == (1, "", "tmpfs9p cp: d: a directory, and not -r\n")


def test_modes_are_kept_less_the_umask(tool: Tool, here: Path, there: SyncFileSystem) -> None:
    (here / "a").write_text("a")
    (here / "a").chmod(0o777)
    before = os.umask(0o027)
    try:
        assert tool("cp", "a", ":/a").status == 0
        assert stat.S_IMODE(there.stat("/a").st_mode) == 0o750
        there.chmod("/a", 0o777)
        assert tool("cp", ":/a", "b").status == 0
        assert stat.S_IMODE((here / "b").stat().st_mode) == 0o750
        assert tool("cp", "a", ":/a").status == 0
        assert stat.S_IMODE(there.stat("/a").st_mode) == 0o777
    finally:
        os.umask(before)


def test_attributes_are_preserved_if_that_is_asked_for(
    tool: Tool, here: Path, there: SyncFileSystem
) -> None:
    (here / "d").mkdir()
    (here / "d/f").write_text("a")
    (here / "d").chmod(0o1770)
    os.utime(here / "d/f", ns=(123_456_789_012, 5))
    os.utime(here / "d", ns=(1, 2))
    assert tool("cp", "-rp", "d", ":/e").status == 0
    assert tool("cp", "-rp", ":/e", "e").status == 0
    for one, other in (("d", "e"), ("d/f", "e/f")):
        for found in (there.stat("/" + other), (here / other).stat()):
            expected = (here / one).stat()
            assert found.st_mode == expected.st_mode
            assert found.st_mtime_ns == expected.st_mtime_ns
            assert (found.st_uid, found.st_gid) == (expected.st_uid, expected.st_gid)


def test_what_can_not_be_copied_is_told_of_and_the_rest_is_copied(
    tool: Tool, here: Path, there: SyncFileSystem
) -> None:
    (here / "d").mkdir()
    os.mkfifo(here / "d/fifo")
    (here / "d/f").write_text("f")
    done = tool("cp", "-r", "none", "d", ":/")
    assert done.status == 1
    assert done.err.splitlines() == [
        "tmpfs9p cp: none: No such file or directory",
        "tmpfs9p cp: d/fifo: special files are not copied",
    ]
    assert there.listdir("/d") == ["f"]


def test_nothing_is_copied_onto_or_into_itself(tool: Tool, there: SyncFileSystem) -> None:
    there.makedirs("/d/e")
    there.write_bytes("/f", b"kept")
    there.symlink("f", "/l")
    same = ":/f: is the same file"
    assert tool("cp", ":/f", ":/f").err == f"tmpfs9p cp: {same}\n"
    assert tool("cp", ":/f", ":/l").err == f"tmpfs9p cp: {same}\n"
    assert tool("cp", ":/f", ":/").err == f"tmpfs9p cp: {same}\n"
    into = "tmpfs9p cp: :/d: can not be copied into itself\n"
    assert tool("cp", "-r", ":/d", ":/d") == (1, "", into)
    assert tool("cp", "-r", ":/d", ":/d/e/new") == (1, "", into)
    assert there.read_bytes("/f") == b"kept"
    assert there.listdir("/d/e") == []


def test_links_are_followed_when_they_are_named(
    tool: Tool, here: Path, there: SyncFileSystem
) -> None:
    (here / "f").write_text("f")
    (here / "l").symlink_to("f")
    assert tool("cp", "l", ":/f").status == 0
    assert tool("cp", "-r", "l", ":/l").status == 0
    assert there.stat("/f", follow=False).is_file
    assert there.readlink("/l") == "f"


def test_one_of_both_is_on_the_server(tool: Tool) -> None:
    done = tool("cp", "a", "b")
    assert (done.status, done.out) == (2, "")
    assert "a colon marks what is on the server" in done.err
