"""observability: what a log line looks like, and where it goes."""

import json
import sys
import syslog
from collections.abc import Iterator

import pytest
import structlog

from server.observability import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging as it was before the test."""
    yield
    structlog.reset_defaults()


def fail() -> None:
    """Log an exception of a function whose variables are nobody's business."""
    secret = bytes(range(65, 91))
    try:
        assert len(secret) == 26
        raise ValueError("what went wrong")
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", "info")
    structlog.get_logger().info("client connected", peer="127.0.0.1:9")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "client connected" in err
    assert "peer=127.0.0.1:9" in err
    assert "\x1b" not in err  # colours are for terminals


def test_a_terminal_gets_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging("console", "info")
    structlog.get_logger().info("ready")
    assert "\x1b" in capsys.readouterr().err


def test_json_lines_are_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    structlog.get_logger().warning("protocol error", peer="unix", why="a\nb")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    line = json.loads(err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "protocol error", "level": "warning", "peer": "unix", "why": "a\nb"}


def test_where_standard_error_must_be_silent_it_goes_to_the_system_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda level, text: said.append((level, text)))
    configure_logging("json", "info", silent=True)
    log = structlog.get_logger()
    for each in ("debug", "info", "warning", "error"):
        getattr(log, each)("event")
    assert capsys.readouterr().err == ""
    assert [level for level, _ in said] == [syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR]
    assert json.loads(said[0][1])["event"] == "event"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_lines_from_the_level_up_are_shown(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    configure_logging("json", level)
    log = structlog.get_logger()
    for each in ("debug", "info", "warning", "error"):
        getattr(log, each)("event")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["level"] for line in lines] == shown


def test_a_traceback_is_shown_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", "info")
    fail()
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "ValueError: what went wrong" in err


def test_a_traceback_is_data_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "info")
    fail()
    (text,) = capsys.readouterr().err.splitlines()
    (exception,) = json.loads(text)["exception"]
    assert exception["exc_type"] == "ValueError"
    assert exception["exc_value"] == "what went wrong"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    """They are what clients have sent."""
    configure_logging(log_format, "info")
    fail()
    err = capsys.readouterr().err
    assert "fail" in err
    assert "ABCDEF" not in err
