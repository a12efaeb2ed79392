"""Credentials that nobody gave out, or that are used for what they are not: each is refused with a problem, and nothing is changed.

Project keys, the operator's key, tokens of edges and of enrolments, tickets; over HTTP and where a socket is opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from app.projects.secrets import RANDOM_BYTES, make
from regions.edge.identity import Identity
from regions.wire.ticket import b64
from tests.conftest import OPERATOR_KEY
from tests.integration.test_uplink import Edge, body, enrol, register
from tests.support.api import Api, Project, another
from tests.support.fleet import add_region
from tests.support.forging import STRANGER, forged, misused, parts, token
from tests.support.walk import OWNED

REGION = "us-east"
FLEET = ("edges", "regions", "fleet_events", "used_tokens", "desired", "drains")
Ask = Callable[[str], Awaitable[httpx.Response]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    await add_region(api, REGION)
    identity = Identity(tmp_path_factory.mktemp("edge"))
    made = await register(api, await enrol(api), body(identity, name="forged-at"))
    assert made.status_code == 200, made.text
    identity.registered(made.json()["edge_id"])
    return Edge(api, identity, "forged-at", REGION)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def superuser(api: Api) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(api.settings.database_url)
    yield connection
    await connection.close()


async def state(connection: asyncpg.Connection[Any], *left_out: str) -> dict[str, str]:
    """Of all that a token could change. Left out is what the instance does meanwhile: it hears paper edges all the time, and
    signs the entries of the audit log when it comes to them."""
    found = {}
    left_out += ("audit_anchors",)
    for table in (*(r["relname"] for r in await connection.fetch(OWNED)), *FLEET):
        row = "to_jsonb(t) - 'seen_at' - 'last_used_at'"
        query = (
            f"select coalesce(string_agg(({row})::text, '|' order by ({row})::text), '') from vx.{table} t"
        )
        if table == "fleet_events":  # the detector writes others
            query += " where type = 'edge.registered'"
        if table not in left_out:
            found[table] = hashlib.sha256((await connection.fetchval(query)).encode()).hexdigest()
    return found


async def each_is_refused(
    cases: dict[str, str], ask: Ask, connection: asyncpg.Connection[Any], *statuses: int
) -> None:
    before = await state(connection, "requests", "used_tokens")
    wrong = []
    for name, made in cases.items():
        answer = await ask(made)
        problem = answer.json()
        fit = answer.status_code in statuses and problem["fix"] and problem["detail"]
        if not fit or "Traceback" in answer.text:
            wrong.append((name, answer.status_code, answer.text[:200]))
    assert wrong == []
    assert await state(connection, "requests", "used_tokens") == before


def as_registration(api: Api, edge: Edge) -> Ask:
    async def ask(made: str) -> httpx.Response:
        sent = body(edge.identity, name=edge.name, capacity_calls=99)
        found: httpx.Response = await register(api, header_safe(made), sent)
        return found

    return ask


def header_safe(text: str) -> str:
    return text.encode("ascii", "replace").decode()


async def test_no_forgery_of_an_edges_token_registers_it(
    api: Api, edge: Edge, superuser: asyncpg.Connection[Any]
) -> None:
    cases = forged(edge.identity.token(REGION), edge.identity.key.public_key())
    assert len(cases) >= 50
    await each_is_refused(cases, as_registration(api, edge), superuser, 401)


async def test_no_forgery_of_an_enrolment_token_lets_anybody_in(
    api: Api, edge: Edge, superuser: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    newcomer = Identity(tmp_path / "newcomer")
    genuine = await enrol(api)
    kid = parts(genuine)[0]["kid"]

    async def ask(made: str) -> httpx.Response:
        found: httpx.Response = await register(api, header_safe(made), body(newcomer, name="newcomer"))
        return found

    public = api.control.keyring.public_keys[kid]
    await each_is_refused(forged(genuine, public), ask, superuser, 401)
    header, claims = parts(genuine)
    mine = newcomer.key.sign  # its own key, named as ours
    await each_is_refused({"its own": token(header, claims, mine)}, ask, superuser, 401)


async def test_what_an_edge_signs_itself_is_read_as_strictly(
    api: Api, edge: Edge, superuser: asyncpg.Connection[Any]
) -> None:
    header, claims = parts(edge.identity.token(REGION))
    sign = edge.identity.key.sign
    cases = misused(header, claims, sign, int(time.time()))
    for name, changed in {
        "another edge": {"iss": "edge_01k73zbmcbe00800000000000b"},
        "no edge": {"iss": ""},
        "iss a path": {"iss": f"../{edge.identity.edge_id}"},
        "iss a list": {"iss": [edge.identity.edge_id]},
        "iss with a blank": {"iss": edge.identity.edge_id + " "},
        "iss in capitals": {"iss": edge.identity.edge_id.upper()},
        "iss NUL": {"iss": "edge_\u0000"},
        "iss null": {"iss": None},
        "another region": {"sub": "eu-west"},
        "region in other letters": {"sub": "us-e\u0430st"},
        "region null": {"sub": None},
        "inc a number": {"inc": 7},
    }.items():
        cases[name] = token(header, claims | changed, sign)
    assert len(cases) >= 45
    await each_is_refused(cases, as_registration(api, edge), superuser, 401)


async def test_what_we_sign_is_read_for_what_it_is(
    api: Api, project: Project, edge: Edge, superuser: asyncpg.Connection[Any]
) -> None:
    """Our own signature under the wrong claims, and every kind of token and key where another is expected."""
    kid, key = api.control.keyring.signer
    header, claims = parts(await enrol(api))
    cases = misused(header, claims | {"jti": b64(os.urandom(16))}, key.sign, int(time.time()))
    for name, changed in {
        "region null": {"region": None},
        "another version": {"ver": 99},
        "ver a word": {"ver": "0"},
    }.items():
        cases[name] = token(header, claims | changed, key.sign)
    made = await project.client.post(
        "/v1/calls", json={"agent": {"url": "ws://127.0.0.1:9/"}}, headers={"Idempotency-Key": uuid4().hex}
    )
    ticket = made.json()["ticket"]
    ticket_header, ticket_claims = parts(ticket)
    cases |= {
        "a ticket": ticket,
        "a ticket called an enrolment": token(header, ticket_claims, key.sign),
        "an enrolment called a ticket": token(ticket_header, claims, key.sign),
        "an enrolment called an edge's": token(parts(edge.identity.token(REGION))[0], claims, key.sign),
        "an edge's claims signed by us": token(header, parts(edge.identity.token(REGION))[1], key.sign),
        "a project's key": project.key,
        "the operator's key": OPERATOR_KEY,
        "a kid": kid,
    }
    await each_is_refused(cases, as_registration(api, edge), superuser, 401, 403)


async def test_a_token_is_for_one_use(api: Api, edge: Edge, superuser: asyncpg.Connection[Any]) -> None:
    used = edge.identity.token(REGION)
    assert (await register(api, used, body(edge.identity, name=edge.name))).status_code == 200
    await each_is_refused({"again": used}, as_registration(api, edge), superuser, 401)


async def test_none_of_them_opens_an_uplink(
    api: Api, project: Project, edge: Edge, superuser: asyncpg.Connection[Any]
) -> None:
    genuine = edge.identity.token(REGION)
    header, claims = parts(genuine)
    cases = forged(genuine, edge.identity.key.public_key())
    cases |= misused(header, claims, edge.identity.key.sign, int(time.time()))
    cases |= {"an enrolment": await enrol(api), "a key": project.key, "the operator's key": OPERATOR_KEY}
    cases["another life"] = token(
        header, claims | {"inc": str(uuid4()), "jti": uuid4().hex}, edge.identity.key.sign
    )
    before = await state(superuser, "requests", "used_tokens")
    for name, made in cases.items():
        with pytest.raises(InvalidStatus) as refused:
            async with edge.uplink(header_safe(made)):
                pass
        over_long = len(made) > 8_000  # a header of it cannot be read
        assert refused.value.response.status_code in ((400,) if over_long else (401, 403)), name
    assert await state(superuser, "requests", "used_tokens") == before


async def test_no_forged_ticket_gets_another(
    api: Api, project: Project, edge: Edge, superuser: asyncpg.Connection[Any]
) -> None:
    calls = [
        await project.client.post(
            "/v1/calls",
            json={"agent": {"url": "ws://127.0.0.1:9/"}},
            headers={"Idempotency-Key": uuid4().hex},
        )
        for _ in range(2)
    ]
    call, other = (made.json() for made in calls)
    _, key = api.control.keyring.signer
    header, claims = parts(call["ticket"])
    now_s = int(time.time())
    cases = forged(call["ticket"], key.public_key())
    longer = (
        "for a year",
        "for ever",
        "from the future",
        "made at the end of time",
        "exp true",
        "exp a fraction",
    )
    for name, made in misused(header, claims, key.sign, now_s).items():
        if name not in longer:  # a ticket lives as long as we say, and nobody else signs one
            cases[name] = made
    cases |= {
        "another call's": other["ticket"],
        "another issuer": token(header, claims | {"iss": "somebody"}, key.sign),
        "another project": token(header, claims | {"prj": another(project.id)}, key.sign),
        "an edge's": edge.identity.token(REGION),
        "an enrolment": await enrol(api),
        "a key": project.key,
        "blank": "",
        "with a blank before it": " " + call["ticket"],
        "with a line's end": call["ticket"] + "\n",
        "unicode": call["ticket"].replace(".", "\u3002"),
    }
    assert len(cases) >= 60
    client = await api.client()

    async def ask(made: str) -> httpx.Response:
        return await client.post(f"/v1/calls/{call['id']}/ticket", json={"ticket": made})

    await each_is_refused(cases, ask, superuser, 401, 404, 422)


def keys(secret: str) -> dict[str, str]:
    """What can be made of a key by who does not know it whole, and what looks like one."""
    random = os.urandom(RANDOM_BYTES)
    mode = "live" if secret.startswith("vx_test_") else "test"
    return {
        "one letter off": secret[:20] + ("a" if secret[20] != "a" else "b") + secret[21:],
        "the last letter off": secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        "cut": secret[:-1],
        "longer": secret + "0",
        "twice": secret + secret,
        "in capitals": secret.upper(),
        "in small letters": secret.lower(),
        "of the other mode": secret.replace(secret[:8], f"vx_{mode}_"),
        "of a cell that is not there": make("test", 4095, random),
        "never given out": make("test", 0, random),
        "of zeros": make("test", 0, bytes(RANDOM_BYTES)),
        "live, never given out": make("live", 0, random),
        "a blank in it": secret[:20] + " " + secret[21:],
        "a tab in it": secret[:20] + "\t" + secret[21:],
        "another letter that looks so": secret[:20].replace("e", "\u00e9") + "\u00e9" + secret[21:],
        "a statement": "vx_test_' or '1'='1",
        "per cent": "vx_test_" + "%" * 41,
        "over-long": "vx_test_" + "A" * 30_000,
        "nothing but the prefix": "vx_test_",
        "a comma and another": f"{secret}, Bearer {secret}",
        "its hash": hashlib.sha256(secret.encode()).hexdigest(),
        "an operator's": "vx_op_" + secret[6:],
        "a JWT": jwt.encode({"sub": "owner"}, "", algorithm="none"),
        "a JWT signed with the key": jwt.encode({"sub": "owner"}, secret, algorithm="HS256"),
        "a JWT of a stranger": jwt.encode({"sub": "owner"}, STRANGER, algorithm="EdDSA"),
    }


OPERATORS = {
    "cut": OPERATOR_KEY[:-1],
    "longer": OPERATOR_KEY + "0",
    "in capitals": OPERATOR_KEY.upper(),
    "in other capitals": OPERATOR_KEY[:6] + OPERATOR_KEY[6:].upper(),
    "nothing but the prefix": "vx_op_",
    "zeros": "vx_op_" + "0" * 32,
    "unicode": OPERATOR_KEY[:-1] + "\u00e9",
    "a comma and another": f"{OPERATOR_KEY},{OPERATOR_KEY}",
    "a blank before it": " " + OPERATOR_KEY,
    "over-long": "vx_op_" + "A" * 30_000,
    "a JWT": jwt.encode({"operator": True}, OPERATOR_KEY, algorithm="HS256"),
}
SCHEMES = ("", "Basic ", "Token ", "Bearer\t", "Bearer:", "bearer=", "Digest ", "Bearer Bearer ")


async def raw_get(api: Api, path: str, *authorizations: str) -> tuple[int, bytes]:
    """Without a client that would set it right. The status, and what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Connection: close",
        *(f"Authorization: {a}" for a in authorizations),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    async with asyncio.timeout(15):
        got = await reader.read()
    writer.close()
    return int(got.split(b" ", 2)[1]), got


async def test_no_forged_key_is_let_in(
    api: Api, project: Project, superuser: asyncpg.Connection[Any]
) -> None:
    before = await state(superuser, "requests")
    forgeries = {f"key: {name}": (f"Bearer {made}", "/v1/calls") for name, made in keys(project.key).items()}
    forgeries |= {f"operator: {n}": (f"Bearer {made}", "/admin/v1/projects") for n, made in OPERATORS.items()}
    for scheme in SCHEMES:
        forgeries[f"scheme {scheme!r}"] = (f"{scheme}{project.key}", "/v1/keys")
        forgeries[f"operator, scheme {scheme!r}"] = (f"{scheme}{OPERATOR_KEY}", "/admin/v1/people")
    assert len(forgeries) >= 50
    for name, (authorization, path) in forgeries.items():
        status, got = await raw_get(api, path, authorization)
        assert status == 401, (name, status, got[:300])
        assert b'"fix":' in got, name
    for two in ((project.key, project.key), (project.key, "vx_test_x"), ("vx_test_x", project.key)):
        for path in ("/v1/calls", "/v1/events/stream", "/edge/v1/register"):
            status, got = await raw_get(api, path, *(f"Bearer {one}" for one in two))
            assert status in (401, 405), (path, got[:300])
    assert await state(superuser, "requests") == before


async def test_no_forged_key_opens_the_feeds_socket(api: Api, project: Project) -> None:
    from tests.support.feeds import feed_socket

    for name, made in keys(project.key).items():
        if made.isascii():
            with pytest.raises(InvalidStatus):
                async with feed_socket(api, made):
                    pass
            assert name
