"""Virtio: guests of a QEMU that has the generic vhost-user device mount by it."""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from client import SyncFileSystem
from tests.tmpfs_core.paging import pattern

from .debian import new_qemu
from .qemu import Guest, Served
from .test_qemu import DESCRIBE, MAKE_TREE, SQLITE

pytestmark = pytest.mark.kernel

OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,access=client"
TAG = "scratch"
#: What QEMU must be told of the memory that the back end sees, too.
SHARED = (
    *("-object", "memory-backend-memfd,id=mem,size=256M,share=on"),
    *("-machine", "memory-backend=mem"),
)


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def server(sockets: Path) -> Iterator[Served]:
    """A server with two devices."""
    devices = [f"--listen=vhost-user://{sockets}/{name}?tag={TAG}" for name in ("one", "other")]
    with Served(sockets, *devices) as server:
        yield server


@pytest.fixture(scope="module")
def guest(boot: Callable[..., Guest], server: Served, sockets: Path) -> Guest:
    return boot(*device(sockets / "one"), qemu=new_qemu())


def device(socket: Path) -> list[str]:
    """What QEMU is told so that the guest has the device at this socket."""
    config = f"config_size={2 + len(TAG)}"
    return [
        *SHARED,
        *("-chardev", f"socket,id=c0,path={socket}"),
        *(
            "-device",
            f"vhost-user-test-device-pci,virtio-id=9,num_vqs=1,vq_size=128,{config},chardev=c0",
        ),
    ]


class Monitor:
    """QEMU's own control (QMP), at a socket."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        self._sock.connect(str(path))
        self._answers = self._sock.makefile("r")
        assert "QMP" in json.loads(self._answers.readline())
        self.do("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._sock.close()

    def do(self, command: str) -> None:
        """Have a command done; events are passed over."""
        self._sock.sendall(json.dumps({"execute": command}).encode())
        while "return" not in (answer := json.loads(self._answers.readline())):
            assert "event" in answer, answer


def test_the_guest_finds_its_tag(guest: Guest) -> None:
    assert guest.sh(
        "cat /sys/bus/virtio/drivers/9pnet_virtio/virtio*/mount_tag | tr '\\0' '\\n'"
    ) == (f"{TAG}\n")


def test_a_tree_is_copied_there_and_back(guest: Guest) -> None:
    guest.sh(MAKE_TREE)
    original = guest.sh(DESCRIBE.format("/tmp/tree"))
    with guest.mount(OPTIONS, TAG) as top:
        guest.sh(f"cp -a /tmp/tree {top}; rm -r /tmp/tree")
        assert guest.sh(DESCRIBE.format(f"{top}/tree")) == original
        guest.sh(f"cp -a {top}/tree /tmp; rm -r {top}/tree")
    assert guest.sh(DESCRIBE.format("/tmp/tree")) == original


@pytest.mark.parametrize(("mode", "cache"), [("delete", "none"), ("wal", "mmap")])
def test_sqlite(guest: Guest, mode: str, cache: str) -> None:
    """Its write-ahead log is a map that is shared, which takes a cache."""
    total = sum(i for i in range(1, 2001) if i % 10)
    with guest.mount(f"{OPTIONS},cache={cache}", TAG) as top:
        script = SQLITE.format(mode=mode)
        said = guest.sh(f"sqlite3 {top}/db <<'END'\n{script}\nEND\nrm {top}/db*")
    assert said == f"{mode}\nok\n1800|{total}\n"


def test_a_large_file_by_its_checksum(guest: Guest, server: Served) -> None:
    """What the host has written is read in the guest, and what the guest has, by the host."""
    data = b"".join(pattern(number, 1 << 20) for number in range(64))
    checksum = hashlib.blake2b(data).hexdigest()
    with SyncFileSystem(server.unix) as fs:
        with fs.open("/large", "wb") as file:
            file.write(data)
        with guest.mount(OPTIONS, TAG) as top:
            assert guest.sh(f"b2sum <{top}/large") == f"{checksum}  -\n"
            guest.sh(f"dd if={top}/large of={top}/copy bs=1M; rm {top}/large")
        with fs.open("/copy", "rb") as file:
            assert hashlib.blake2b(file.read()).hexdigest() == checksum
        fs.unlink("/copy")


def test_machines_are_paused_reset_and_replaced(
    boot: Callable[..., Guest], guest: Guest, server: Served, sockets: Path
) -> None:
    """What one has written, all see; what one held that was reset or has ended, nobody holds."""
    monitor = ("-qmp", f"unix:{sockets}/qmp,server=on,wait=off", "-action", "reboot=reset")
    arguments = [*device(sockets / "other"), *monitor]
    other = boot(*arguments, qemu=new_qemu())
    mount = f"mkdir -p /mnt/a; mount -t 9p -o {OPTIONS} {TAG} /mnt/a; cd /mnt/a"
    holder = "flock lock sh -c 'echo held; exec sleep 1000' >/tmp/held 2>&1 </dev/null &"
    lock = f": >/tmp/held; {holder} until grep held /tmp/held; do :; done"
    with guest.mount(OPTIONS, TAG) as top, Monitor(sockets / "qmp") as qmp:
        other.sh(f"{mount}; echo one >file; {lock}")
        assert guest.sh(f"cat {top}/file") == "one\n"
        assert guest.run(f"flock -n {top}/lock true").status == 1
        qmp.do("stop")
        guest.sh(f"echo two >>{top}/file")
        qmp.do("cont")
        assert other.sh("cat /mnt/a/file") == "one\ntwo\n"
        assert guest.run(f"flock -n {top}/lock true").status == 1
        qmp.do("system_reset")
        other.booted()
        guest.sh(f"flock {top}/lock true")
        assert other.sh(f"{mount}; cat file; {lock}") == "one\ntwo\nheld\n"
        assert guest.run(f"flock -n {top}/lock true").status == 1
        other.kill()
        guest.sh(f"flock {top}/lock true")
        again = boot(*arguments, qemu=new_qemu())
        assert again.sh(f"{mount}; cat file") == "one\ntwo\n"
        guest.sh(f"rm {top}/file {top}/lock")
        again.kill()
