"""What of an event is kept from readers who may see what happens, and not what was said. Pure.

Decides who may hear it (`conversation:read`, beside the `events:read` that every feed asks for), and what the others are given: the
event in its place, with everything but its data. A type that is not known here counts as content. Webhooks are the project's own
endpoints, and always get the whole.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.projects.auth import Principal
from regions.wire.events import EVENT_TYPES, FINAL_TYPE, PublicEvent, VolatileEvent

HEARS = "conversation:read"
WITHHELD: dict[str, Any] = {"withheld": True}
_RAW = msgspec.Raw(msgspec.json.encode(WITHHELD))


def may_hear(principal: Principal) -> bool:
    return HEARS in principal.scopes


def is_content(type_: str) -> bool:
    kind = EVENT_TYPES.get(type_)
    return kind is None or kind.content


def withheld(event: PublicEvent) -> PublicEvent:
    if is_content(event.type):
        return msgspec.structs.replace(event, data=WITHHELD)
    if event.type == FINAL_TYPE:
        # an edge of an older release writes there, in the backend's own words, why it has hung up
        data = msgspec.json.decode(event.data) if isinstance(event.data, msgspec.Raw) else event.data
        return msgspec.structs.replace(event, data={n: v for n, v in data.items() if n != "reason"})
    return event


def withheld_live(event: VolatileEvent) -> VolatileEvent:
    return msgspec.structs.replace(event, data=_RAW) if is_content(event.type) else event


def shown(principal: Principal, events: list[PublicEvent]) -> list[PublicEvent]:
    """As this reader may see them."""
    return events if may_hear(principal) else [withheld(event) for event in events]
