"""How an event is written for a reader: our own envelope or a CloudEvent, and the block of a stream (WHATWG HTML, 9.2). Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from app.log.cloudevents import cloudevent, volatile_cloudevent
from app.log.fan import Entry
from app.log.positions import Scope
from app.log.withholding import may_hear, withheld, withheld_live
from app.projects.auth import Principal
from regions.wire import ids
from regions.wire.events import VolatileEvent

Format = Literal["voxplane", "cloudevents"]
BLOCK_CHARS_MAX = 64 * 1024
"""What is written at once: a reader that is slow holds no more of it in memory."""


class Rendering:
    """For one reader: what it may not hear is withheld."""

    def __init__(self, format_: Format, principal: Principal) -> None:
        self._cloud = format_ == "cloudevents"
        self._project = ids.encode(ids.PROJECT, principal.project_id)
        self._whole = may_hear(principal)

    def block(self, entry: Entry, scope: Scope) -> str:
        """For server-sent events: the same for all readers of a project with one filter and format that may hear the same."""
        kind = (scope.filter, self._cloud, self._whole)
        found = entry.written.get(kind)
        if found is None:
            found = block(self.event(entry), type_=entry.event.type, cursor=scope.cursor(entry.at))
            entry.written[kind] = found
        return found

    def event(self, entry: Entry) -> str:
        """As JSON."""
        event = entry.event if self._whole else withheld(entry.event)
        if self._cloud:
            return msgspec.json.encode(cloudevent(event, project=self._project)).decode()
        return entry.json if event is entry.event else msgspec.json.encode(event).decode()

    def live(self, event: VolatileEvent) -> str:
        event = event if self._whole else withheld_live(event)
        if self._cloud:
            return msgspec.json.encode(volatile_cloudevent(event, project=self._project)).decode()
        return msgspec.json.encode(event).decode()


def block(data: str, *, type_: str, cursor: str | None) -> str:
    """Without a cursor: a volatile event, behind which no reader can go on."""
    return (
        f"id: {cursor}\nevent: {type_}\ndata: {data}\n\n" if cursor else f"event: {type_}\ndata: {data}\n\n"
    )


def pieces(blocks: list[str]) -> list[str]:
    """Joined as far as `BLOCK_CHARS_MAX` allows."""
    joined: list[list[str]] = [[]]
    size = 0
    for one in blocks:
        if joined[-1] and size + len(one) > BLOCK_CHARS_MAX:
            joined.append([])
            size = 0
        joined[-1].append(one)
        size += len(one)
    return ["".join(piece) for piece in joined]
