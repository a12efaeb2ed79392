"""Every route of the OpenAPI document as a request: what a walk over all of them sends, and what may be in its way.

A route is walked without anything being added here, unless a parameter of its path is new (`World.ids`) or no body can be
made up from its schema (`BODIES`): then the walk says so and fails.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.connection import Connection
from app.ids import new_id
from regions.wire import ids
from regions.wire.sids import account_sid, call_sid
from tests.support.api import Api, Project

FORM = "application/x-www-form-urlencoded"
AGENT = {"agent": {"url": "ws://127.0.0.1:9/"}}
BODIES: dict[str, Any] = {
    "createCall": AGENT,
    "previewPlacement": AGENT,
    "createWebhook": {"url": "http://127.0.0.1:9/"},
    "createKey": {"name": "walked", "role": "billing"},
    "writeConversation": {"type": "turn", "key": "walked", "role": "caller", "text": "hello"},
    "resendEvent": {"call_id": "{call_id}", "seq": 1},
    "recoverWebhook": {"since": "2026-01-01T00:00:00Z"},
    "setMember": {"email": "walked@example.org", "role": "viewer"},
    "setTargets": {"targets": []},
    "createErasure": {"subject": "nobody-who-called"},
    "reportProbes": {"address": "203.0.113.7", "latencies": []},
    "twilioEndCall": {"Status": "completed"},
}
QUERIES = {"listEvents": "call_id={call_id}", "streamEvents": "call_id={call_id}"}
"""Ids that are asked for beside the path."""
STREAMS = ("text/event-stream", "application/jsonl")


@dataclass(frozen=True, slots=True)
class World:
    """A project with one of everything. `ids`: by the names of the parameters in paths."""

    project: Project
    ids: dict[str, str]


async def furnish(api: Api) -> World:
    """Nothing of it changes by itself: its endpoint is off, its call has ended."""
    project = await api.project()
    client = project.client
    hook = await _made(client, "/v1/webhooks", {"url": "http://127.0.0.1:9/", "types": ["dtmf.received"]})
    call = await _made(client, "/v1/calls", AGENT)
    lookup = f"lookup-{uuid4().hex}"
    tool = {"type": "tool.called", "key": lookup, "name": "lookup", "arguments": {}}
    written = await client.post(f"/v1/calls/{call['id']}/conversation", json=tool)
    assert written.status_code == 201, written.text
    await client.post(f"/v1/calls/{call['id']}/end")
    await client.patch(f"/v1/webhooks/{hook['id']}", json={"enabled": False})
    replay = await client.post(f"/v1/webhooks/{hook['id']}/recover", json={"since": "2026-01-01T00:00:00Z"})
    key = await _made(client, "/v1/keys", {"name": "k", "role": "viewer"})
    email = f"{uuid4().hex}@example.org"
    for address in (email, BODIES["setMember"]["email"]):
        await api.operator.post("/admin/v1/people", json={"email": address})
    erasure = await client.post("/v1/erasures", json=BODIES["createErasure"])
    assert erasure.status_code == 202, erasure.text
    member = await client.put("/v1/members", json={"email": email, "role": "viewer"})
    assert member.status_code == 200, member.text
    while (await client.get(f"/v1/erasures/{erasure.json()['id']}")).json()["state"] != "done":
        await asyncio.sleep(0.05)
    return World(
        project,
        {
            "call_id": call["id"],
            "webhook_id": hook["id"],
            "replay_id": replay.json().get("id", ids.encode(ids.REPLAY, new_id())),
            "key_id": key["id"],
            "key": lookup,
            "erasure_id": erasure.json()["id"],
            "person_id": member.json()["id"],
            "account": account_sid(project.id),
            "call_sid": call_sid(call["id"], 1),
        },
    )


async def _made(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def nowhere(like: World) -> dict[str, str]:
    """Ids of the same form that nobody ever had. The account stays: it is whose key asks."""
    made = {name: _other(value) for name, value in like.ids.items()}
    return made | {"account": like.ids["account"]}


def _other(id_: str) -> str:
    prefix, under, _ = id_.partition("_")
    if not under:
        return call_sid(ids.encode(ids.CALL, new_id()), 1) if id_.startswith("CA") else f"{id_}-other"
    return ids.encode(prefix, new_id())


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    body: Any
    form: bool
    basic: bool

    @property
    def names(self) -> list[str]:
        """Of the ids that it is asked with."""
        return re.findall(r"\{(\w+)\}", self.path + QUERIES.get(self.id, "") + json.dumps(self.body))

    async def ask(self, api: Api, secret: str | None, with_: dict[str, str]) -> httpx.Response:
        """Of a stream only how it begins."""
        missing = set(self.names) - set(with_)
        assert not missing, (
            f"{self.id}: tests/support/walk.py knows no {missing}: add it to World.ids, of each project"
        )
        query = QUERIES.get(self.id, "")
        url = (self.path + (f"?{query}" if query and "call_id" in with_ else "")).format(**with_)
        headers = {"idempotency-key": uuid4().hex} if self.method == "POST" else {}
        if secret is not None:
            basic = base64.b64encode(f"{with_['account']}:{secret}".encode()).decode() if self.basic else ""
            headers["authorization"] = f"Basic {basic}" if self.basic else f"Bearer {secret}"
        body = _filled(self.body, with_)
        sent: dict[str, Any] = {} if body is None else {"data" if self.form else "json": body}
        async with (
            httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=20) as client,
            client.stream(self.method, url, headers=headers, **sent) as answer,
        ):
            if not answer.headers.get("content-type", "").startswith(STREAMS):
                await answer.aread()
            return answer


def _filled(value: Any, with_: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, with_) for k, v in value.items()}
    found = re.fullmatch(r"\{(\w+)\}", value) if isinstance(value, str) else None
    return with_[found[1]] if found else value


def operations(document: dict[str, Any]) -> dict[str, Operation]:
    found = {}
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            content = said.get("requestBody", {}).get("content", {})
            id_ = said["operationId"]
            body = BODIES.get(id_)
            if body is None and content:
                body = _made_up(next(iter(content.values()))["schema"], document)
            basic = {"basic": []} in said.get("security", [])
            found[id_] = Operation(id_, method.upper(), path, body, FORM in content, basic)
    return found


def _made_up(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    """The least that fits, as far as a schema says it."""
    if "$ref" in schema:
        return _made_up(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return _made_up(next((s for s in schema[several] if s.get("type") != "null"), {}), document)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _made_up(properties[name], document) for name in schema.get("required", [])}
    if kind == "array":
        return [_made_up(schema["items"], document)] * schema.get("minItems", 0)
    if kind == "string":
        form = {"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01"}
        return form.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 1)))
    return {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}.get(
        str(kind)
    )


# ------------------------------------------------------------------------- what a project has, and what stands before it

OWNED = """
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'project_id' and not a.attisdropped
 where c.relnamespace = 'vx'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1
"""
RESTLESS = {"requests", "idempotency", "audit_anchors"}
"""Written for what a project asks itself (the first is its log of that), or each minute."""


async def belongings(connection: asyncpg.Connection[Any], project: str) -> dict[str, str]:
    """A hash of all rows of each table that are the project's: what nobody else has changed stays the same."""
    found = {}
    for row in await connection.fetch(OWNED):
        table = row["relname"]
        if table not in RESTLESS:
            found[table] = await connection.fetchval(
                f"select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from vx.{table} t where project_id = $1",
                ids.decode(ids.PROJECT, project),
            )
    return found


FILTER = re.compile(r"((?:\w+\.)*project_id) = (\$\d+(?:::\w+)?|p_project)\b")
INVOKER_FUNCTIONS = """
select pg_get_functiondef(p.oid) as text from pg_proc p
 where p.pronamespace = 'vx'::regnamespace and not p.prosecdef and p.prokind = 'f'
   and has_function_privilege('vx_api', p.oid, 'execute')
"""


@asynccontextmanager
async def filters_off(connection: asyncpg.Connection[Any], monkeypatch: Any) -> AsyncIterator[list[str]]:
    """The application's own `project_id = …` is true of every row, in what connections that are opened from now on send as vx_api
    and in the functions that run as it: what is left is row-level security. Gives the statements that were changed."""
    changed: list[str] = []
    send = asyncpg.Connection._get_statement

    async def unfiltered(self: Any, query: str, *more: Any, **options: Any) -> Any:
        if self._params.server_settings.get("role") == "vx_api" and FILTER.search(query):
            changed.append(query)
            query = FILTER.sub(r"(\1 = \2 or true)", query)
        return await send(self, query, *more, **options)

    functions = [row["text"] for row in await connection.fetch(INVOKER_FUNCTIONS)]
    filtering = [text for text in functions if FILTER.search(text)]
    for text in filtering:
        await connection.execute(FILTER.sub(r"(\1 = \2 or true)", text))
        changed.append(text)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_get_statement", unfiltered, raising=False)
            yield changed
    finally:
        for text in filtering:
            await connection.execute(text)
