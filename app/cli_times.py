"""Times as a command is given them: so long ago, or RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.cli_run import fail

AGO = re.compile(r"([1-9][0-9]{0,4})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_of(text: str, option: str) -> str:
    if AGO.fullmatch(text):
        return (datetime.now(UTC) - ago(text, option)).isoformat()
    return text


def ago(text: str, option: str) -> timedelta:
    match = AGO.fullmatch(text)
    if match is None:
        raise fail(f"{option} is a time like 30m, 24h or 7d", 2)
    return timedelta(**{UNITS[match[2]]: int(match[1])})
