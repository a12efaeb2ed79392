"""Times as a command is given them: so long ago, or RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.cli.run import fail

AGO = re.compile(r"([1-9][0-9]{0,4})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_of(text: str, option: str) -> str:
    """RFC 3339. A day alone is its beginning in UTC."""
    if AGO.fullmatch(text):
        return (datetime.now(UTC) - ago(text, option)).isoformat()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"{option} is a time like 30m, 24h, 7d or 2026-01-31T12:00:00Z, not {text!r}", 2) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


def ago(text: str, option: str) -> timedelta:
    match = AGO.fullmatch(text)
    if match is None:
        raise fail(f"{option} is a time like 30m, 24h or 7d", 2)
    return timedelta(**{UNITS[match[2]]: int(match[1])})
