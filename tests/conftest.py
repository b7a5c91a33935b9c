"""What holds for every test: which build is tested, and that asyncio has nothing to complain about.

Loops run in debug mode (pyproject.toml): a call from the wrong thread is an error.  Warnings are
errors, too, those that a destructor gives included.
"""

import logging
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled", action="store_true", help="what is tested must be compiled")


class Complaints(logging.Handler):
    """Collects what asyncio logs as an error: callbacks that raised, tasks that were lost."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(autouse=True)
def _asyncio_is_content() -> Iterator[None]:
    complaints = Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield
    logger.removeHandler(complaints)
    assert not complaints.lines
