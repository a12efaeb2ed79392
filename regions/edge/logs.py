"""The edge's log on standard output: how its lines look, and how many of them came to nothing."""

from __future__ import annotations

import sys

import structlog

from regions.wire.lines import Lines


class Lost:
    """Counts the calls of it. One for the process, as its standard output is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


LOST = Lost()


def configure(log_format: str) -> None:
    """`log_format`: ``json`` (one object per line) or ``console``."""
    last = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        logger_factory=structlog.PrintLoggerFactory(Lines(sys.stdout, LOST)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
