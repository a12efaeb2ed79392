"""Times as requests give them, RFC 3339 with an offset, and as ids say them, in milliseconds. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.errors import FieldError

MS = timedelta(milliseconds=1)
EPOCH = datetime.fromtimestamp(0, UTC)
KEPT = timedelta(days=30)
"""So long events are kept at least."""


def read_time(pointer: str, given: str) -> tuple[datetime, list[FieldError]]:
    """The time, and what is wrong with it."""
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        at = None
    if at is not None and at.tzinfo is not None:
        return at, []
    detail = "expected RFC 3339 with an offset, such as 2026-01-31T12:00:00Z"
    return EPOCH, [FieldError(pointer=pointer, detail=detail)]


def whole_ms(at: datetime) -> datetime:
    """`at` without what is finer than a millisecond, which is what an id says of when it was made."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def unix_ms(at: datetime) -> int:
    """Milliseconds since 1970, exactly: a float of seconds times a thousand is one short now and then."""
    return (at - EPOCH) // MS


def read_window(
    since: str | None, until: str | None, now: datetime
) -> tuple[datetime, datetime, list[FieldError]]:
    """From when to when: what is left out is the time that is kept, and now."""
    first, faults = (now - KEPT, []) if since is None else read_time("/since", since)
    last, more = (now, []) if until is None else read_time("/until", until)
    faults = [*faults, *more]
    if not faults and first > now:
        faults.append(FieldError(pointer="/since", detail="is in the future"))
    if not faults and last <= first:
        faults.append(FieldError(pointer="/until", detail="is not after since"))
    if not faults and first < now - KEPT:
        faults.append(
            FieldError(pointer="/since", detail="is more than 30 days ago; events are kept for 30 days")
        )
    return first, min(last, now), faults
