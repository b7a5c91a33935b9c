"""Leaks nothing: no file shows what was another's, no log shows what is in any, swap is private.

Rules of this file:

* SECRET is what must not be seen: every frame of what was written before is full of it.
* Names are in no log either: a line says who is connected, what ended it, and where swap fails.
"""

import errno
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tests.server.peer import SocketPeer, raises_errno
from tests.server.spilling import Gate, Spilling, spilling, truncation, until
from tests.server.strategies import REQUESTS, kinds
from tests.server.test_main import ask, run, serving
from tmpfs_core import pageout
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.swap import read_in

SECRET = b"what nobody else may see........"
FILL = SECRET * (BLOCK // len(SECRET))
RAM, SWAP = 512, 1024


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Spilling]:
    """A server with 2 MiB of RAM and 4 MiB of swap, of which each frame has held the secret."""
    async with spilling(tmp_path, RAM, SWAP) as world:
        peer = await world.begin()
        fid = await peer.create(b"secret")
        place = 0
        while place < (RAM + SWAP) * FRAME * 3 // 4:
            place += (await peer.call(m.Twrite(fid, place, FILL))).count
        small = [await peer.create(b"%d" % number, FILL[:FRAME]) for number in range(40)]
        on_disk = os.pread(world.spill.swap.files[0].fd, SWAP * FRAME, 0)
        assert on_disk.count(SECRET) > SWAP * FRAME // len(SECRET) // 2
        for gone in (fid, *small):
            await peer.call(m.Tremove(gone))
        await until(lambda: not world.spill.swap.used, peer)  # page-out may be under way
        world.spill.nothing_is_left()
        yield world
        world.spill.check()
        assert "error" not in [line["log_level"] for line in world.logs]


@pytest.fixture
async def peer(world: Spilling) -> SocketPeer:
    return await world.begin()


async def content(peer: SocketPeer, fid: int) -> bytes:
    data = b""
    while part := (await peer.call(m.Tread(fid, len(data), 1 << 20))).data:
        data += part
    return data


async def holds(peer: SocketPeer, fid: int, expected: dict[int, bytes], size: int) -> bool:
    """Whether the file holds these bytes at these places, and zeros elsewhere."""
    data = bytearray(size)
    for place, part in expected.items():
        data[place : place + len(part)] = part
    return await content(peer, fid) == data


# Other files


@pytest.mark.parametrize("in_swap", [False, True])
@pytest.mark.parametrize(
    "places",
    [[0], [1], [FRAME - 1], [5 * FRAME + 7], [BLOCK - 1, 3 * BLOCK + 9], [BLOCK // 2]],
)
async def test_a_byte_here_and_there_has_zeros_around_it(
    world: Spilling, peer: SocketPeer, places: list[int], in_swap: bool
) -> None:
    size = 5 * BLOCK + 99
    for name in (b"a", b"b", b"c"):
        fid = await peer.create(name)
        await peer.call(truncation(fid, size))
        for place in places:
            await peer.call(m.Twrite(fid, place, b"mine"))
        if in_swap:
            world.spill.page_out_all()
        assert await holds(peer, fid, dict.fromkeys(places, b"mine"), size)


async def test_a_small_file_that_takes_the_place_of_another(peer: SocketPeer) -> None:
    for length in (1, 100, FRAME - 1):
        fid = await peer.create(b"%d" % length, b"x" * length)
        await peer.call(truncation(fid, BLOCK))
        assert await holds(peer, fid, {0: b"x" * length}, BLOCK)


@pytest.mark.parametrize("in_swap", [False, True])
@pytest.mark.parametrize("cut", [0, 1, FRAME, 2 * FRAME + 5, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
async def test_what_was_cut_off_does_not_come_back(
    world: Spilling, peer: SocketPeer, cut: int, in_swap: bool
) -> None:
    fid = await peer.create(b"file")
    for place in range(3):
        await peer.call(m.Twrite(fid, place * BLOCK, FILL))
    if in_swap:
        world.spill.page_out_all()
    await peer.call(truncation(fid, cut))
    await peer.call(truncation(fid, 3 * BLOCK))
    assert await holds(peer, fid, {0: (FILL * 3)[:cut]}, 3 * BLOCK)


async def large_write(peer: SocketPeer, fid: int, offset: int, blocks: int) -> None:
    """Write whole blocks of zeros but for their first bytes, as large writes are received."""
    data = (b"mine" + bytes(BLOCK - 4)) * blocks
    done = 0
    while done < len(data):
        done += (await peer.call(m.Twrite(fid, offset + done, data[done:]))).count


async def test_the_berths_of_a_large_write_that_never_ended(
    world: Spilling, peer: SocketPeer
) -> None:
    liar = await world.begin()
    theirs = await liar.create(b"theirs")
    arena = world.memory.arena
    for _ in range(2):
        liar.feed(m.Twrite.head(5, theirs, 0, 12 * BLOCK) + FILL * 11)
        await until(lambda: arena._berthed > len(arena._berths), peer)
        liar.abort()
        await until(lambda: arena._berthed == len(arena._berths), peer)
        liar = await world.begin()
        theirs = await liar.open(b"theirs")
    assert await content(liar, theirs) == b""
    fid = await peer.create(b"file")
    await large_write(peer, fid, BLOCK // 2, 9)
    firsts = {place * BLOCK + BLOCK // 2: b"mine" for place in range(9)}
    assert await holds(peer, fid, firsts, 9 * BLOCK + BLOCK // 2)


async def test_the_berths_of_a_large_write_that_was_refused(
    world: Spilling, peer: SocketPeer
) -> None:
    await peer.call(m.Tclunk(await peer.create(b"theirs")))
    theirs = await peer.open(b"theirs", c.O_RDONLY)
    peer.send(m.Twrite(theirs, 0, FILL * 9))
    assert isinstance((await peer.reply())[1], m.Rlerror)
    fid = await peer.create(b"file")
    await large_write(peer, fid, 2 * BLOCK, 4)
    firsts = {place * BLOCK: b"mine" for place in range(2, 6)}
    assert await holds(peer, fid, firsts, 6 * BLOCK)


async def test_a_write_of_which_a_part_has_space_shows_nothing_behind_it(
    world: Spilling, peer: SocketPeer
) -> None:
    filler = await peer.create(b"filler")
    fid = await peer.create(b"file")
    place = 0
    with suppress(OSError):  # no space
        while place < 1 << 30:
            place += (await peer.call(m.Twrite(filler, place, b"y" * BLOCK))).count
    await peer.call(truncation(filler, place - 3 * FRAME))
    world.memory.retry()
    peer.send(m.Twrite(fid, 100, b"x" * 9 * BLOCK))
    reply = (await peer.reply())[1]
    stored = reply.count if isinstance(reply, m.Rwrite) else 0
    await peer.call(truncation(fid, 12 * BLOCK))
    assert await holds(peer, fid, {100: b"x" * stored}, 12 * BLOCK)


async def test_a_page_in_that_is_not_wanted_any_more(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has read is in no file, and its memory becomes that of another."""
    gate = Gate(read_in)
    monkeypatch.setattr(pageout, "read_in", gate)
    monkeypatch.setattr(pageout, "read_now", lambda _: False)
    fid = await peer.create(b"theirs")
    for place in range(4):
        await peer.call(m.Twrite(fid, place * BLOCK, FILL))
    world.spill.page_out_all()
    peer.send(m.Tread(fid, 0, 4 * BLOCK), 7)
    await gate.reached()
    await peer.call(m.Tflush(7), 8)
    await peer.call(m.Tremove(fid))
    gate.open()
    await until(lambda: not world.memory.ram.used, peer)
    for name in (b"a", b"b", b"c", b"d"):
        fid = await peer.create(name)
        await peer.call(m.Twrite(fid, 3 * FRAME, b"mine"))
        await peer.call(truncation(fid, BLOCK))
        assert await holds(peer, fid, {3 * FRAME: b"mine"}, BLOCK)


async def test_the_value_of_an_attribute_is_as_long_as_what_was_written(peer: SocketPeer) -> None:
    """A draft that is not complete is none."""
    fid = await peer.create(b"file")
    await peer.call(m.Twalk(fid, 1, []))
    await peer.call(m.Txattrcreate(1, b"user.a", BLOCK, 0))
    await peer.call(m.Twrite(1, 0, b"short"))
    with pytest.raises(OSError, match="Input/output error"):
        await peer.call(m.Tclunk(1))
    with pytest.raises(OSError, match="No data"):
        await peer.call(m.Txattrwalk(fid, 1, b"user.a"))


# Logs


@pytest.mark.parametrize("cls", REQUESTS)
async def test_no_log_shows_what_is_in_a_message(world: Spilling, cls: type[Message]) -> None:
    """Neither of a request, with the secret in all that takes bytes, nor of what is none."""
    peer = await world.begin()
    fid = await peer.create(b"file", SECRET)
    values: dict[str, Any] = {"string": SECRET, "data": SECRET, "strings": [SECRET]}
    fields = {name: values.get(kind.shape, fid) for name, kind in kinds(cls).items()}
    peer.feed(cls(**fields).frame(1) + m.Tread(fid, 0, 100).frame(2) + SECRET)
    await peer.last_replies()
    events = [line["event"] for line in world.logs]
    assert events[-2:] == ["protocol error", "client gone"]
    assert "what nobody" not in repr(world.logs)


async def test_the_log_of_swap_that_fails_shows_no_data(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fid = await peer.create(SECRET)
    await peer.call(m.Twrite(fid, 0, FILL))
    world.spill.page_out_all()
    os.ftruncate(world.spill.swap.files[0].fd, 0)
    with raises_errno(errno.EIO):
        await peer.call(m.Tread(fid, 0, 100))
    (line,) = world.errors()
    assert line["event"] == "page-in failed, a block is lost"
    assert "what nobody" not in repr(world.logs)
    world.logs.remove(line)


# The swap file


def swap_of(pid: int) -> Path:
    """The swap file of a process, which has no name but this."""
    paths = Path(f"/proc/{pid}/fd").iterdir()
    found, _its_map = [path for path in paths if os.readlink(path).endswith("/swap (deleted)")]
    return found


@pytest.mark.parametrize("options", [[], ["--swap-encrypt"]])
def test_the_swap_file_is_private_and_goes_with_the_process(
    tmp_path: Path, options: list[str]
) -> None:
    swap = ["--size", "16m", "--ram", "1m", "--swap", f"{tmp_path}/swap"]
    where = ["--listen", "tcp://127.0.0.1:0"]
    with serving(*where, *swap, *options) as server, server.connect() as sock:
        ask(sock, m.Tversion(1 << 20, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"", 0))
        ask(sock, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        for place in range(0, 4 << 20, BLOCK):
            assert ask(sock, m.Twrite(0, place, FILL)) == m.Rwrite(BLOCK)
        assert ask(sock, m.Tread(0, 0, BLOCK)) == m.Rread(FILL)
        path = swap_of(server.pid)
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 0)
        with path.open("rb") as file:  # as who takes the disk away sees it
            data = file.read()
            assert any(data)
            assert (SECRET in data) == (not options)
        assert os.listdir(tmp_path) == []
        assert server.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
    assert not path.exists()


def test_encryption_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ModuleNotFoundError(name='cryptography')")
    swap = ["--size", "16m", "--ram", "1m", "--swap", f"{tmp_path}/swap", "--swap-encrypt"]
    done = run("serve", *swap, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 2
    assert done.stderr == (
        "tmpfs9p: --swap-encrypt: no module cryptography; pip install 'tmpfs9p[encrypt]'\n"
    )
