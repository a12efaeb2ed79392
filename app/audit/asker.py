"""Whose request is being answered, for what is written down about it: who, from where, under which id.

Known to whatever runs within the request, and to nothing else: what a worker does is the system's.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.projects.roles import Actor
from app.telemetry import audit_missing_total

log = structlog.get_logger()

SYSTEM = Actor(kind="system", id="instance")
ADDRESS_CHARS_MAX = 64
NOTED = "audit"
"""Of a route: which action it writes down."""


@dataclass(slots=True)
class Asker:
    """`actor`: once it is known. `platform`: acts for the platform and not for a project. `noted`: actions that were written down, or
    for which there was nothing to write."""

    address: str = ""
    request_id: str = ""
    actor: Actor = SYSTEM
    platform: bool = False
    noted: list[str] = field(default_factory=list)


asking: ContextVar[Asker | None] = ContextVar("asking", default=None)


def asker() -> Asker:
    return asking.get() or Asker()


def is_(actor: Actor, *, platform: bool = False) -> None:
    """Said by whoever has looked at the credential. Where nobody asks, it is nobody's."""
    found = asking.get()
    if found is not None:
        found.actor, found.platform = actor, platform


def address_of(scope: Any) -> str:
    """Of who is on the other end of the connection."""
    client = scope.get("client")
    return str(client[0])[:ADDRESS_CHARS_MAX] if client else ""


def check_noted(scope: Any, who: Asker, status: int) -> None:
    """A route that says (`audit=`) what it writes down, and has done its work without, is a fault of ours: it is counted."""
    handler = scope.get("route_handler")
    if status < 400 and handler is not None and handler.opt.get(NOTED) and not who.noted:
        audit_missing_total.inc()
        log.error("audit.missing", route=scope.get("path_template"), action=handler.opt[NOTED])
