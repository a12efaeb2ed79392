"""Events with types: `typed` turns one, as streams, lists and webhooks give it, into structs. Pure.

What a later release adds is ignored, a type that is not known keeps its data as it is: reading never fails because the service
has learnt something.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voxplane.event_data import EVENT_DATA, Erased, Withheld


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`data`: the struct of its type in `voxplane.event_data`; `Erased` or `Withheld`; or a dict, where it is none that
    this release knows. A volatile event has neither `id` nor `seq`."""

    type: str
    call_id: str
    epoch: int
    region: str | None
    timestamp: str
    data: Any
    id: str | None = None
    seq: int | None = None


def typed(event: dict[str, Any]) -> Event:
    """Raises `msgspec.ValidationError` for what is no event."""
    found = msgspec.convert(event, Event)
    struct = EVENT_DATA.get(found.type)
    data = found.data
    if isinstance(data, dict) and data.get("erased") is True:
        struct = Erased
    elif isinstance(data, dict) and data.get("withheld") is True:
        struct = Withheld
    if struct is None:
        return found
    try:
        return msgspec.structs.replace(found, data=msgspec.convert(data, struct))
    except msgspec.ValidationError:
        return found
