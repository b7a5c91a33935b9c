"""v9fs: whether the kernel's client is there; what it does is in tests/kernel."""

import os
from pathlib import Path

import pytest

from client import v9fs


def test_it_is_not_where_there_is_nothing_to_load_it_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(v9fs, "_is_known", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not v9fs.is_there()
