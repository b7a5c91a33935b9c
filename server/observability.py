"""Logging: structlog on standard error, key and value, as text for people or as JSON lines."""

import logging
import sys

import structlog


def configure_logging(log_format: str, log_level: str) -> None:
    """Log from ``log_level`` up (a name of :mod:`logging`), as "console" or "json".

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
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
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
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
