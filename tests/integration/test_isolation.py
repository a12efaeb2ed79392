"""Every route of the OpenAPI document with every role: what it may ask for, and that nothing of another project is there for it.

Once as the application is, and once with its own filters off: then row-level security alone stands between two projects.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app.main import create_app
from app.permissions import OTHER, routes
from app.projects.roles import ROLE_SCOPES
from app.settings import Settings
from regions.wire import ids
from tests.support.api import Api, serving
from tests.support.fleet import three_regions
from tests.support.walk import OWNED, World, belongings, filters_off, furnish, nowhere, operations

ROUTES = {r.operation: r for r in routes(create_app(Settings(database_url="postgresql://")))}
OWN = [r for r in ROUTES.values() if r.kind == "key" and r.method != "WS"]
NAMES_ONE = [r for r in OWN if "{" in r.path] + [ROUTES["listEvents"], ROUTES["streamEvents"]]


@dataclasses.dataclass(frozen=True, slots=True)
class Two:
    """`keys`: of each role, of the first."""

    mine: World
    theirs: World
    keys: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def superuser(api: Api) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(api.settings.database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(api: Api) -> Two:
    await three_regions(api)
    mine, theirs = await furnish(api), await furnish(api)
    keys = {}
    for role in ROLE_SCOPES:
        made = await mine.project.client.post("/v1/keys", json={"name": role, "role": role})
        keys[role] = made.json()["secret"]
    await api.control.auth.touch()
    return Two(mine, theirs, keys)


async def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = (await api.operator.get("/openapi.json")).json()
    return found


def said(answer: httpx.Response) -> tuple[int, str]:
    """The answer without what differs by its nature: its id, and the words of the request."""
    whole = answer.text if answer.is_stream_consumed else "a stream"
    text = re.sub(r'"request_id":"\w+"', "", whole)
    return answer.status_code, re.sub(
        r"\b(call|era|whk|rpl|key|per|person|prj)_\w+|\b(CA|AC)\w+|lookup[-\w]*", "ID", text
    )


async def test_every_route_of_the_document_is_walked_and_no_other_is_there(api: Api) -> None:
    asked = set(operations(await document(api)))
    assert asked == {r.operation for r in ROUTES.values() if r.method != "WS"}
    open_ = {r.operation for r in ROUTES.values() if r.kind == "other"}
    assert open_ == set(OTHER), "say in app/permissions.py whom a route without a key is for"
    without = [r.operation for r in OWN if not r.scopes]
    assert not without, f"{without} require no permission"


async def test_without_a_credential_nothing_of_anybodys_is_answered(api: Api, two: Two) -> None:
    for id_, operation in operations(await document(api)).items():
        if ROUTES[id_].kind != "other":
            known = two.mine.ids | {
                "region_id": "us-east",
                "edge_id": "x",
                "drill_id": "x",
                "project_id": "x",
            }
            answer = await operation.ask(api, None, known)
            assert answer.status_code == 401, (id_, answer.text)


async def test_keys_and_operators_have_their_own_sides(api: Api, two: Two) -> None:
    operator = str(api.operator.headers["authorization"]).removeprefix("Bearer ")
    known = two.mine.ids | {"region_id": "us-east", "edge_id": "x", "drill_id": "x"}
    for id_, operation in operations(await document(api)).items():
        if ROUTES[id_].kind == "operator":
            answer = await operation.ask(api, two.keys["owner"], known | {"project_id": two.mine.project.id})
            assert answer.status_code == 403, (id_, answer.text)
        elif ROUTES[id_].kind == "key" and not operation.basic:
            assert (await operation.ask(api, operator, known)).status_code == 403, id_


@pytest.mark.parametrize("role", ROLE_SCOPES)
async def test_a_role_is_refused_what_it_lacks_and_nothing_else(api: Api, two: Two, role: str) -> None:
    """Routes that name nothing are asked; of the others the ids are nobody's, so that none of them does anything."""
    asks = operations(await document(api))
    for route in OWN:
        answer = await asks[route.operation].ask(api, two.keys[role], nowhere(two.mine))
        if role not in route.roles():
            assert answer.status_code == 403, (route, answer.text)
        elif "{" in route.path or asks[route.operation].names or route in NAMES_ONE:
            assert answer.status_code == 404, (route, answer.text)
        else:
            assert answer.status_code < 300 or answer.status_code in (409, 428), (route, answer.text)


async def foreign(api: Api, two: Two, role: str) -> list[Any]:
    """What was answered otherwise than 404 for ids of another project, or otherwise than for ids that are nobody's; 403 where the
    role lacks the permission, whatever it names."""
    asks = operations(await document(api))
    wrong = []
    for route in NAMES_ONE:
        operation = asks[route.operation]
        theirs, nobodys = two.theirs.ids | {"account": two.mine.ids["account"]}, nowhere(two.mine)
        expected = 404 if role in route.roles() else 403
        # where several are named, also all but the last one's own
        own = {name: two.mine.ids[name] for name in operation.names[:-1]}
        for kept in ({}, own) if own else ({},):
            answer = await operation.ask(api, two.keys[role], theirs | kept)
            unknown = await operation.ask(api, two.keys[role], nobodys | kept)
            if said(answer) != said(unknown) or (answer.status_code != expected and not kept):
                wrong.append((route, said(answer), said(unknown)))
    return wrong


@pytest.mark.parametrize("role", ROLE_SCOPES)
async def test_what_is_anothers_is_as_if_it_were_not(
    api: Api, two: Two, superuser: asyncpg.Connection[Any], role: str
) -> None:
    before = await belongings(superuser, two.theirs.project.id)
    assert await foreign(api, two, role) == []
    assert await belongings(superuser, two.theirs.project.id) == before


async def test_lists_show_nothing_of_anothers(api: Api, two: Two) -> None:
    """Every id of the other project, in all that a list of one's own answers."""
    await shows_nothing(api, two)


async def shows_nothing(api: Api, two: Two) -> None:
    theirs = set(two.theirs.ids.values()) | {two.theirs.project.id}
    asks = operations(await document(api))
    for route in OWN:
        if route.method == "GET" and "{" not in route.path and route.operation != "streamEvents":
            operation = dataclasses.replace(asks[route.operation])
            client = await api.client(two.keys["owner"])
            text = (await client.get(operation.path)).text
            assert not [id_ for id_ in theirs if id_ in text], route


async def test_row_level_security_holds_alone(
    api: Api, two: Two, superuser: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await belongings(superuser, two.theirs.project.id)
    async with (
        filters_off(superuser, monkeypatch) as changed,
        serving(dataclasses.replace(api.settings, port=0, deliveries=False)) as bare,
    ):
        for role in ("owner", "developer", "operator"):
            assert await foreign(bare, two, role) == []
        await shows_nothing(bare, two)
        assert len(changed) > 10
    assert await belongings(superuser, two.theirs.project.id) == before


async def test_with_row_level_security_off_too_the_walk_sees_it(
    api: Api, two: Two, superuser: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the two tests above would look like if they were broken: else they prove nothing."""
    await superuser.execute("create policy nobody_cares on vx.calls for select to vx_api using (true)")
    await superuser.execute("create policy nobody_cares on vx.webhooks for select to vx_api using (true)")
    try:
        assert (
            await foreign(api, two, "viewer") != []
        )  # what names a call by its id alone stands on row-level security
        with pytest.raises(AssertionError):
            async with (
                filters_off(superuser, monkeypatch),
                serving(dataclasses.replace(api.settings, port=0, deliveries=False)) as bare,
            ):
                await shows_nothing(bare, two)
    finally:
        await superuser.execute("drop policy nobody_cares on vx.calls")
        await superuser.execute("drop policy nobody_cares on vx.webhooks")


PRIVILEGE = "select has_table_privilege('vx_api', 'vx.' || $1, $2)"
CHANGEABLE = """
select a.attname from pg_attribute a where a.attrelid = ('vx.' || $1)::regclass and a.attnum > 0 and not a.attisdropped
   and a.attgenerated = '' and a.attidentity = '' and has_column_privilege('vx_api', a.attrelid, a.attnum, 'update') limit 1
"""


async def test_no_statement_without_a_filter_reaches_anothers_rows(
    two: Two, superuser: asyncpg.Connection[Any]
) -> None:
    """Every table, as vx_api with the first project named: all rows are asked for, changed and deleted, as far as it may."""
    mine = ids.decode(ids.PROJECT, two.mine.project.id)
    tables = {row["relname"]: "project_id" for row in await superuser.fetch(OWNED)} | {"projects": "id"}
    tried: dict[str, int] = {"select": 0, "update": 0, "delete": 0}
    for table, owner in tables.items():
        column = await superuser.fetchval(CHANGEABLE, table)
        statements = {
            "select": f"select distinct {owner} as owner from vx.{table}",
            "update": f"update vx.{table} set {column} = {column} returning {owner} as owner"
            if column
            else None,
            "delete": f"delete from vx.{table} returning {owner} as owner",
        }
        for verb, statement in statements.items():
            if statement is None or (
                verb != "update" and not await superuser.fetchval(PRIVILEGE, table, verb)
            ):
                continue
            under_way = superuser.transaction()
            await under_way.start()
            try:
                await superuser.execute("set local role vx_api")
                await superuser.execute("select set_config('vx.project', $1, true)", str(mine))
                reached = {row["owner"] for row in await superuser.fetch(statement)}
            finally:
                await under_way.rollback()
            assert reached <= {mine}, (table, verb)
            tried[verb] += 1
    assert min(tried.values()) >= 1, json.dumps(tried)
    assert tried["select"] > 10, json.dumps(tried)
