"""``tmpfs9p mount`` where the kernel has a 9P client of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from client.sync import SyncFileSystem
from tests import sshd

from . import fuse
from .uml import HOST, REPOSITORY, SERVER_ADDRESS, Guest, Server

pytestmark = pytest.mark.kernel

PYTHON = f"cd {HOST}{REPOSITORY}; {HOST}{sys.executable} -B -m"
MOUNT = f"{PYTHON} server mount"


def test_the_kernel_mounts_it_and_no_process_stays(guest: Guest, server: Server) -> None:
    address = f"tcp://{SERVER_ADDRESS}:{server.port}"
    guest.sh(f"""
        mkdir -p /mnt/c; {MOUNT} -o msize=65536,noatime {address} /mnt/c
        ! grep -la 'mount\x00-o' /proc/[0-9]*/cmdline
        echo data >/mnt/c/file; cat /mnt/c/file
    """)
    options = guest.sh("grep ' /mnt/c 9p ' /proc/mounts; umount /mnt/c").split()[3].split(",")
    assert {"noatime", "msize=65536", "trans=tcp"} <= set(options)


def test_in_the_foreground_it_ends_with_the_mount(guest: Guest, server: Server) -> None:
    address = f"tcp://{SERVER_ADDRESS}:{server.port}"
    guest.sh(f"""
        mkdir -p /mnt/c; ({MOUNT} -f -o ro {address} /mnt/c) & mounting=$!
        until mountpoint -q /mnt/c; do kill -0 $mounting; done
        ! touch /mnt/c/file
        umount /mnt/c
        wait $mounting
    """)


def test_what_the_kernel_refuses_is_told(guest: Guest, server: Server) -> None:
    address = f"tcp://{SERVER_ADDRESS}:{server.port}"
    status, output = guest.run(f"mkdir -p /mnt/c; {MOUNT} -o aname=none {address} /mnt/c")
    assert status == 32
    assert f"tmpfs9p mount: {address}: mount: /mnt/c: " in output


@pytest.mark.parametrize("name", ["unix", "ssh", "tls"])
def test_what_the_kernel_can_not_reach_itself_is_carried(guest: Guest, name: str) -> None:
    """A unix socket it can; ssh and TLS are at the other end of a socket pair."""
    reason = sshd.why_not()
    if reason is not None:
        pytest.skip(reason)
    guest.sh(f"{PYTHON} tests.kernel.carried {name}")


FSTAB = r"""
mkdir real sbin; mount --bind /usr/sbin real
ln -s $PWD/real/* $PWD/mount.tmpfs9p sbin; mount --bind sbin /usr/sbin
echo "{address} {top}/place tmpfs9p _netdev,ro,cache=loose,nosuid 0 0" >fstab
mount --bind fstab /etc/fstab
mkdir place; mount place
findmnt --noheadings --output FSTYPE,OPTIONS place
test "$(cat place/f)" = here; ! touch place/g 2>/dev/null
umount place
mount -t tmpfs9p -o noexec {address} place; touch place/g; umount place
! mount -t tmpfs9p -o nonsense {address} place
"""


def test_mount_8_and_fstab_have_it_mounted(served: fuse.Served, tmp_path: Path) -> None:
    """In a mount namespace of its own, as the helper must be in /sbin."""
    with SyncFileSystem(served.address) as fs:
        fs.write_bytes("/f", b"here")
    helper = tmp_path / "mount.tmpfs9p"
    program = "from client.mount import helper; helper()"
    helper.write_text(f"#!/bin/sh\ncd {REPOSITORY}; exec {sys.executable} -c '{program}' \"$@\"\n")
    helper.chmod(0o755)
    script = FSTAB.format(address=served.address, top=tmp_path)
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script,
        ],
        cwd=tmp_path,
        env=fuse.ENVIRON,
        capture_output=True,
        text=True,
        timeout=fuse.LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kind, options = done.stdout.split()
    assert kind == "fuse.tmpfs9p"
    assert {"ro", "nosuid"} <= set(options.split(","))
    assert "-o nonsense: allowed are ro" in done.stderr
