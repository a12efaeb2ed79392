"""What is written down (`app.audit`) of those who read what was said in a feed, before it is given out.

A page is noted where there is content in it; a stream once, when it is opened, where there may be. Who may not hear what was said
is given none (`app.log.withholding`), and is not noted.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.control import Control
from app.log.filters import EventFilter
from app.log.withholding import may_hear
from app.projects.auth import Principal
from regions.wire.events import EVENT_TYPES, PublicEvent


def carries_content(wanted: EventFilter) -> bool:
    """Whether such a reader may be given what people said."""
    return wanted.types is None or any(EVENT_TYPES[t].content for t in wanted.types | wanted.live)


async def note_page(
    control: Control, principal: Principal, events: Sequence[PublicEvent], call_id: str | None
) -> None:
    """Raises what the driver raises: then the page is not given out."""
    said = sum(EVENT_TYPES[event.type].content for event in events if event.type in EVENT_TYPES)
    if said and may_hear(principal):
        await control.audit.read(principal.project_id, "events.read", call_id or "", {"events": said})


async def note_stream(
    control: Control, principal: Principal, wanted: EventFilter, call_id: str | None
) -> None:
    if may_hear(principal) and carries_content(wanted):
        types = wanted.types_list
        await control.audit.read(principal.project_id, "events.streamed", call_id or "", {"types": types})
