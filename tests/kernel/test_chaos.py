"""A real kernel works while other clients attack the server: see tests/chaos."""

from pathlib import Path

import pytest

from tests.chaos.mount import around_a_mount

from .uml import Guest, Lab

pytestmark = pytest.mark.kernel


def test_a_mount_holds_what_was_written_whatever_others_do(
    lab: Lab, guest: Guest, tmp_path: Path
) -> None:
    outcome = around_a_mount(lab, guest, tmp_path, seed=1, seconds=12)
    assert outcome.done["mounts"] > 1
    assert outcome.done["rounds"] > 10
    assert list(tmp_path.iterdir()) == []
