"""What machines ask an instance, and that every route of the spec keeps the same manners."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.support.api import Api, Project, serving
from tests.support.fleet import add_region, three_regions
from tests.support.schemas import documented

ROOT = Path(__file__).parents[2]
SPEC = json.loads((ROOT / "openapi" / "openapi.json").read_text())
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in SPEC["paths"].items()
    for method, operation in methods.items()
]
OPEN = {"health", "readiness", "metrics", "jwks"}
OWN_CREDENTIAL = {"renewTicket", "registerEdge"}
"""Ask for another credential than a key; the body may be refused before it."""
TWILIOS = {"twilioGetCall", "twilioEndCall"}
"""Answer as Twilio does, errors too: tests/integration/test_twilio_rest.py."""
WITHIN_S = 30.0
ENDLESS = {"streamEvents", "streamCallEvents", "adminStreamEvents"}
NONSENSE: list[tuple[bytes, str]] = [
    (b"", "application/json"),
    (b"{", "application/json"),
    (b"[]", "application/json"),
    (b"null", "application/json"),
    (b'{"\xc3\xa9":1}', "application/json"),
    (b'{"a":' * 3_000, "application/json"),
    (b"\x00\xff", "application/octet-stream"),
    (b"a=b", "application/x-www-form-urlencoded"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


def is_problem(response: Any) -> bool:
    body = response.json()
    return (
        response.headers["content-type"] == "application/problem+json"
        and {"type", "title", "status", "detail", "code", "errors", "request_id", "fix"} <= set(body)
        and body["status"] == response.status_code
        and bool(body["code"])
        and bool(body["fix"])
    )


async def test_an_instance_that_runs_is_alive_and_ready(api: Api) -> None:
    client = await api.client()

    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    cell = {"cell": 0, "jurisdiction": None, "ready": True, "reasons": [], "delivers": True}
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": [], "cells": [cell]})


async def test_an_instance_that_is_not_ready_says_so_as_it_is_documented(settings: Settings) -> None:
    async def fails(stop: asyncio.Event) -> None:
        raise RuntimeError

    async with serving(settings) as api, asyncio.timeout(WITHIN_S):
        api.control.supervisor.add("test.fails", fails)
        client = await api.client()
        while (ready := await client.get("/readyz")).status_code != 503:
            await asyncio.sleep(0.05)
    assert ready.headers["content-type"] == "application/json"
    assert (ready.json()["status"], ready.json()["reasons"]) == ("not_ready", ["worker test.fails"])
    said = documented("readiness")
    assert said[503] == said[200] == {"$ref": "#/components/schemas/Readiness"}


async def test_metrics_are_what_prometheus_reads(api: Api, project: Project) -> None:
    await project.client.post(
        "/v1/calls", json={"agent": {"url": "ws://127.0.0.1:9/"}}, headers={"Idempotency-Key": "k"}
    )
    text = (await (await api.client()).get("/metrics")).text
    samples = {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["voxplane_calls_created_total"] >= 1
    assert "vx_test_" not in text
    assert 'voxplane_http_requests_total{operation="createCall",status="201"}' in text
    assert 'voxplane_pool_wait_seconds_count{role="api"}' in text
    assert samples["voxplane_database_up"] == 1
    told = {
        label for f in text_string_to_metric_families(text) for s in f.samples for label in s.labels.values()
    }
    assert not [
        label
        for label in told
        if re.search(r"(call|prj|key|evt|whk|edge)_[0-9a-z]{20,}|[0-9a-f-]{36}", label)
    ]


async def test_what_alerts_watch_the_increase_of_is_shown_before_there_is_any(api: Api) -> None:
    region = "nothing-happened"
    await add_region(api, region)
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    counted = re.compile(r"increase\((voxplane_(?!edge_spans|spans)\w+)(?:\{(\w+)=\"(\w+)\"\})?")
    watched = {found for rule in rules for found in counted.findall(rule["expr"])}
    assert len(watched) >= 4

    async def shown() -> bool:
        text = (await (await api.client()).get("/metrics")).text
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        return all(
            any(s.name == name and s.labels.get(label, value) == value and s.labels.get("region", region) == region for s in samples)
            for name, label, value in watched
        )  # fmt: skip

    async with asyncio.timeout(WITHIN_S):
        while not await shown():
            await asyncio.sleep(0.2)


async def test_a_ticket_verifies_under_the_published_keys(api: Api, project: Project) -> None:
    made = await project.client.post(
        "/v1/calls", json={"agent": {"url": "ws://127.0.0.1:9/"}}, headers={"Idempotency-Key": "k"}
    )
    ticket = made.json()["ticket"]
    keys = jwt.PyJWKSet.from_dict((await (await api.client()).get("/.well-known/jwks.json")).json())
    key = keys[jwt.get_unverified_header(ticket)["kid"]]
    claims = jwt.decode(ticket, key, algorithms=["EdDSA"], options={"verify_aud": False})
    assert claims["sub"] == made.json()["id"]


async def test_the_spec_is_served_as_it_is_published(api: Api) -> None:
    served = (await (await api.client()).get("/openapi.json")).json()
    assert served["openapi"].startswith("3.1")
    assert served == SPEC


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("GET", "/"), ("PUT", "/v1/calls")])
async def test_what_does_not_exist_is_a_problem_too(project: Project, method: str, path: str) -> None:
    answer = await project.client.request(method, path)
    assert answer.status_code in (404, 405)
    assert is_problem(answer)


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [o for o in OPERATIONS if o[2]["operationId"] not in TWILIOS],
    ids=lambda given: given.get("operationId") if isinstance(given, dict) else None,
)
async def test_every_route_keeps_its_manners(
    api: Api, project: Project, method: str, path: str, operation: dict[str, Any]
) -> None:
    """Without a key 401; with one, nonsense is a problem of the 400s and never a 500."""
    name = operation["operationId"]
    where = path
    for parameter in operation.get("parameters", []):
        where = where.replace("{" + parameter["name"] + "}", "nonsense..%00%c3%a9")
    stranger = await api.client()
    if name not in OPEN:
        refused = await stranger.request(method, where, json={})
        assert refused.status_code in ({401, 404, 422} if name in OWN_CREDENTIAL else {401}), refused.text
        assert is_problem(refused)
    if name in ENDLESS | OPEN:
        return
    client = api.operator if path.startswith("/admin/") else project.client
    for content, kind in NONSENSE:
        answer = await client.request(
            method, where, content=content, headers={"Content-Type": kind, "Idempotency-Key": "k"}
        )
        assert answer.status_code < 500, (content, answer.text)
        if answer.status_code >= 400:
            assert is_problem(answer), answer.text
    answer = await client.request(method, where, params={"limit": "x", "cursor": "\u00e9", "after": "1e9"})
    assert answer.status_code < 500, answer.text
