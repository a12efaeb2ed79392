"""The credential of a request, as it was sent. Pure. Two of them are none: who stands in front may have looked at the other."""

from __future__ import annotations

from typing import Any

from app.errors import Unauthenticated


def authorization_of(connection: Any) -> str | None:
    """Of a request or a WebSocket. Raises `Unauthenticated` where there are two."""
    given = [value for name, value in connection.scope["headers"] if name == b"authorization"]
    if len(given) > 1:
        raise Unauthenticated(
            "The request carries more than one Authorization header.", fix="Send one credential, once."
        )
    return given[0].decode("latin-1") if given else None
