"""Fixtures: a laboratory for the session, in it a guest, and a server for each test."""

from collections.abc import Iterator

import pytest

from .uml import Guest, Lab, Server, why_not


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture
def guest(lab: Lab) -> Guest:
    return lab.guest()


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    with lab.serve("--size", "512m") as server:
        yield server
