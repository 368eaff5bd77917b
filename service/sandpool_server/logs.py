"""Structured logs on standard error."""

import logging
import sys

import structlog


def configure_logs(level: str, fmt: str) -> None:
    """Configure structlog and the standard library's logging.

    `level` is the minimum level, `fmt` is `console` or `json`.
    """
    number = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor
    if fmt == "json":
        # Never log local variables: they may contain secrets of callers.
        transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        shared.append(structlog.processors.ExceptionRenderer(transform))
        last = structlog.processors.JSONRenderer()
    else:
        plain = structlog.dev.plain_traceback
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=last, foreign_pre_chain=shared))
    # Libraries log warnings and errors only: their debug messages contain hosts, paths and queries.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
