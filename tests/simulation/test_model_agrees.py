"""The model is held to the truth: the same histories, drawn from numbers, on the model and on the real PostgreSQL functions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.simulation.agreement import PLAIN, mutated_append
from tests.simulation.histories import ModelHand, PostgresHand, compare
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.support.engines import Engines

HISTORIES = 150
IN_SQL = [name for name, mutation in MUTATIONS.items() if mutation.sql]


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[PostgresHand]:
    one, two = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        yield PostgresHand(one, two)
    finally:
        await one.close()
        await two.close()


async def test_the_model_gives_the_answers_and_leaves_the_rows_of_the_real_functions(
    postgres: PostgresHand,
) -> None:
    model = ModelHand()
    found = [d for number in range(HISTORIES) if (d := await compare(number, model, postgres)) is not None]
    assert not found, found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_SQL)
async def test_a_check_that_is_switched_off_in_sql_is_noticed(name: str, engines: Engines) -> None:
    await noticed(MUTATIONS[name], engines)


@pytest.mark.slow
@pytest.mark.parametrize("condition", PLAIN)
async def test_a_run_that_goes_the_short_way_without_being_plain_is_noticed(
    condition: str, engines: Engines
) -> None:
    await noticed(Mutation(what=condition, sql=((condition, ""),)), engines)


async def noticed(mutation: Mutation, engines: Engines) -> None:
    async with engines.database() as url:
        one, two = await asyncpg.connect(url), await asyncpg.connect(url)
        try:
            await mutated_append(one, mutation)
            postgres, model = PostgresHand(one, two), ModelHand()
            found = None
            for number in range(HISTORIES):
                found = await compare(number, model, postgres)
                if found is not None:
                    break
        finally:
            await one.close()
            await two.close()
    assert found is not None
