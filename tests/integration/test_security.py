"""Row-level security with the application's own filters off, and who may do what to which table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from regions.wire import ids as wire
from tests.support.api import Api, Project
from tests.support.fleet import three_regions

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "grants.md"
ROLES = ["vx_owner", "vx_api", "vx_keys", "vx_append", "vx_worker", "vx_admin"]
OWNED = (
    "select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'project_id' \
where c.relnamespace = 'vx'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1"
)
TABLES = "select relname from pg_class where relnamespace = 'vx'::regnamespace and relkind in ('r', 'p') \
and not relispartition order by 1"
PRIVILEGES = (
    "select string_agg(p, ', ' order by p) from unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p \
where has_table_privilege($1, 'vx.' || $2, p)"
)
FUNCTIONS = "select p.oid::regprocedure::text as name, p.prosecdef as definer from pg_proc p \
where p.pronamespace = 'vx'::regnamespace order by 1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def superuser(api: Api) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(api.settings.database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(api: Api) -> tuple[UUID, UUID]:
    """Two projects, each with rows in every table that a project can fill."""
    await three_regions(api)
    made = []
    for _ in range(2):
        project: Project = await api.project()
        await project.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
        created = await project.client.post(
            "/v1/calls",
            json={"agent": {"url": "ws://127.0.0.1:9/"}},
            headers={"Idempotency-Key": str(uuid4())},
        )
        assert created.status_code == 201, created.text
        await project.client.post(f"/v1/calls/{created.json()['id']}/end")
        made.append(wire.decode(wire.PROJECT, project.id))
    first, second = made
    assert first is not None
    assert second is not None
    return first, second


async def visible(
    connection: asyncpg.Connection[Any], role: str, project: UUID | None
) -> dict[str, set[UUID]]:
    """Whose rows the role sees in each table that has a project, with nothing but the database in between."""
    tables = [row["relname"] for row in await connection.fetch(OWNED)]
    found = {}
    async with connection.transaction():
        await connection.execute(f"set local role {role}")
        if project is not None:
            await connection.execute("select set_config('vx.project', $1, true)", str(project))
        for table in tables:
            try:
                async with connection.transaction():
                    rows = await connection.fetch(f"select distinct project_id from vx.{table}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            found[table] = {row["project_id"] for row in rows}
    return found


async def as_project(
    connection: asyncpg.Connection[Any], project: UUID, statement: str, *values: object
) -> str:
    async with connection.transaction():
        await connection.execute("set local role vx_api")
        await connection.execute("select set_config('vx.project', $1, true)", str(project))
        done: str = await connection.execute(statement, *values)
        return done


async def test_a_project_sees_its_own_rows_and_no_others(
    superuser: asyncpg.Connection[Any], two: tuple[UUID, UUID]
) -> None:
    for project in two:
        seen = await visible(superuser, "vx_api", project)
        assert {"calls", "events", "webhooks", "deliveries", "api_keys", "content_keys"} <= set(seen)
        assert all(owners <= {project} for owners in seen.values()), seen
        assert all(
            seen[table] == {project} for table in ("calls", "events", "webhooks", "deliveries", "api_keys")
        )


async def test_without_a_project_nothing_is_seen(
    superuser: asyncpg.Connection[Any], two: tuple[UUID, UUID]
) -> None:
    seen = await visible(superuser, "vx_api", None)
    assert seen
    assert not any(seen.values()), seen


WRITTEN = """
select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''
"""


@pytest.mark.parametrize("table", ["calls", "events", "webhooks", "deliveries", "api_keys", "idempotency"])
async def test_a_row_cannot_be_written_into_another_project(
    superuser: asyncpg.Connection[Any], two: tuple[UUID, UUID], table: str
) -> None:
    mine, other = two
    copied = await superuser.fetchval(
        f"select to_jsonb(t) from vx.{table} t where project_id = $1 limit 1", other
    )
    assert copied is not None
    written = ", ".join(r["attname"] for r in await superuser.fetch(WRITTEN, f"vx.{table}"))
    insert = (
        f"insert into vx.{table} ({written})"
        f" select {written} from jsonb_populate_record(null::vx.{table}, $1::jsonb)"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await as_project(superuser, mine, insert, copied)


async def test_another_projects_rows_cannot_be_changed(
    superuser: asyncpg.Connection[Any], two: tuple[UUID, UUID]
) -> None:
    mine, other = two
    touched = await as_project(
        superuser, mine, "update vx.webhooks set enabled = false where project_id = $1", other
    )
    assert touched == "UPDATE 0"


async def test_partitions_are_no_way_around(
    superuser: asyncpg.Connection[Any], two: tuple[UUID, UUID]
) -> None:
    parts = await superuser.fetch(
        "select relname from pg_class where relnamespace = 'vx'::regnamespace and relispartition and relkind = 'r'"
    )
    assert parts
    for role in ROLES[1:]:
        for part in parts:
            assert await superuser.fetchval(PRIVILEGES, role, part["relname"]) is None, (
                role,
                part["relname"],
            )


async def test_row_security_is_forced_wherever_a_project_owns_rows(
    superuser: asyncpg.Connection[Any],
) -> None:
    open_tables = await superuser.fetch(
        """select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'project_id'
            where c.relnamespace = 'vx'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
              and not (c.relrowsecurity and c.relforcerowsecurity)"""
    )
    assert not [row["relname"] for row in open_tables]


async def test_no_role_can_log_in_or_stands_above_the_rules(superuser: asyncpg.Connection[Any]) -> None:
    rows = await superuser.fetch(
        "select rolname from pg_roles where rolname = any($1) and (rolcanlogin or rolsuper or rolbypassrls)",
        ROLES,
    )
    assert not rows


async def test_the_grants_are_those_of_the_page(superuser: asyncpg.Connection[Any]) -> None:
    """The page is what a reviewer reads; it says what the database says, to the letter."""
    lines = ["| table | " + " | ".join(f"`{r}`" for r in ROLES[1:]) + " |", "|---" * len(ROLES) + "|"]
    for row in await superuser.fetch(TABLES):
        cells = [await superuser.fetchval(PRIVILEGES, role, row["relname"]) or "" for role in ROLES[1:]]
        lines.append(f"| `{row['relname']}` | " + " | ".join(cells) + " |")
    lines += ["", "| function | runs as | may be executed by |", "|---|---|---|"]
    for row in await superuser.fetch(FUNCTIONS):
        may = [
            r
            for r in ROLES[1:]
            if await superuser.fetchval("select has_function_privilege($1, $2, 'execute')", r, row["name"])
        ]
        lines.append(
            f"| `{row['name']}` | {'owner' if row['definer'] else 'caller'} | {', '.join(f'`{r}`' for r in may)} |"
        )
    public = [
        row["name"]
        for row in await superuser.fetch(FUNCTIONS)
        if await superuser.fetchval("select has_function_privilege('public', $1, 'execute')", row["name"])
    ]
    print("\n".join(lines))
    assert public == []
    page = PAGE.read_text() if PAGE.exists() else ""
    assert "\n".join(lines) in page, "put the tables printed above into docs/reference/grants.md"
