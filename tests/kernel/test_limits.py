"""A full server: it says so, keeps what it has, and takes new data once something was removed."""

import pytest

from .uml import Guest, Lab

pytestmark = pytest.mark.kernel

NUMBERS = "df --block-size=1 --output={} {} | tail -n 1"


def test_a_full_disk_refuses_writes_and_recovers(lab: Lab, guest: Guest) -> None:
    with lab.serve("--size", "64m") as server, guest.mount(server) as top:

        def available() -> int:
            return int(guest.sh(NUMBERS.format("avail", top)))

        assert available() == 64 << 20
        guest.sh(f"head -c 5000000 /usr/bin/git >{top}/kept")
        before = available()
        filled = guest.run(f"dd if=/dev/zero of={top}/filler bs=64k")
        assert filled.status == 1
        assert "No space left on device" in filled.output
        assert available() == 0
        assert int(guest.sh(f"stat -c %s {top}/filler")) == before
        assert "No space left" in guest.run(f"echo x >{top}/another").output
        assert "No space left" in guest.run(f"echo x >>{top}/filler").output
        guest.sh(f"rm -f {top}/another; head -c 5000000 /usr/bin/git | cmp - {top}/kept")
        guest.sh(f"echo overwritten | dd of={top}/filler conv=notrunc")
        guest.sh(f"rm {top}/filler")
        assert available() == before
        guest.sh(f"head -c 5000000 /usr/bin/git >{top}/again; cmp {top}/kept {top}/again")


def test_an_overwritten_and_cut_file_gives_its_space_back(lab: Lab, guest: Guest) -> None:
    with lab.serve("--size", "64m") as server, guest.mount(server) as top:
        for _ in range(3):
            guest.sh(f"head -c 50000000 /dev/zero >{top}/file")
        guest.sh(f"truncate -s 1000 {top}/file; head -c 60000000 /dev/zero >{top}/other")


def test_inodes_run_out_and_come_back(lab: Lab, guest: Guest) -> None:
    with lab.serve("--size", "64m", "--nr-inodes", "100") as server, guest.mount(server) as top:
        free = int(guest.sh(NUMBERS.format("iavail", top)))
        assert 90 <= free < 100
        guest.sh(f"for number in $(seq {free}); do : >{top}/file$number; done")
        assert guest.sh(NUMBERS.format("iavail", top)).strip() == "0"
        for command in ("touch", "mkdir", "mkfifo", "ln -s nowhere"):
            assert "No space left" in guest.run(f"{command} {top}/new").output
        guest.sh(f"echo data >{top}/file1; rm {top}/file2 {top}/file3")
        guest.sh(f"mkdir {top}/new; ln {top}/file1 {top}/link")
