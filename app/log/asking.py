"""What a reader asks for, read from its request: the filter, and the place to begin. The same for HTTP and the WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from app.control import Control
from app.errors import BadRequest, Invalid
from app.ids import parse
from app.log.filters import FIX, EventFilter, filter_of
from app.log.positions import BEGINNING, Position, Scope, scope_of
from app.projects.auth import Principal
from app.times import read_window
from regions.wire import ids


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
    control: Control, principal: Principal, wanted: EventFilter, cursor: str | None, since: str | None = None
) -> tuple[Position, Scope]:
    """Where to begin: behind `cursor`, else with the first event stored at `since`, else with what comes from now on. Raises where
    the cursor is not for this, is too old, or lies ahead of the log, and where there are too many readers: before the stream has
    begun, so that its reader is told. An empty cursor is none."""
    control.fan.check_room(principal.project_id)
    scope = scope_of(principal.project_id, wanted)
    if not cursor:
        if since is None:
            return await control.feeds.newest(), scope
        first, _ = _window(control, since, None)
        return (await control.feeds.at(principal.project_id, first)).position, scope
    after = scope.position(cursor)
    if after != BEGINNING:
        await control.feeds.check(principal.project_id, after, scope)
    return after, scope


async def bounds_of(
    control: Control,
    principal: Principal,
    scope: Scope,
    cursor: str | None,
    since: str | None,
    until: str | None,
) -> tuple[Position, Position | None]:
    """Where a list begins, and behind which position it has nothing; None: that is not known yet. Raises `Invalid`."""
    first, last = _window(control, since, until)
    if cursor:
        after = scope.position(cursor)
    elif since is not None:
        after = (await control.feeds.at(principal.project_id, first)).position
    else:
        after = BEGINNING
    if until is None:
        return after, None
    end = await control.feeds.at(principal.project_id, last)
    return after, end.position if end.known else None


def _window(control: Control, since: str | None, until: str | None) -> tuple[datetime, datetime]:
    first, last, faults = read_window(since, until, control.clock.now())
    if faults:
        raise Invalid("There is no such time here.", errors=faults)
    return first, last
