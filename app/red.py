"""Requests as the metrics count them: how many, how they ended, how long they took, by operation.

The operation is the one that the OpenAPI document names, so that there are as many of them as routes; what matches no route is
`none`. A request costs two additions: the metrics' children are looked up once for each operation and status.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from app.telemetry import request_seconds, requests_total

OPERATION = "voxplane_operation"
"""In the scope, where it is known without a route."""
NONE = "none"


def counted(scope: Any, status: int, took_s: float) -> None:
    operation = scope.get(OPERATION) or getattr(scope.get("route_handler"), "operation_id", None)
    total, seconds = _children(operation if isinstance(operation, str) else NONE, status)
    total.inc()
    seconds.observe(took_s)


@lru_cache(maxsize=4_096)
def _children(operation: str, status: int) -> tuple[Any, Any]:
    return requests_total.labels(operation, str(status)), request_seconds.labels(operation)
