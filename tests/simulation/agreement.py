"""Runs histories on a real PostgreSQL beside the model, as it is and with single checks switched off in the append function."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from tests.simulation.histories import Disagreement, ModelHand, PostgresHand, compare
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.support.engines import Engines

APPEND_SQL = Path(__file__).parents[2] / "migrations" / "sql" / "0001" / "5_append.sql"
BEGINS, ENDS = "create function vx.append(", "end $$;"


async def mutated_append(connection: asyncpg.Connection, mutation: Mutation) -> None:
    """Puts the append function without one of its checks in the place of the real one."""
    text = APPEND_SQL.read_text()
    function = text[text.index(BEGINS) :]
    function = function[: function.index(ENDS) + len(ENDS)]
    for before, after in mutation.sql:
        if before not in function:
            raise LookupError(f"the append function has no such text any more: {before}")
        function = function.replace(before, after)
    await connection.execute("set role vx_owner")
    await connection.execute(function.replace("create function", "create or replace function", 1))
    await connection.execute("reset role")


async def agree(engines: Engines, histories: int) -> Disagreement | None:
    """The first history on which the two differ."""
    async with engines.database() as url:
        return await _first(url, None, histories)


async def noticed(engines: Engines, name: str, histories: int) -> Disagreement | None:
    """The first history that tells the real function from one without a check."""
    async with engines.database() as url:
        return await _first(url, MUTATIONS[name], histories)


async def _first(url: str, mutation: Mutation | None, histories: int) -> Disagreement | None:
    one, two = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        if mutation is not None:
            await mutated_append(one, mutation)
        model, postgres = ModelHand(), PostgresHand(one, two)
        for number in range(histories):
            found = await compare(number, model, postgres)
            if found is not None:
                return found
        return None
    finally:
        await one.close()
        await two.close()
