"""Random operations on a file, compared with a model: see guest/fsx.py."""

import pytest

from .uml import Guest, Server

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("cache", "mapping"), [("none", ""), ("mmap", "map"), ("loose", "map")])
def test_a_file_holds_what_was_written(
    guest: Guest, server: Server, cache: str, mapping: str, seed: int
) -> None:
    with guest.mount(server, cache=cache, msize=65536) as top:
        guest.python("fsx", top, str(seed), "1000", *mapping.split())
