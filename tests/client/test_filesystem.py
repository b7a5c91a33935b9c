"""filesystem: what programs do with files, by path."""

import asyncio
import os
import stat
import time

import pytest

from client import filesystem
from client.filesystem import FileSystem
from client.session import LINKS_MAX, ROOT
from server.address import Unix
from server.wire.messages import Tflush, Tread, Tstatfs
from tests.server.peer import raises_errno
from tests.tmpfs_core.paging import pattern

from .cable import Cable

BIG = pattern(3, 10_000_001)


async def test_what_was_written_is_read(fs: FileSystem) -> None:
    await fs.write_bytes("/a", b"hello")
    assert await fs.read_bytes("/a") == b"hello"
    await fs.write_bytes(b"a", b"new")
    assert await fs.read_bytes("a") == b"new"


async def test_large_files_go_in_several_requests_at_a_time(fs: FileSystem) -> None:
    await fs.write_bytes("/big", BIG)
    assert await fs.read_bytes("/big") == BIG


async def test_a_read_past_the_end_is_short(fs: FileSystem) -> None:
    await fs.write_bytes("/big", BIG)
    async with await fs.open("/big") as file:
        assert await file.pread(5 << 20, len(BIG) - 7) == BIG[-7:]
        assert await file.pread(5 << 20, len(BIG)) == b""
        assert await file.pread(0, 0) == b""


async def test_what_is_appended_goes_to_the_end(fs: FileSystem) -> None:
    await fs.write_bytes("/log", b"one")
    async with await fs.open("/log", os.O_WRONLY | os.O_APPEND) as file:
        assert await file.pwrite(BIG, 0) == len(BIG)
    assert await fs.read_bytes("/log") == b"one" + BIG


async def test_a_file_that_must_be_new_is_not_made_twice(fs: FileSystem) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    async with await fs.open("/new", flags, 0o600) as file:
        await file.pwrite(b"abc", 0)
        assert await file.pread(9, 0) == b"abc"
        await file.truncate(1)
        assert (await file.stat()).st_size == 1
        await file.sync()
    assert stat.S_IMODE((await fs.stat("/new")).st_mode) == 0o600
    with pytest.raises(FileExistsError) as caught:
        await fs.open("/new", flags)
    assert caught.value.filename == "/new"


async def test_a_closed_file_can_not_be_used(fs: FileSystem) -> None:
    file = await fs.open("/f", os.O_RDWR | os.O_CREAT)
    await file.close()
    await file.close()
    with pytest.raises(ValueError, match="closed"):
        await file.pread(1, 0)


async def test_an_error_names_the_path(fs: FileSystem) -> None:
    with pytest.raises(FileNotFoundError, match="'/no/such'"):
        await fs.stat("/no/such")
    assert not await fs.exists("/no/such")
    await fs.write_bytes("/f", b"")
    assert not await fs.exists("/f/below")
    assert await fs.exists("/f")


async def test_directories_are_made_listed_and_removed(fs: FileSystem) -> None:
    await fs.makedirs("/d/e/f")
    await fs.makedirs("/d/e/f", exist_ok=True)
    await fs.makedirs("/", exist_ok=True)
    with pytest.raises(FileExistsError):
        await fs.makedirs("/d/e/f")
    await fs.mkdir("/d/g", 0o700)
    await fs.write_bytes("/d/x", b"12345")
    await fs.symlink("x", "/d/l")
    kinds = {entry.name: entry.kind for entry in await fs.scandir("/d")}
    assert kinds == {"e": stat.S_IFDIR, "g": stat.S_IFDIR, "x": stat.S_IFREG, "l": stat.S_IFLNK}
    with raises_errno(39):
        await fs.rmdir("/d")
    await fs.rmtree("/d")
    assert await fs.listdir() == []


async def test_a_file_is_no_directory_to_make(fs: FileSystem) -> None:
    await fs.write_bytes("/f", b"")
    with pytest.raises(FileExistsError):
        await fs.makedirs("/f", exist_ok=True)


async def test_names_that_are_no_utf8_are_kept(fs: FileSystem) -> None:
    await fs.write_bytes(b"/\xff\xfe", b"odd")
    (name,) = await fs.listdir("/")
    assert os.fsencode(name) == b"\xff\xfe"
    assert await fs.read_bytes("/" + name) == b"odd"


async def test_names_are_changed_added_and_removed(fs: FileSystem) -> None:
    await fs.mkdir("/d")
    await fs.write_bytes("/a", b"1")
    await fs.link("/a", "/d/b")
    assert (await fs.stat("/a")).st_nlink == 2
    await fs.rename("/a", "/d/c")
    await fs.unlink("/d/b")
    assert await fs.listdir("/d") == ["c"]
    for name in ("/", "/d/..", ""):
        with raises_errno(22):
            await fs.unlink(name)
        with raises_errno(22):
            await fs.rmtree(name)
    await fs.rmtree("//d/.")
    assert await fs.listdir() == []


async def test_symbolic_links_are_followed_where_the_system_would(fs: FileSystem) -> None:
    await fs.makedirs("/d/e")
    await fs.write_bytes("/d/e/f", b"here")
    await fs.symlink("/d/e", "/abs")
    await fs.symlink("../d/e", "/d/rel")
    await fs.symlink("rel/f", "/d/last")
    await fs.symlink("../../../d", "/d/up")
    assert await fs.read_bytes("/abs/f") == b"here"
    assert await fs.read_bytes("/d/rel/f") == b"here"
    assert await fs.read_bytes("/d/last") == b"here"
    assert await fs.read_bytes("/d/up/rel/../e/f") == b"here"
    assert await fs.readlink("/d/last") == "rel/f"
    assert (await fs.stat("/d/last", follow=False)).is_symlink
    assert (await fs.stat("/d/last")).is_file
    await fs.write_bytes("/d/last", b"there")  # through the link
    assert await fs.read_bytes("/d/e/f") == b"there"
    await fs.link("/d/last", "/hard")
    assert (await fs.stat("/hard", follow=False)).is_symlink


async def test_links_that_lead_in_a_circle_are_given_up(fs: FileSystem) -> None:
    await fs.symlink("b", "/a")
    await fs.symlink("a", "/b")
    with raises_errno(40):
        await fs.stat("/a")
    await fs.write_bytes("/0", b"found")
    for number in range(LINKS_MAX):
        await fs.symlink(str(number), f"/{number + 1}")
    assert await fs.read_bytes(f"/{LINKS_MAX}") == b"found"


async def test_paths_may_be_longer_than_one_walk(fs: FileSystem) -> None:
    path = "".join(f"/{n}" for n in range(40))
    await fs.makedirs(path)
    await fs.write_bytes(path + "/f", b"deep")
    assert await fs.read_bytes(path + "/f") == b"deep"
    with pytest.raises(FileNotFoundError):
        await fs.stat(path + "/g")


async def test_attributes_are_set(fs: FileSystem) -> None:
    before = time.time_ns()
    await fs.write_bytes("/f", b"12345")
    await fs.chmod("/f", 0o640)
    await fs.chown("/f", 12, -1)
    await fs.chown("/f", -1, 34)
    await fs.truncate("/f", 3)
    await fs.utime("/f", (1_500_000_000, -500_000_000))
    found = await fs.stat("/f")
    assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o640, 12, 34)
    assert (found.st_size, found.st_atime_ns, found.st_mtime_ns) == (3, 1_500_000_000, -500_000_000)
    await fs.utime("/f")
    assert before <= (await fs.stat("/f")).st_mtime_ns <= time.time_ns()


async def test_links_have_attributes_of_their_own(fs: FileSystem) -> None:
    await fs.write_bytes("/f", b"")
    await fs.symlink("f", "/l")
    await fs.chown("/l", 7, 7, follow=False)
    await fs.utime("/l", (1, 2), follow=False)
    own = await fs.stat("/l", follow=False)
    assert (own.st_uid, own.st_mtime_ns) == (7, 2)
    assert (await fs.stat("/l")).st_uid != 7


async def test_special_files_are_made(fs: FileSystem) -> None:
    await fs.mknod("/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    found = await fs.stat("/null")
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == os.makedev(1, 3)


async def test_extended_attributes_are_set_read_listed_and_removed(fs: FileSystem) -> None:
    await fs.write_bytes("/f", b"")
    large = pattern(1, 60_000)
    await fs.setxattr("/f", "user.large", large)
    await fs.setxattr("/f", "user.empty", b"")
    assert await fs.getxattr("/f", "user.large") == large
    assert await fs.getxattr("/f", "user.empty") == b""
    assert sorted(await fs.listxattr("/f")) == ["user.empty", "user.large"]
    with pytest.raises(FileExistsError):
        await fs.setxattr("/f", "user.large", b"x", os.XATTR_CREATE)
    await fs.removexattr("/f", "user.large")
    assert await fs.listxattr("/f") == ["user.empty"]
    with raises_errno(61):
        await fs.getxattr("/f", "user.large")


async def test_room_is_told(fs: FileSystem) -> None:
    room = await fs.statvfs()
    assert room.f_bsize * room.f_blocks == 64 << 20
    assert room.f_bfree == room.f_blocks


async def test_a_full_file_system_is_told_of(fs: FileSystem) -> None:
    with raises_errno(28):
        await fs.write_bytes("/f", bytes(65 << 20))
    await fs.unlink("/f")


async def test_locks_exclude_other_files_until_they_are_given_up(fs: FileSystem) -> None:
    flags = os.O_RDWR | os.O_CREAT
    async with await fs.open("/f", flags) as one, await fs.open("/f", flags) as other:
        assert await one.lock()
        assert not await other.lock(10, 5, wait=False)
        waiting = asyncio.create_task(other.lock(10, 5))
        await asyncio.sleep(0)
        await one.unlock()
        assert await waiting
        assert not await one.lock(exclusive=False, wait=False)
        await other.unlock(10, 5)
        assert await one.lock(exclusive=False, wait=False)
        assert await other.lock(exclusive=False, wait=False)


async def test_who_waits_for_a_lock_can_be_cancelled(fs: FileSystem, cable: Cable) -> None:
    flags = os.O_RDWR | os.O_CREAT
    async with await fs.open("/f", flags) as one, await fs.open("/f", flags) as other:
        await one.lock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await other.lock()
        await one.unlock()
        assert await one.lock(wait=False)  # the other did not get it meanwhile
    assert cable.requests[Tflush.TYPE] == 1


async def test_a_read_that_is_cancelled_leaves_nothing_behind(fs: FileSystem, cable: Cable) -> None:
    await fs.write_bytes("/big", BIG)
    async with await fs.open("/big") as file:
        for _ in range(20):
            task = asyncio.create_task(file.pread(len(BIG), 0))
            await cable.passed(Tread)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await file.pread(len(BIG), 0) == BIG
    assert cable.requests[Tflush.TYPE] > 0


async def test_operations_that_are_cancelled_leave_no_fids(fs: FileSystem) -> None:
    await fs.makedirs("/d/e")
    await fs.write_bytes("/d/e/f", b"x")
    await fs.symlink("d", "/l")
    for steps in range(40):
        for make in (
            lambda: fs.stat("/l/e/f"),
            lambda: fs.read_bytes("/l/e/f"),
            lambda: fs.listdir("/d"),
            lambda: fs.setxattr("/d/e/f", "user.a", b"v"),
            lambda: fs.write_bytes("/l/e/f", b"x"),
        ):
            task = asyncio.ensure_future(make())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert await fs.read_bytes("/l/e/f") in (b"x", b"")
    session = fs._current
    assert session is not None
    async with asyncio.timeout(10):
        while len(session._free) < session._last:
            await session.call(Tstatfs, ROOT)  # what was asked before is answered before


async def test_who_comes_can_be_said(server: Unix) -> None:
    async with FileSystem(str(server), uid=12345, gid=54321) as fs:
        await fs.write_bytes("/mine", b"")
        found = await fs.stat("/mine")
        assert (found.st_uid, found.st_gid) == (12345, 54321)


async def test_an_export_that_is_none_is_refused(server: Unix) -> None:
    with pytest.raises(FileNotFoundError):
        async with FileSystem(str(server), aname="none"):
            raise AssertionError


#: Whether the server is of this project, and lists a directory with attributes.
LISTS = pytest.mark.parametrize("lists", [True, False], ids=["own", "L"])


@LISTS
async def test_what_is_in_a_directory_comes_with_attributes(fs: FileSystem, lists: bool) -> None:
    (await fs._session()).connection.plus = lists
    await fs.makedirs("/d/g")
    await fs.write_bytes("/d/x", b"12345")
    await fs.symlink("none", "/d/l")
    names = ("g", "l", "x")
    assert await fs.stats("/d") == {
        name: await fs.stat(f"/d/{name}", follow=False) for name in names
    }
    assert await fs.stats("/d/g") == {}


@LISTS
async def test_small_messages_do_as_well(
    server: Unix, monkeypatch: pytest.MonkeyPatch, lists: bool
) -> None:
    monkeypatch.setattr(filesystem, "STATS", 2)
    async with FileSystem(str(server), msize=4096) as fs:
        (await fs._session()).connection.plus = lists
        await fs.write_bytes("/f", BIG[:100_000])
        assert await fs.read_bytes("/f") == BIG[:100_000]
        names = [f"{number:03}{'x' * 100}" for number in range(150)]
        await fs.mkdir("/d")
        for name in names:
            await fs.mknod(f"/d/{name}", stat.S_IFREG)
        assert sorted(await fs.listdir("/d")) == names
        assert sorted(await fs.stats("/d")) == names
        await fs.rmtree("/d")


async def test_after_closing_nothing_can_be_done(server: Unix) -> None:
    async with FileSystem(str(server)) as fs:
        await fs.stat("/")
    with pytest.raises(ValueError, match="closed"):
        await fs.stat("/")
