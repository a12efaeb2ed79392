"""How far the memory of each region that may serve a call is behind the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.calls.shapes import TailView
from app.calls.store import StoredCall
from app.clock import at_ms, rfc3339
from regions.wire.snapshot import TailHead

if TYPE_CHECKING:
    from app.control import Control

SELECT_AGES = """
select seq, extract(epoch from clock_timestamp() - stored_at)::float8 as age_s
  from vx.events where call_id = $1 and seq = any($2::integer[])
"""


async def tail_views(control: Control, call: StoredCall) -> list[TailView]:
    """The owner's region first. Empty for a call that has ended: no region may serve it any more."""
    heads = await control.tails.heads(call.id, call.grant_edges, call.epoch)
    missing = {name: _seq(head) + 1 for name, head in heads.items() if not isinstance(head, Exception)}
    async with control.db.project_driver(call.project_id) as connection:
        rows = await connection.fetch(SELECT_AGES, call.id, sorted(set(missing.values())))
    age_s = {row["seq"]: row["age_s"] for row in rows}
    views = []
    for name, head in heads.items():
        away = isinstance(head, Exception)
        behind = max(0, call.seq - _seq(head)) if not isinstance(head, Exception) else None
        views.append(
            TailView(
                region=name,
                role="owner" if name == call.region else "standby",
                reachable=not away,
                seq=head.seq if isinstance(head, TailHead) else None,
                behind=behind,
                lag_s=round(age_s.get(missing[name], 0.0), 3) if behind else (None if away else 0.0),
                written_at=rfc3339(at_ms(head.at_ms)) if isinstance(head, TailHead) else None,
            )
        )
    return sorted(views, key=lambda v: (v.role, v.region))


def _seq(head: TailHead | Exception | None) -> int:
    return head.seq if isinstance(head, TailHead) else 0
