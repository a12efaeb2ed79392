"""Runs histories on a real PostgreSQL beside the model, as it is and with single checks switched off in the append function."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from tests.simulation.histories import Disagreement, ModelHand, PostgresHand, compare
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.support.engines import Engines

APPEND_SQL = Path(__file__).parents[2] / "migrations" / "sql" / "0001" / "5_append.sql"
BEGIN, END = "create function vx.append", "end $$;"
FUNCTIONS = (f"{BEGIN}_any(", f"{BEGIN}(")
"""What appends in any case, and what appends the plain runs and leaves the others to it."""


async def mutated_append(connection: asyncpg.Connection, mutation: Mutation) -> None:
    """Puts the append function without one of its checks in the place of the real one."""
    text = APPEND_SQL.read_text()
    functions = ""
    for name in FUNCTIONS:
        rest = text[text.index(name) :]
        functions += rest[: rest.index(END) + len(END)] + "\n"
    for before, after in mutation.sql:
        if before not in functions:
            raise LookupError(f"the append function has no such text any more: {before}")
        functions = functions.replace(before, after)
    await connection.execute("set role vx_owner")
    await connection.execute(functions.replace("create function", "create or replace function"))
    await connection.execute("reset role")


PLAIN = (
    "min(g.epoch) = max(g.epoch) and ",
    "g.type <> 'events.lost' and ",
    " and not starts_with(g.type, 'call.')",
    "r.epoch = c.epoch and ",
    " and c.owned",
    " and r.n_first = c.n + 1",
)
"""Conditions under which a run goes the short way; without any one of them it would go wrong. (The others have tests of their
own in tests/integration/test_append.)"""


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
