"""``tmpfs9p mount`` where the kernel has a 9P client of its own."""

import sys

import pytest

from .uml import REPOSITORY, SERVER_ADDRESS, Guest, Server

pytestmark = pytest.mark.kernel

MOUNT = f"cd {REPOSITORY}; {sys.executable} -B -m server mount"


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
