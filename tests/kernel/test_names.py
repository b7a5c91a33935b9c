"""Names of every kind, large and deep directories, files without a name, and storms of renames."""

import pytest

from .cases import cases
from .uml import Guest, Server

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("case", cases("names"))
def test_names(guest: Guest, server: Server, case: str) -> None:
    with guest.mount(server) as top:
        guest.python("names", case, top, timeout=120)


def test_a_large_directory_is_read_in_the_smallest_messages(guest: Guest, server: Server) -> None:
    with guest.mount(server, msize=4096) as top:
        guest.python("names", "a_directory_emptied_while_it_is_read", top)


@pytest.mark.parametrize("case", cases("orphans"))
@pytest.mark.parametrize("cache", ["none", "mmap", "loose"])
def test_what_is_open_stays_usable_without_a_name(
    guest: Guest, server: Server, cache: str, case: str
) -> None:
    with guest.mount(server, cache=cache) as top:
        guest.python("orphans", case, top)


def test_a_rename_storm_loses_nothing(guest: Guest, server: Server) -> None:
    with guest.mount(server, "/mnt/a") as a, guest.mount(server, "/mnt/b") as b:
        guest.python("storm", a, b, a, b)
