"""Logging: structlog on standard error, key and value, as text for people or as JSON lines.

Where standard error is what a client is connected to, the system log (syslog(3)) has it.
"""

import logging
import sys
import syslog
from functools import partial

import structlog


class SystemLog:
    """The system log, behind the face of structlog's loggers."""

    def __init__(self) -> None:
        syslog.openlog("tmpfs9p", syslog.LOG_PID, syslog.LOG_DAEMON)
        self.debug = partial(syslog.syslog, syslog.LOG_DEBUG)
        self.info = partial(syslog.syslog, syslog.LOG_INFO)
        self.warning = partial(syslog.syslog, syslog.LOG_WARNING)
        self.error = partial(syslog.syslog, syslog.LOG_ERR)


def configure_logging(log_format: str, log_level: str, silent: bool = False) -> None:
    """Log from ``log_level`` up (a name of :mod:`logging`), as "console" or "json"; if standard
    error must be ``silent``, to the system log.

    It may be called again: all loggers, those that are in use too, follow.
    """
    renderers: list[structlog.typing.Processor]
    if log_format == "json":
        # A frame's variables are what clients have sent: no log holds them.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderers = [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log_level.upper()]
        ),
        logger_factory=SystemLog if silent else structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
