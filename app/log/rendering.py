"""How an event is written for a reader: our own envelope or a CloudEvent. Pure."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec

from app.log.cloudevents import cloudevent, volatile_cloudevent
from app.log.fan import Entry
from regions.wire import ids
from regions.wire.events import VolatileEvent

Format = Literal["voxplane", "cloudevents"]


class Rendering:
    def __init__(self, format_: Format, project_id: UUID) -> None:
        self._cloud = format_ == "cloudevents"
        self._project = ids.encode(ids.PROJECT, project_id)

    def event(self, entry: Entry) -> str:
        """As JSON."""
        if self._cloud:
            return msgspec.json.encode(cloudevent(entry.event, project=self._project)).decode()
        return entry.json

    def live(self, event: VolatileEvent) -> str:
        if self._cloud:
            return msgspec.json.encode(volatile_cloudevent(event, project=self._project)).decode()
        return msgspec.json.encode(event).decode()
