"""Files larger than the RAM they get: what a kernel wrote comes back from swap."""

from pathlib import Path

import pytest

from .uml import Guest, Lab

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def test_two_gigabytes_through_128_mebibytes(lab: Lab, guest: Guest, tmp_path: Path) -> None:
    options = ("--ram", "128m", "--size", "4g", "--swap", str(tmp_path / "swap"))
    with lab.serve(*options) as server, guest.mount(server) as top:
        for step, seed in (("write", 1), ("verify", 1), ("use", 1), ("write", 2), ("verify", 2)):
            guest.python("swapping", step, str(seed), top, timeout=900)
        assert int(guest.sh(f"du -sm {top} | cut -f1")) >= 2048
        guest.sh(f"rm -r {top}/*")
        assert int(guest.sh(f"df --block-size=1 --output=used {top} | tail -n 1")) == 0
        assert server.peak_rss() < 256 * MIB
    assert list(tmp_path.iterdir()) == []


def test_ram_and_swap_full_is_no_space_and_recovers(lab: Lab, guest: Guest, tmp_path: Path) -> None:
    sizes = ("--ram", "16m", "--size", "128m", "--swap-size", "32m")
    with (
        lab.serve(*sizes, "--swap", str(tmp_path / "swap")) as server,
        guest.mount(server) as top,
    ):
        guest.sh(f"head -c 20000000 /dev/urandom | tee {top}/kept | md5sum >/tmp/sum")
        filled = guest.run(f"dd if=/dev/urandom of={top}/filler bs=64k")
        assert filled.status == 1
        assert "No space left on device" in filled.output
        assert int(guest.sh(f"stat -c %s {top}/filler")) > 20 * MIB
        guest.sh(f"md5sum <{top}/kept | cmp - /tmp/sum")
        guest.sh(f"rm {top}/filler; cp {top}/kept {top}/again; cmp {top}/kept {top}/again")
