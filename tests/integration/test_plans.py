"""What the database plans, and how often: what is asked with every create and every append is planned once."""

from __future__ import annotations

import asyncpg

from tests.support.api import Api

ONCE = "select proname from pg_proc where pronamespace = 'vx'::regnamespace and $1 = any(proconfig)"


async def test_the_functions_that_take_arrays_with_every_request_are_planned_once(api: Api) -> None:
    """A plan for the very array looks cheaper to the planner, which makes it anew each time."""
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        rows = await connection.fetch(ONCE, "plan_cache_mode=force_generic_plan")
    finally:
        await connection.close()
    assert {row["proname"] for row in rows} >= {"create_calls", "append", "append_any", "append_control"}
