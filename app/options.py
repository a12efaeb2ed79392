"""What a resource answers to OPTIONS: all of its methods. (The framework's own answer knows the first one it was told of.)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar import Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler


def options(handlers: Iterable[Any]) -> list[HTTPRouteHandler]:
    """One for each path; to be registered before the others."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        if isinstance(handler, HTTPRouteHandler):
            for path in handler.paths:
                methods.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    return [_answering(path, ", ".join(sorted(found))) for path, found in methods.items()]


def _answering(path: str, allowed: str) -> HTTPRouteHandler:
    @route(path, http_method=HttpMethod.OPTIONS, include_in_schema=False, status_code=204)
    async def allow() -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allowed})

    return allow
