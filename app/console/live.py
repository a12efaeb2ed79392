"""What lives on a page: an event stream (WHATWG HTML 9.2) of parts that replace those with the same id.

Decides that a stream ends with its session, soon after the server is told to stop, and for a reader that has gone; and that a part
is sent only when it has changed. What is on it is the page's own: a function that is asked again and again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec
from litestar.response import Stream

from app.connection import is_away
from app.console import browser
from app.console.visit import Visit
from app.errors import VoxplaneError
from app.people.sessions import Session
from app.supervisor import wait_for_stop

CHECK_EVERY_S = 3.0
HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class Sent:
    """`kind`: ``html`` for parts, else a name that the page's script listens for. `data`: HTML, or JSON."""

    kind: str
    data: str


def parts(text: str) -> Sent:
    return Sent("html", text)


def fact(kind: str, value: object) -> Sent:
    return Sent(kind, msgspec.json.encode(value).decode())


def written(sent: Sent) -> str:
    lines = "".join(f"data: {line}\n" for line in sent.data.splitlines() or [""])
    return f"event: {sent.kind}\n{lines}\n"


def event_stream(lines: AsyncIterator[str]) -> Stream:
    return Stream(
        lines,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"},
    )


class StillSignedIn:
    """Asks, once in `CHECK_EVERY_S`, whether the session that opened a stream is still there."""

    def __init__(self, visit: Visit) -> None:
        door = visit.control.door
        self._secret = browser.cookie(visit.request, door.settings, browser.SESSION)
        self._visit = visit
        self._checked_s = visit.control.clock.monotonic_s()

    async def holds(self) -> bool:
        now_s = self._visit.control.clock.monotonic_s()
        if now_s - self._checked_s < CHECK_EVERY_S:
            return True
        self._checked_s = now_s
        try:
            found = await self._visit.control.door.sessions.find(self._secret)
        except Exception as error:
            if not is_away(error):
                raise
            return True
        return found is not None and self._same(found)

    def _same(self, found: Session) -> bool:
        """What the person may do is what it was; else the page is to be loaded again."""
        before = self._visit.person
        return (found.person.operator, found.person.roles) == (before.operator, before.roles)


def stream(visit: Visit, look: Callable[[], Awaitable[list[Sent]]], *, every_s: float) -> Stream:
    """Asks `look` every `every_s`, and sends what is not the same as what was sent last under its kind and beginning."""
    return event_stream(_repeated(visit, look, every_s))


async def _repeated(
    visit: Visit, look: Callable[[], Awaitable[list[Sent]]], every_s: float
) -> AsyncIterator[str]:
    session, clock = StillSignedIn(visit), visit.control.clock
    known: dict[int, bytes] = {}
    said_s = clock.monotonic_s()
    yield "retry: 1000\n\n"
    while await session.holds():
        try:
            found = await look()
        except VoxplaneError:
            return  # what the page is about has gone: asked again, the stream says so with its status
        except Exception as error:
            if not is_away(error):
                raise
            found = []
        for place, sent in enumerate(found):
            digest = hashlib.sha256(f"{sent.kind}\n{sent.data}".encode()).digest()
            if known.get(place) != digest:
                known[place] = digest
                said_s = clock.monotonic_s()
                yield written(sent)
        if clock.monotonic_s() - said_s >= HEARTBEAT_S:
            said_s = clock.monotonic_s()
            yield ": still here\n\n"
        if await wait_for_stop(visit.control.stopping, every_s):
            return
