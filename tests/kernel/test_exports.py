"""Several exports of one server, mounted side by side."""

import subprocess
import sys
from pathlib import Path

import pytest

from .uml import REPOSITORY, SERVER_ADDRESS, Guest, Lab

pytestmark = pytest.mark.kernel


def test_exports_are_separate_limited_and_can_be_added(
    lab: Lab, guest: Guest, tmp_path: Path
) -> None:
    control = str(tmp_path / "control")

    def export(*arguments: str) -> None:
        command = [sys.executable, "-m", "server", "export", *arguments, "--control", control]
        subprocess.run(command, cwd=REPOSITORY, check=True)

    exports = ("--export", "small:size=8m", "--export", "own:size=16m,ram=16m")
    with (
        lab.serve("--size", "64m", *exports, "--control", control) as server,
        guest.mount(server, "/mnt/a") as default,
        guest.mount(server, "/mnt/b", extra="aname=small") as small,
        guest.mount(server, "/mnt/c", extra="aname=/own") as own,
    ):
        tops = (default, small, own)
        for top in tops:
            guest.sh(f"echo {top} >{top}/file")
        for top in tops:
            assert guest.sh(f"cat {top}/file; ls {top}") == f"{top}\nfile\n"
        for top, mebibytes in ((small, 8), (own, 16)):
            filled = guest.run(f"dd if=/dev/zero of={top}/filler bs=64k")
            assert filled.status == 1
            assert "No space left on device" in filled.output
            assert int(guest.sh(f"stat -c %s {top}/filler")) == (mebibytes << 20) - 4096
        guest.sh(f"head -c 30000000 /dev/zero >{default}/fits")
        absent = guest.run(
            f"mkdir -p /mnt/d && mount -t 9p -o trans=tcp,port={server.port},"
            f"version=9p2000.L,aname=late {SERVER_ADDRESS} /mnt/d"
        )
        assert (absent.status, "does not exist" in absent.output) == (32, True)  # ENOENT
        export("add", "late:size=4m")
        with guest.mount(server, "/mnt/d", extra="aname=late") as late:
            assert "No space left" in guest.run(f"head -c 5000000 /dev/zero >{late}/file").output
            export("rm", "late", "--force")
            assert "Stale file handle" in guest.run(f"ls {late}").output
            guest.sh(f"cat {default}/file")
