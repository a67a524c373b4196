"""Logging of the long-running processes: structlog, one event a line, to standard error.

`DCSUP_LOG=json` (or `console`) chooses the form; without it a terminal gets the console form and anything else JSON. RQ and
redis-py speak up from WARNING on; what they say is printed in the same form. `transitions` stays silent: its own debug lines would
cost ten times the step. (The orchestrator's process is set up here too, by the CLI.)
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog


class Unfailing:
    """Standard error as it is at the moment of writing; a log that cannot be written (disk full, closed) stops nobody's work."""

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def configure(role: str, node: str | None = None) -> structlog.stdlib.BoundLogger:
    """Set up logging once per process and return its logger, bound to role and, on a node, to that."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(processors=[*shared, _renderer()], logger_factory=structlog.PrintLoggerFactory(Unfailing()))  # type: ignore[arg-type]
    _adopt_standard_logging(shared)
    bound = {"role": role} | ({"node": node} if node is not None else {})
    logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind(**bound)
    return logger


def _renderer() -> Any:
    form = os.environ.get("DCSUP_LOG") or ("console" if sys.stderr.isatty() else "json")
    return structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer(ensure_ascii=False)


def _adopt_standard_logging(shared: list[Any]) -> None:
    logging.getLogger("transitions").setLevel(logging.ERROR)
    handler = logging.StreamHandler(Unfailing())
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer()]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry", "redis"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
