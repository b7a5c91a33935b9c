"""Two mounts of one export: sight of each other's changes, locks, and shared maps."""

import pytest

from .cases import cases
from .uml import Guest, Server

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("case", cases("sharing"))
def test_the_other_mount_sees(guest: Guest, server: Server, case: str) -> None:
    with guest.mount(server, "/mnt/a") as a, guest.mount(server, "/mnt/b") as b:
        guest.python("sharing", case, a, b)


@pytest.mark.parametrize("case", cases("locks"))
@pytest.mark.parametrize("mounts", ["one_mount", "two_mounts"])
def test_locks(guest: Guest, server: Server, mounts: str, case: str) -> None:
    """A client whose blocking lock was refused asks again after 30 s, which is too late here."""
    with guest.mount(server, "/mnt/a") as a, guest.mount(server, "/mnt/b") as b:
        guest.python("locks", case, a, b if mounts == "two_mounts" else a, timeout=20)


@pytest.mark.parametrize("case", cases("mapping"))
@pytest.mark.parametrize("cache", ["mmap", "loose"])
def test_shared_maps(guest: Guest, server: Server, cache: str, case: str) -> None:
    with guest.mount(server, "/mnt/a", cache=cache) as a, guest.mount(server, "/mnt/b") as b:
        guest.python("mapping", case, a, b)
