"""What a reader asks for, read from its request: the filter, the place to begin, the key. The same for HTTP and the WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.control import Control
from app.errors import BadRequest
from app.ids import parse
from app.log.filters import FIX, EventFilter, filter_of
from app.log.positions import BEGINNING, Position, Scope, scope_of
from app.projects.auth import Principal
from regions.wire import ids

METADATA = "metadata."


async def asked_filter(
    control: Control,
    principal: Principal,
    types: list[str] | None,
    call_id: str | None,
    metadata: Mapping[str, str],
    *,
    volatile: bool = False,
) -> EventFilter:
    """Raises `BadRequest` for what means nothing, `NotFound` for a call that is not the project's."""
    call = None
    if call_id is not None:
        call = (await control.calls.get(principal, parse(ids.CALL, call_id))).id
    wanted = filter_of(types, call, metadata, volatile=volatile)
    if wanted.live and wanted.metadata:
        raise BadRequest("Volatile events cannot be chosen by metadata.", code="bad_filter", fix=FIX)
    return wanted


async def start_of(
    control: Control, principal: Principal, wanted: EventFilter, cursor: str | None
) -> tuple[Position, Scope]:
    """Where to begin: behind `cursor`, else with what comes from now on. Raises where the cursor is not for this, is too old, or
    lies ahead of the log, and where there are too many readers: before the stream has begun, so that its reader is told."""
    control.fan.check_room(principal.project_id)
    scope = scope_of(principal.project_id, wanted)
    if cursor is None:
        return await control.feeds.newest(), scope
    after = scope.position(cursor)
    if after != BEGINNING:
        await control.feeds.check(principal.project_id, after, scope)
    return after, scope


def metadata_of(params: Mapping[str, Any]) -> dict[str, str]:
    return {k.removeprefix(METADATA): str(v) for k, v in params.items() if k.startswith(METADATA)}


def credential_of(connection: Any) -> str | None:
    credential: str | None = connection.headers.get("authorization")
    return credential
