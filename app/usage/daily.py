"""Usage day by day, for a drawing: the sums that the report has, apart by day and by one thing more."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from app.db import Database
from app.usage.shapes import GroupBy

NAMES: dict[GroupBy, str] = {
    "day": "'all'",
    "region": "region",
    "transport": "transport",
    "side": "'all'",
    "region_pair": "region || ' → ' || coalesce(nullif(caller_to, ''), '?')",
}
COUNTED = (
    "calls", "caller_ms", "agent_ms", "caller_in_bytes", "caller_out_bytes", "agent_in_bytes", "agent_out_bytes", "turns",
    "failovers",
)  # fmt: skip
SELECT = {
    group: f"select day, {name} as name, {', '.join(f'sum({c}) as {c}' for c in COUNTED)} from vx.usage_days"
    " where project_id = $1 and day >= $2 and day < $3 group by 1, 2"
    for group, name in NAMES.items()
}


async def daily(
    db: Database, project_id: UUID, first: date, last: date, group_by: GroupBy, measure: str
) -> dict[date, dict[str, float]]:
    """By day and name. `measure`: ``minutes`` (of callers), ``megabytes`` (that came and went), or one of what is counted."""
    async with db.project_driver(project_id) as connection:
        rows = await connection.fetch(SELECT[group_by], project_id, first, last)
    found: dict[date, dict[str, float]] = {}
    for row in rows:
        column = found.setdefault(row["day"], {})
        for name, value in _named(row, group_by, measure):
            column[name] = column.get(name, 0.0) + value
    return found


def _named(row: Any, group_by: GroupBy, measure: str) -> list[tuple[str, float]]:
    sides = ("caller", "agent")
    if group_by == "side" and measure in ("minutes", "megabytes"):
        return [(side, _of_sides(row, (side,), measure)) for side in sides]
    if measure == "minutes":
        return [(row["name"], _of_sides(row, ("caller",), measure))]
    if measure == "megabytes":
        return [(row["name"], _of_sides(row, sides, measure))]
    return [(row["name"], float(row[measure]))]


def _of_sides(row: Any, sides: tuple[str, ...], measure: str) -> float:
    if measure == "minutes":
        return sum(float(row[f"{side}_ms"]) for side in sides) / 60_000
    return sum(float(row[f"{side}_{way}_bytes"]) for side in sides for way in ("in", "out")) / 1e6
