"""Server-sent events: what every stream of them has in common (WHATWG HTML, 9.2).

Decides how a stream begins, when it says that it lives, and that it ends with the key that opened it. Which events come, and
what an event looks like, is decided by whoever opens it. A reader that does not read is cut off by the server (`app.main`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from litestar.response import Stream

from app.control import Control
from app.errors import Forbidden
from app.log.rendering import pieces
from app.peer import address_of
from app.projects.auth import Principal
from app.projects.credentials import authorization_of
from app.projects.watching import Watch

HEARTBEAT_S = 15.0
CHECK_EVERY_S = 3.0
NOTHING: frozenset[str] = frozenset()

Hearing = Callable[[Watch], AsyncIterator[tuple[str, list[str]]]]
"""The cursor that is reached, and the blocks up to it; without a block at least every `CHECK_EVERY_S`. Ends with the watch, or says
something soon after."""


def watched(
    control: Control, connection: Any, held: frozenset[str] = NOTHING
) -> AbstractContextManager[Watch]:
    """Of a stream that this connection's key has opened, with the scopes that it had then: it ends with the key, and when the key
    has been narrowed."""
    authorization, scope = authorization_of(connection), connection.scope

    async def check() -> None:
        who = await control.auth.authenticate(authorization, scope)
        if isinstance(who, Principal) and not held <= who.scopes:
            raise Forbidden("The key may do less than it could when this stream was opened.")

    return control.auth.watching.open((authorization, address_of(scope), held), check)


def event_stream(
    control: Control, connection: Any, start: str, heard: Hearing, held: frozenset[str] = NOTHING
) -> Stream:
    return Stream(
        _lines(control, connection, start, heard, held),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _lines(
    control: Control, connection: Any, start: str, heard: Hearing, held: frozenset[str]
) -> AsyncIterator[str]:
    with watched(control, connection, held) as watch:
        yield f"retry: 1000\nid: {start}\n\n"
        said_s = control.clock.monotonic_s()
        async for cursor, blocks in heard(watch):
            if watch.ended.is_set():
                return
            now_s = control.clock.monotonic_s()
            if blocks:
                said_s = now_s
                for piece in pieces(blocks):
                    yield piece
            elif now_s - said_s >= HEARTBEAT_S - CHECK_EVERY_S:
                said_s = now_s
                yield f": still here\nid: {cursor}\n\n"
