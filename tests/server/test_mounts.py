"""mounts: locks, commands and their ends, without a mount; tests/kernel has those with."""

import asyncio
import fcntl
import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server import mounts as mounts_module
from server.mounts import MountError, Mounts


def mounts_by(directory: Path, *command: str) -> Mounts:
    """What mounts by this command."""
    return Mounts(directory, lambda options, place: [*command, *options, place])


def test_no_other_user_comes_to_mounts(tmp_path: Path) -> None:
    mounts_by(tmp_path, "true")
    assert stat.S_IMODE((tmp_path / "mounts").stat().st_mode) == 0o700


async def test_what_is_not_mounted_can_not_be_unmounted(tmp_path: Path) -> None:
    mounts = mounts_by(tmp_path, "true")
    assert not mounts.has("v")
    assert not await mounts.answers("v")
    with pytest.raises(MountError, match=r"^umount: .*/mounts/v: "):
        await mounts.unmount("v")
    mounts.forget("v")


async def test_it_is_mounted_by_a_command(tmp_path: Path) -> None:
    script = f'echo "$@" >{tmp_path}/said; test -d "$3"'
    await mounts_by(tmp_path, "sh", "-c", script, "sh").mount("v", ["ro"])
    assert (tmp_path / "said").read_text() == f"aname=v ro {tmp_path}/mounts/v\n"


async def test_what_a_command_complains_of_is_told(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"^not today$"):
        await mounts_by(tmp_path, "sh", "-c", "echo not today >&2; exit 1").mount("v", [])
    with pytest.raises(MountError, match=r"^false failed$"):
        await mounts_by(tmp_path, "false").mount("v", [])


async def test_a_process_that_stays_is_not_waited_for_but_has_the_lock(tmp_path: Path) -> None:
    stays = f"mkfifo {tmp_path}/end; read end <{tmp_path}/end &"
    await mounts_by(tmp_path, "sh", "-c", stays).mount("v", [])
    with (tmp_path / "locks" / "v").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "end").write_text("now\n")
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)


async def test_a_command_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts_module, "LIMIT", 0.1)
    with pytest.raises(MountError, match=r"^sh: no end after 0.1 seconds$"):
        await mounts_by(tmp_path, "sh", "-c", "exec sleep infinity").mount("v", [])


async def test_a_lock_that_is_not_given_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts_module, "LIMIT", 0.1)
    mounts = mounts_by(tmp_path, "true")
    with (tmp_path / "locks" / "v").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MountError, match=r"/mounts/v: its process does not end$"):
            await mounts.mount("v", [])
    await mounts.mount("v", [])


async def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    mounts = mounts_by(tmp_path, "true")
    with (tmp_path / "locks" / "v").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = asyncio.create_task(mounts.mount("v", []))
        await mounts.mount("other", [])
        assert not waiting.done()
    await waiting


@pytest.mark.skipif(os.getuid() != 0, reason="mounts need root")
async def test_a_process_that_does_not_end_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts_module, "END", 0.1)
    stays = f"mkfifo {tmp_path}/end; read end <{tmp_path}/end &"
    staying = mounts_by(tmp_path, "sh", "-c", f'mount -t tmpfs none "$1"; {stays}')
    await staying.mount("v", [])
    with (tmp_path / "locks" / "v").open() as lock, capture_logs() as logs:
        await staying.unmount("v")
        assert [log["event"] for log in logs] == ["unmounted, but somebody has a copy of the mount"]
        mounts = mounts_by(tmp_path, "sh", "-c", 'mount -t tmpfs none "$1"')
        await mounts.mount("v", [])
        assert mounts.has("v")
        await mounts.unmount("v")
        assert not mounts.has("v")
        (tmp_path / "end").write_text("now\n")
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
    assert len(logs) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="mounts need root")
async def test_directories_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "a b\\c\nd\te"
    mounts = mounts_by(directory, "sh", "-c", 'mount -t tmpfs none "$1"')
    await mounts.mount("v", [])
    assert mounts.has("v")
    await mounts.unmount("v")
    assert not mounts.has("v")
