"""Conditions of a request: which version of a thing `If-Match` names. Pure; whoever changes the thing compares."""

from __future__ import annotations

from app.errors import PreconditionRequired

ANY = "*"
NOBODYS = -1
"""A version that nothing ever has."""
DIGITS_MAX = 9


def version_named(if_match: str | None, what: str) -> int:
    """What cannot be an ETag of ours is nobody's. Raises `PreconditionRequired` where there is none; `what`: that is changed."""
    if if_match is None:
        raise PreconditionRequired(f"Changing {what} needs If-Match.")
    text = if_match.strip().strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else NOBODYS


def any_version(if_match: str | None) -> bool:
    return if_match is not None and if_match.strip() == ANY
