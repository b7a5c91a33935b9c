"""``tmpfs9p volume-plugin`` with FUSE mounts: who holds them, and what may happen to them."""

import errno
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.control import ask
from tests.server.engine import Refused, Site, site
from tests.server.peer import GUARD, raises_errno
from tests.server.test_main import COMMAND, ENVIRON

from .fuse import why_not
from .uml import HOST, REPOSITORY, Guest

pytestmark = pytest.mark.kernel

#: Where the kernel has a client of its own, which has no process, and does not connect again.
V9FS = """
import signal
from pathlib import Path
from tests.server.engine import site

Path("/tmp/site").mkdir()
with site(Path("/tmp/site")) as here:
    here.ask("Create", Name="v", Opts={"size": "1m"})
    place = here.mount("v", "one")
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [mount[2] for mount in mounts if mount[1] == str(place)] == ["9p"]
    (place / "file").write_text("kept")
    here.unplug(signal.SIGKILL)
    here.plug()
    assert here.mount("v", "two") == place
    assert here.mounted() == [str(place)]
    assert (place / "file").read_text() == "kept"
    assert here.server.stop()[0] == 0
    here.serve()
    assert here.mount("v", "three") == place
    assert here.mounted() == [str(place)]
    (place / "new").touch()
    for holder in ("one", "two", "three"):
        here.unmount("v", holder)
    assert here.mounted() == []
    here.ask("Remove", Name="v")
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with site(tmp_path) as here:
        here.ask("Create", Name="v", Opts={"size": "1m"})
        yield here


def is_free(here: Site, name: str) -> bool:
    """Whether no process makes or serves the mount of a volume."""
    with (here.dir / "locks" / name).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def fuse_process(here: Site, name: str) -> int:
    """The process that serves the mount of a volume."""
    place = str(here.mounts / name).encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if place in words and b"mount" in words:
            return int(pid)
    raise AssertionError


# Who holds a volume


def test_a_volume_is_mounted_once_for_all_who_hold_it(here: Site) -> None:
    place = here.mount("v", "one")
    assert here.ask("Path", Name="v") == {"Mountpoint": str(place)}
    (place / "file").write_text("kept")
    assert here.mount("v", "two") == place
    assert here.mounted() == [str(place)]
    assert (here.status("v")["holders"], here.status("v")["clients"]) == (2, 1)
    here.unmount("v", "one")
    assert (place / "file").read_text() == "kept"
    here.unmount("v", "two")
    assert (here.mounted(), is_free(here, "v")) == ([], True)
    assert (here.status("v")["holders"], here.status("v")["clients"]) == (0, 0)
    assert (here.mount("v") / "file").read_text() == "kept"


def test_who_mounts_twice_unmounts_twice(here: Site) -> None:
    """As Docker does for a container that runs while files are copied from it."""
    place = here.mount("v")
    here.mount("v")
    here.unmount("v")
    assert here.mounted() == [str(place)]
    here.unmount("v")
    assert here.mounted() == []


def test_who_holds_nothing_unmounts_nothing(here: Site) -> None:
    place = here.mount("v", "one")
    here.unmount("v", "stranger")
    assert here.mounted() == [str(place)]
    here.unmount("v", "one")
    here.unmount("v", "one")
    assert here.mounted() == []


def test_a_volume_in_use_is_not_removed(here: Site) -> None:
    place = here.mount("v", "one")
    (place / "file").write_text("here")
    with pytest.raises(Refused, match=r"^v: in use by one$"):
        here.ask("Remove", Name="v")
    assert (place / "file").read_text() == "here"
    here.unmount("v", "one")
    here.ask("Remove", Name="v")
    assert [it["name"] for it in ask(here.control, "export ls", {})] == ["/"]
    assert [os.listdir(here.dir / name) for name in ("mounts", "locks")] == [[], []]


def test_a_volume_that_others_have_mounted_is_not_removed(here: Site, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    command = [*COMMAND, "mount", "-o", "aname=v", here.address, str(place)]
    subprocess.run(command, check=True, timeout=GUARD, env=ENVIRON)
    with pytest.raises(Refused, match=r"^v: 1 client is attached$"):
        here.ask("Remove", Name="v")
    subprocess.run(["umount", place], check=True)


def test_what_is_unmounted_can_be_removed_at_once(here: Site) -> None:
    for _ in range(3):
        (here.mount("v") / "file").write_text("data")
        here.unmount("v")
        here.ask("Remove", Name="v")
        here.ask("Create", Name="v", Opts={"size": "1m"})


# What a volume is


def test_options_are_those_of_what_is_mounted(here: Site) -> None:
    given = {"size": "2m", "ram": "2m", "nr-inodes": "5", "mode": "750", "uid": "7", "gid": "8"}
    here.ask("Create", Name="w", Opts=given)
    place = here.mount("w")
    there, found = os.statvfs(place), place.stat()
    assert there.f_blocks * there.f_frsize == 2 << 20
    assert (there.f_files, stat.S_IMODE(found.st_mode)) == (5, 0o750)
    assert (found.st_uid, found.st_gid) == (7, 8)
    with raises_errno(errno.ENOSPC):
        (place / "file").write_bytes(bytes(3 << 20))


def test_a_volume_can_be_for_reading_alone(here: Site) -> None:
    here.ask("Create", Name="w", Opts={"readonly": ""})
    with raises_errno(errno.EROFS):
        (here.mount("w") / "file").touch()


def test_programs_of_volumes_are_for_no_other_user(here: Site) -> None:
    place = here.mount("v")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "ls", place],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Permission denied" in done.stderr


# The plugin is killed, or ends


def test_mounts_outlive_the_plugin(here: Site) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        place = here.mount("v", "one")
        with (place / "file").open("w") as file:
            assert here.unplug(number) == status
            file.write("written meanwhile")
        here.plug()
        assert (place / "file").read_text() == "written meanwhile"
        assert here.mount("v", "two") == place
        assert here.mounted() == [str(place)]
        for holder in ("one", "two"):
            with pytest.raises(Refused, match="in use by"):
                here.ask("Remove", Name="v")
            here.unmount("v", holder)
        assert (here.mounted(), is_free(here, "v")) == ([], True)


def test_what_a_killed_plugin_was_mounting_is_not_mounted_twice(here: Site) -> None:
    """Its ``tmpfs9p mount`` goes on; here this test is that."""
    (here.mounts / "v").mkdir()
    with (here.dir / "locks" / "v").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here.unplug(signal.SIGKILL)
        here.plug()
        places: list[Path] = []
        waiting = threading.Thread(target=lambda: places.append(here.mount("v")))
        waiting.start()
        command = [*COMMAND, "mount", "-o", "aname=v", here.address, str(here.mounts / "v")]
        passed = [lock.fileno()]
        subprocess.run(command, check=True, timeout=GUARD, env=ENVIRON, pass_fds=passed)
        waiting.join(GUARD)
    assert places == [here.mounts / "v"]
    assert here.mounted() == [str(here.mounts / "v")]
    here.unmount("v")
    assert (here.mounted(), is_free(here, "v")) == ([], True)


def test_what_nobody_holds_any_more_is_unmounted_at_the_start(here: Site) -> None:
    here.mount("v")
    here.unplug(signal.SIGKILL)
    state = here.dir / "volumes.json"
    state.write_text(re.sub(r'"holders": {[^}]*}', '"holders": {}', state.read_text()))
    here.plug()
    assert (here.mounted(), is_free(here, "v")) == ([], True)


def test_what_is_not_mounted_any_more_is_held_by_nobody(here: Site) -> None:
    """The machine was started anew, or somebody has called umount(8)."""
    for restart in (True, False):
        place = here.mount("v", "one")
        if restart:
            here.unplug(signal.SIGKILL)
        subprocess.run(["umount", place], check=True)
        if restart:
            here.plug()
        assert here.status("v")["holders"] == 0
        here.unmount("v", "one")
    here.ask("Remove", Name="v")
    assert here.log().count("volume is mounted no more") == 2


def test_what_can_not_be_unmounted_is_told_and_unmounted_later(here: Site) -> None:
    place = here.mount("v")
    with (place / "file").open("w"), pytest.raises(Refused, match=r"^v: umount: .* busy"):
        here.unmount("v")
    assert here.mounted() == [str(place)]
    here.ask("Remove", Name="v")
    assert here.mounted() == []


# The server, or the mount, is gone


def test_a_server_that_was_restarted_has_its_volumes_again(here: Site) -> None:
    place = here.mount("v", "one")
    (place / "file").write_text("lost with the server")
    assert here.server.stop()[0] == 0
    why = f"the server is not reachable: {here.control}: No such file or directory"
    assert here.status("v") == {"holders": 1, "server": why}
    with pytest.raises(Refused, match=re.escape(why)):
        here.mount("v", "two")
    here.serve()
    assert here.mount("v", "two") == place
    assert here.mounted() == [str(place)]
    assert os.listdir(place) == []
    (place / "file").write_text("new")
    assert "the server had lost a volume: made again, empty" in here.log()
    for holder in ("one", "two"):
        here.unmount("v", holder)
    assert (here.mounted(), is_free(here, "v")) == ([], True)


def test_a_mount_of_what_the_server_has_removed_is_replaced(here: Site) -> None:
    place = here.mount("v", "one")
    with (place / "file").open("w"):
        ask(here.control, "export rm", {"name": "v", "force": True})
        assert here.mount("v", "two") == place
        assert here.mounted() == [str(place)]
        (place / "new").touch()
    for holder in ("one", "two"):
        here.unmount("v", holder)
    assert here.mounted() == []
    here.ask("Remove", Name="v")


def test_a_mount_whose_process_was_killed_is_replaced(here: Site) -> None:
    place = here.mount("v", "one")
    (place / "file").write_text("kept by the server")
    process = fuse_process(here, "v")
    ends = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    with os.fdopen(ends, "rb") as end, (here.dir / "locks" / "v").open() as lock:
        assert end
        fcntl.flock(lock, fcntl.LOCK_EX)
    with raises_errno(errno.ENOTCONN):
        os.listdir(place)
    assert here.mount("v", "two") == place
    assert (place / "file").read_text() == "kept by the server"
    assert here.mounted() == [str(place)]
    assert "volume does not answer: mounted anew" in here.log()


# Several at a time


def test_volumes_do_not_wait_for_one_another(here: Site) -> None:
    here.ask("Create", Name="w", Opts={})
    places: list[Path] = []
    with (here.dir / "locks" / "v").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mounts = [lambda: places.append(here.mount("v"))] * 3
        waiting = [threading.Thread(target=mount) for mount in mounts]
        for thread in waiting:
            thread.start()
        (here.mount("w") / "file").touch()
        assert here.status("v")["holders"] == 0
        assert here.mounted() == [str(here.mounts / "w")]
        fcntl.flock(lock, fcntl.LOCK_UN)
        for thread in waiting:
            thread.join(GUARD)
    assert places == [here.mounts / "v"] * 3
    assert sorted(here.mounted()) == [str(here.mounts / name) for name in ("v", "w")]
    assert here.status("v")["holders"] == 3


def test_a_mount_for_an_engine_that_has_left_is_undone(here: Site) -> None:
    body = b'{"Name": "v", "ID": "gone"}'
    request = b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
    with (here.dir / "locks" / "v").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(here.socket))
            sock.sendall(request % (len(body), body))
        here.ask("List")  # what was sent before has been read
    here.mount("v", "two")
    here.unmount("v", "two")
    assert (here.mounted(), is_free(here, "v")) == ([], True)
    assert "an engine has left while it mounted" in here.log()


def test_the_kernels_own_client_is_used_where_there_is_one(guest: Guest) -> None:
    python = f"PYTHONPATH={HOST}{REPOSITORY} {HOST}{sys.executable} -B"
    guest.sh(f"{python} - <<'END'\n{V9FS}\nEND", timeout=120)
