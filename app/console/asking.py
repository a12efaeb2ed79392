"""What pages read of their address, and small sums for what they show. Pure but for the request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.console.visit import Visit
from app.pointers import invalid_from

VALUE_CHARS_MAX = 512


def first_of(visit: Visit, name: str) -> str:
    """Of a field in the query; empty where there is none."""
    return str(visit.request.query_params.get(name, "")).strip()[:VALUE_CHARS_MAX]


def part_of(visit: Visit, found: Sequence[Any], most: int) -> tuple[Sequence[Any], int, int | None]:
    """What of a list this page shows: the part, where it begins (`at` in the query), and where the next one does."""
    text = first_of(visit, "at")
    at = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    return found[at : at + most], at, at + most if at + most < len(found) else None


def in_utc(text: str | None) -> str | None:
    """What a browser's field for a time gives (no zone, perhaps no seconds), as RFC 3339."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text  # whoever reads it says what is wrong
    return text if at.tzinfo is not None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def read_form(kind: Any, given: dict[str, Any]) -> Any:
    """A form as a body of the API would be read. Raises `Invalid`."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise invalid_from(str(error)) from None
