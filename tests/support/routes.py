"""The routes of the API, as the application has them."""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.routes import HTTPRoute

SAFE = {"GET", "HEAD", "OPTIONS"}


def changing_routes(app: Litestar) -> dict[str, dict[str, Any]]:
    """Of every route that is not only read: its operation id, or its path where the document does not have it → what its handler was
    given besides."""
    found: dict[str, dict[str, Any]] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if set(handler.http_methods) - SAFE:
                    name = handler.operation_id if handler.resolve_include_in_schema() else route.path
                    found[str(name)] = handler.opt
    return found
