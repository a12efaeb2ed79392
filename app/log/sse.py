"""Server-sent events: what every stream of them has in common (WHATWG HTML, 9.2).

Decides how a stream begins, when it says that it lives, and that it ends with the key that opened it. Which events come, and
what an event looks like, is decided by whoever opens it. A reader that does not read is cut off by the server (`app.main`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from litestar.response import Stream

from app.connection import is_away
from app.control import Control
from app.errors import Unauthenticated
from app.log.rendering import pieces

HEARTBEAT_S = 15.0
CHECK_EVERY_S = 3.0

Heard = AsyncIterator[tuple[str, list[str]]]
"""The cursor that is reached, and the blocks up to it; without a block at least every `CHECK_EVERY_S`."""


class KeyCheck:
    """Asks, once in `CHECK_EVERY_S`, whether the key that opened a stream is still valid."""

    def __init__(self, control: Control, credential: str | None) -> None:
        self._control = control
        self._credential = credential
        self._checked_s = control.clock.monotonic_s()

    async def holds(self) -> bool:
        now_s = self._control.clock.monotonic_s()
        if now_s - self._checked_s < CHECK_EVERY_S:
            return True
        self._checked_s = now_s
        try:
            await self._control.auth.authenticate(self._credential)
        except Unauthenticated:
            return False
        except Exception as error:
            # with the database away nothing is served either; it is asked again with the next
            if not is_away(error):
                raise
        return True


def event_stream(control: Control, credential: str | None, start: str, heard: Heard) -> Stream:
    return Stream(
        _lines(control, credential, start, heard),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _lines(control: Control, credential: str | None, start: str, heard: Heard) -> AsyncIterator[str]:
    key = KeyCheck(control, credential)
    yield f"retry: 1000\nid: {start}\n\n"
    said_s = control.clock.monotonic_s()
    async for cursor, blocks in heard:
        if not await key.holds():
            return
        now_s = control.clock.monotonic_s()
        if blocks:
            said_s = now_s
            for piece in pieces(blocks):
                yield piece
        elif now_s - said_s >= HEARTBEAT_S - CHECK_EVERY_S:
            said_s = now_s
            yield f": still here\nid: {cursor}\n\n"
