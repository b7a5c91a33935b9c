"""The option that tells which build is to be tested."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled", action="store_true", help="what is tested must be compiled")
