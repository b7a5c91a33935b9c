"""vsock: a server and its client in one guest, as few machines have vsock(7) themselves."""

import sys

import pytest

from .uml import HOST, REPOSITORY, Guest

pytestmark = pytest.mark.kernel

MODULES = "vsock vmw_vsock_virtio_transport_common vsock_loopback"
TMPFS9P = f"cd {HOST}{REPOSITORY}; {HOST}{sys.executable} -B -m server"
SERVE = f"{TMPFS9P} serve --size 64m --listen vsock://any:5640"
#: As docs/qemu.md has it, but for the number of the machine.
MOUNT = """
import os, socket
sock = socket.socket(socket.AF_VSOCK)
sock.connect((1, 5640))
os.set_inheritable(sock.fileno(), True)
options = f"trans=fd,rfdno={sock.fileno()},wfdno={sock.fileno()},version=9p2000.L,msize=1048576"
os.execvp("mount", ["mount", "-t", "9p", "-o", options, "tmpfs9p", "/mnt/vsock"])
"""


@pytest.fixture
def modules(guest: Guest) -> None:
    guest.sh(f"""
        for module in {MODULES}; do
            grep -q "^$module " /proc/modules ||
                insmod /usr/lib/uml/modules/$(uname -r)/kernel/net/vmw_vsock/$module.ko
        done
    """)


@pytest.mark.usefixtures("modules")
def test_the_kernel_mounts_it_by_vsock(guest: Guest) -> None:
    output = guest.sh(f"""
        mkdir -p /mnt/vsock
        ({SERVE} --allow cid:1) >/tmp/log 2>&1 & server=$!
        until grep -q ready: /tmp/log; do kill -0 $server || {{ cat /tmp/log; exit 1; }}; done
        cat >/tmp/mount.py <<'END'
{MOUNT}
END
        python3 /tmp/mount.py
        cd /mnt/vsock
        tar -C /usr/lib/python3 -cf tree.tar dist-packages
        tar -C /usr/lib/python3 --compare -f tree.tar
        sqlite3 db 'CREATE TABLE t (x); INSERT INTO t VALUES (42); SELECT x FROM t'
        cd /; umount /mnt/vsock
        kill $server; wait $server
        grep -o 'peer=vsock://1:' /tmp/log | sort -u
    """)
    assert output == "42\npeer=vsock://1:\n"


@pytest.mark.usefixtures("modules")
def test_who_is_not_allowed_is_not_let_in(guest: Guest) -> None:
    """The machine itself is none of its virtual machines."""
    output = guest.sh(f"""
        ({SERVE} --allow cid:any) >/tmp/log 2>&1 & server=$!
        until grep -q ready: /tmp/log; do kill -0 $server || {{ cat /tmp/log; exit 1; }}; done
        ! ({TMPFS9P} connect vsock://1:5640 </dev/zero)
        kill $server; wait $server
        grep -o 'not in --allow' /tmp/log
    """)
    assert output.splitlines()[-1] == "not in --allow"
