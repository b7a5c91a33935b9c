"""Mounting: cache modes, message sizes, access modes, and a server that goes away."""

import pytest

from .uml import Guest, Server

pytestmark = pytest.mark.kernel

DATA = "head -c 3000001 /usr/bin/git"


@pytest.mark.parametrize("msize", [8192, 65536, 1 << 20])
@pytest.mark.parametrize("cache", ["none", "mmap", "loose"])
def test_data_comes_back_before_and_after_a_remount(
    guest: Guest, server: Server, cache: str, msize: int
) -> None:
    with guest.mount(server, cache=cache, msize=msize) as top:
        guest.sh(f"{DATA} >{top}/file; cmp {top}/file <({DATA})")
    with guest.mount(server, cache=cache, msize=msize) as top:
        guest.sh(f"cmp {top}/file <({DATA})")


@pytest.mark.parametrize("access", ["user", "client", "any"])
def test_users_share_a_mount(guest: Guest, server: Server, access: str) -> None:
    as_user = "setpriv --reuid=1234 --regid=1234 --clear-groups"
    with guest.mount(server, access=access) as top:
        guest.sh(f"chmod 1777 {top}; {as_user} sh -c 'echo data >{top}/file; cat {top}/file'")
        if access != "any":
            assert guest.sh(f"stat -c %u:%g {top}/file") == "1234:1234\n"


def test_a_server_ends_in_order_with_a_client_mounted(guest: Guest, server: Server) -> None:
    with guest.mount(server) as top:
        guest.sh(f"echo data >{top}/file")
        server.stop()
        assert guest.run(f"cat {top}/file").status == 1
