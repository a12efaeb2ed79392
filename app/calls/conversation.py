"""The conversation of a call, folded from its durable events. A reader that demands a sequence number never gets less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from app.calls.shapes import Conversation, TurnView
from app.calls.store import StoredCall
from app.clock import at_ms, rfc3339
from app.errors import Conflict
from app.log.rows import event_data
from regions.wire import ids
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.snapshot import Turn

if TYPE_CHECKING:
    from app.control import Control

EVENTS_MAX = 5_000

SELECT_TURNS = """
select * from (
  select seq, id, type, at, data, content, content_key from vx.events
   where call_id = $1 and type = any($2::text[]) order by seq desc limit $3
) newest order by seq
"""


async def read_conversation(control: Control, call: StoredCall, *, min_seq: int, limit: int) -> Conversation:
    if call.seq < min_seq:
        raise Conflict(
            f"The call's log stands at {call.seq}.", code="not_yet", fix="Ask again shortly.", retry_after_s=1
        )
    async with control.db.project_driver(call.project_id) as connection:
        rows = await connection.fetch(SELECT_TURNS, call.id, list(FOLDED_TYPES), EVENTS_MAX)
    turns: list[Turn] = []
    for row in rows:
        data = await event_data(control.vault, row)
        if isinstance(data, msgspec.Raw):
            fold(turns, row["type"], bytes(data), int(row["at"].timestamp() * 1000))
    return Conversation(
        call_id=ids.encode(ids.CALL, call.id), seq=call.seq, turns=[_view(t) for t in turns[-limit:]]
    )


def _view(turn: Turn) -> TurnView:
    return TurnView(
        role=turn.role,
        at=rfc3339(at_ms(turn.at_ms)),
        text=turn.text,
        interrupted=turn.interrupted,
        id=turn.id,
        name=turn.name,
        arguments=turn.arguments,
        result=turn.result,
    )
