"""Virtual machines: each way from a guest of QEMU to a server, by real work on a mount."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from client import SyncFileSystem
from tests.tmpfs_core.paging import pattern

from .debian import new_qemu
from .qemu import Guest, Served

pytestmark = pytest.mark.kernel

TMPFS9P = f"{sys.executable} -P -c 'from server.program import main; main()'"
OPTIONS = "version=9p2000.L,msize=1048576,access=client"

#: How a guest mounts a server, by the way to it.  A port of virtio-serial is no file of which the
#: kernel can make a mount, but pipes are.
WAYS = {
    "network": ("trans=tcp,port={port}", "10.0.2.2", ""),
    "guestfwd": ("trans=tcp,port=564", "10.0.2.100", ""),
    "guestfwd-stdio": ("trans=tcp,port=564", "10.0.2.101", ""),
    "serial": (
        "trans=fd,rfdno=3,wfdno=4",
        "tmpfs9p",
        """
        reader=$(cat /tmp/reader || :)
        [ -z "$reader" ] || { kill $reader; while [ -d /proc/$reader ]; do :; done; }
        rm -f /tmp/in /tmp/out; mkfifo /tmp/in /tmp/out
        port=$(echo /dev/vport*p1); exec 5<>$port
        cat <&5 >/tmp/in & echo $! >/tmp/reader
        cat >&5 </tmp/out &
        exec 3</tmp/in 4>/tmp/out 5>&-
        """,
    ),
}


@dataclass
class Machine:
    """A guest that has all ways to a server."""

    guest: Guest
    server: Served

    def mount(self, way: str, more: str = "", path: str = "/mnt/a") -> AbstractContextManager[str]:
        transport, source, before = WAYS[way]
        options = f"{transport.format(port=self.server.port)},{OPTIONS}{more}"
        return self.guest.mount(options, source, path, before=before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # QEMU connects the serial port when it starts, long before a guest uses it.
    with Served(tmp_path_factory.mktemp("served"), "--version-timeout", "86400") as server:
        yield server


@pytest.fixture(scope="module")
def machine(boot: Callable[..., Guest], server: Served) -> Machine:
    return Machine(boot(*arguments(server)), server)


def arguments(server: Served) -> list[str]:
    """What QEMU is told for all ways."""
    connect = f"guestfwd=tcp:10.0.2.100:564-cmd:{TMPFS9P} connect {server.unix}"
    serve = f"guestfwd=tcp:10.0.2.101:564-cmd:{TMPFS9P} serve --size 300m --listen stdio:"
    path = server.unix.removeprefix("unix://")
    return [
        *("-netdev", f"user,id=n0,{connect},{serve}"),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
        *("-chardev", f"socket,id=c0,path={path}"),
        *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=c0,name=t9"),
    ]


def test_a_guest_runs_scripts_and_fails_as_they_do(machine: Machine) -> None:
    guest = machine.guest
    assert guest.sh("echo out; echo err >&2") == "out\nerr\n"
    assert guest.run("false; true").status == 1
    assert guest.sh("sqlite3 :memory: 'select 6 * 7'") == "42\n"


every_way = pytest.mark.parametrize("way", WAYS)

MAKE_TREE = """
rm -rf /tmp/tree; mkdir /tmp/tree; cd /tmp/tree
for directory in a a/b a/b/c d; do
    mkdir $directory
    for number in 1 2 3 4 5 6; do seq ${number}000 >$directory/$number; done
done
cp /modules/9p.ko a; ln a/1 d/hard; ln -s ../a/9p.ko d/link; ln -s nowhere a/dangling
mkdir empty; chmod 2751 empty; chmod 4711 a/2; chmod 0 a/3; chown 12:34 a/4; mkfifo fifo
touch -d '1999-12-31 23:59:59' a/5 d
"""
# Everything that describes it, but the times of links, which this cp does not copy.
DESCRIBE = """
cd {}
find . | sort | xargs stat -c '%n %A %u:%g %h'
find . ! -type l | sort | xargs stat -c '%n %Y'
find . -type l | sort | xargs -n 1 readlink
find . -type f | sort | xargs b2sum
"""


@every_way
def test_a_tree_is_copied_there_and_back(machine: Machine, way: str) -> None:
    guest = machine.guest
    guest.sh(MAKE_TREE)
    original = guest.sh(DESCRIBE.format("/tmp/tree"))
    with machine.mount(way) as top:
        guest.sh(f"cp -a /tmp/tree {top}; rm -r /tmp/tree")
        assert guest.sh(DESCRIBE.format(f"{top}/tree")) == original
        guest.sh(f"cp -a {top}/tree /tmp; rm -r {top}/tree")
    assert guest.sh(DESCRIBE.format("/tmp/tree")) == original


SQLITE = """
PRAGMA journal_mode={mode};
CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO items SELECT i, 'item ' || i, i FROM n;
BEGIN; DELETE FROM items; ROLLBACK;
DELETE FROM items WHERE id % 10 = 0;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(value) FROM items;
"""


@every_way
@pytest.mark.parametrize(("mode", "cache"), [("delete", "none"), ("wal", "mmap")])
def test_sqlite(machine: Machine, way: str, mode: str, cache: str) -> None:
    """Its write-ahead log is a map that is shared, which takes a cache."""
    total = sum(i for i in range(1, 2001) if i % 10)
    with machine.mount(way, f",cache={cache}") as top:
        script = SQLITE.format(mode=mode)
        said = machine.guest.sh(f"sqlite3 {top}/db <<'END'\n{script}\nEND\nrm {top}/db*")
    assert said == f"{mode}\nok\n1800|{total}\n"


@pytest.mark.parametrize("way", [way for way in WAYS if way != "guestfwd-stdio"])
def test_a_large_file_by_its_checksum(machine: Machine, way: str) -> None:
    """What the host has written is read in the guest, and what the guest has, by the host."""
    data = b"".join(pattern(number, 1 << 20) for number in range(64))
    checksum = hashlib.blake2b(data).hexdigest()
    with SyncFileSystem(machine.server.unix) as fs:
        with fs.open("/large", "wb") as file:
            file.write(data)
        with machine.mount(way) as top:
            read = f"dd if={top}/large bs=1M 2>/dev/null"
            assert machine.guest.sh(f"{read} | b2sum", timeout=300) == f"{checksum}  -\n"
            machine.guest.sh(f"{read} of={top}/copy; rm {top}/large", timeout=300)
        with fs.open("/copy", "rb") as file:
            assert hashlib.blake2b(file.read()).hexdigest() == checksum
        fs.unlink("/copy")


def test_a_large_file_of_the_guest_by_its_checksum(machine: Machine) -> None:
    """On a server of its own, which nobody else can look into."""
    with machine.mount("guestfwd-stdio") as top:
        machine.guest.sh("dd if=/dev/urandom of=/tmp/large bs=1M count=64 2>/dev/null", timeout=300)
        machine.guest.sh(f"dd if=/tmp/large of={top}/large bs=1M 2>/dev/null", timeout=300)
        sums = f"b2sum </tmp/large; dd if={top}/large bs=1M 2>/dev/null | b2sum; rm /tmp/large"
        one, other = machine.guest.sh(sums, timeout=300).splitlines()
        assert one == other


def test_two_guests_share_what_is_served(boot: Callable[..., Guest], machine: Machine) -> None:
    """Each sees at once what the other does, and waits for its locks; one is of a newer QEMU."""
    other = Machine(boot(*arguments(machine.server), qemu=new_qemu()), machine.server)
    increments = "BEGIN IMMEDIATE; UPDATE counter SET n = n + 1; COMMIT;\n" * 20
    count = f"sqlite3 -bail -cmd '.timeout 60000' {{}}/db <<'END'\n{increments}END"
    with machine.mount("guestfwd") as here, other.mount("serial") as there:
        machine.guest.sh(f"echo one >{here}/file")
        assert other.guest.sh(f"cat {there}/file; echo two >>{there}/file") == "one\n"
        assert machine.guest.sh(f"cat {here}/file; rm {here}/file") == "one\ntwo\n"
        assert other.guest.run(f"cat {there}/file").status == 1
        table = "CREATE TABLE counter (n); INSERT INTO counter VALUES (0)"
        machine.guest.sh(f"sqlite3 {here}/db '{table}'")
        with ThreadPoolExecutor() as threads:
            both = [
                threads.submit(machine.guest.sh, count.format(here)),
                threads.submit(other.guest.sh, count.format(there)),
            ]
            for each in both:
                each.result()
        query = "SELECT n FROM counter; PRAGMA integrity_check"
        assert machine.guest.sh(f"sqlite3 {here}/db '{query}'; rm {here}/db") == "40\nok\n"
