"""Virtual machines: the ways from a guest of QEMU to a server, each by real work on a mount."""

from collections.abc import Callable, Sequence

import pytest

from .debian import new_qemu
from .qemu import QEMU, Guest

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("qemu", [QEMU, new_qemu()], ids=["old", "new"])
def test_a_guest_runs_scripts_and_fails_as_they_do(
    boot: Callable[..., Guest], qemu: Sequence[str]
) -> None:
    guest = boot(qemu=qemu)
    assert guest.sh("echo out; echo err >&2") == "out\nerr\n"
    assert guest.run("false; true").status == 1
    assert guest.sh("sqlite3 :memory: 'select 6 * 7'") == "42\n"
