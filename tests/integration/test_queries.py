"""What stands in a query is what a route reads: a name that nobody would look at is refused, on every route that a key opens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api, Project

OPEN = ("/healthz", "/readyz", "/metrics", "/.well-known/jwks.json", "/openapi.json")
NONE = "call_00000000000000000000000000"


def faults(response: Any) -> tuple[int, str, list[str]]:
    body = response.json()
    assert body["fix"], body
    return response.status_code, body["code"], [e["pointer"] for e in body["errors"]]


async def read_routes(api: Api) -> list[tuple[str, dict[str, Any]]]:
    document = (await api.operator.get("/openapi.json")).json()
    return [(path, of["get"]) for path, of in document["paths"].items() if "get" in of]


async def test_no_route_takes_a_parameter_that_it_does_not_know(api: Api, project: Project) -> None:
    looked = 0
    for path, operation in await read_routes(api):
        names = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
        if path in OPEN or path.startswith(("/console", "/openapi", "/2010-04-01")):
            continue
        url = path
        for parameter in operation.get("parameters", []):
            url = url.replace("{" + parameter["name"] + "}", NONE)
        client = api.operator if path.startswith("/admin/") else project.client
        answer = await client.get(url, params={"limti": "2", "Cursor": "x"})
        assert faults(answer) == (422, "bad_query", ["/Cursor", "/limti"]), path
        for name in names:
            assert f"`{name}`" in answer.json()["fix"], (path, answer.text)
        looked += 1
    assert looked > 20


async def test_who_may_not_ask_is_told_that_first(api: Api, project: Project) -> None:
    anonymous = await api.client()
    for path in ("/v1/calls", "/v1/events/stream", "/admin/v1/events", "/admin/v1/regions"):
        assert (await anonymous.get(path, params={"nothing": "1"})).status_code == 401, path
    assert (await project.client.get("/admin/v1/events", params={"nothing": "1"})).status_code == 403


@pytest.mark.parametrize("path", ["/v1/calls", "/v1/events", "/v1/webhooks", "/v1/requests"])
async def test_what_is_read_once_is_not_given_twice(project: Project, path: str) -> None:
    twice = await project.client.get(path, params=[("limit", "1"), ("limit", "200")])
    assert faults(twice) == (422, "bad_query", ["/limit"])
    once = await project.client.get(path, params={"limit": "1"})
    assert once.status_code == 200, once.text


async def test_what_may_be_repeated_and_metadata_are_taken(project: Project) -> None:
    types = [("types", "call.ended"), ("types", "call.created"), ("metadata.tier", "gold")]
    assert (await project.client.get("/v1/events", params=types)).status_code == 200
    assert (await project.client.get("/v1/calls", params={"metadata.tier": "gold"})).status_code == 200
    for path in ("/v1/calls", "/v1/events"):
        twice = await project.client.get(path, params=[("metadata.a", "1"), ("metadata.a", "2")])
        assert faults(twice) == (400, "bad_filter", ["/metadata.a"])
    elsewhere = await project.client.get("/v1/webhooks", params={"metadata.tier": "gold"})
    assert faults(elsewhere) == (422, "bad_query", ["/metadata.tier"])
    many = await project.client.get("/v1/calls", params={"n" * 300 + str(i): "1" for i in range(40)})
    assert (many.status_code, len(many.json()["errors"])) == (422, 20)
    assert len(many.text) < 4_000


async def test_a_stream_begins_as_before_and_what_needs_no_key_is_not_looked_at(
    api: Api, project: Project
) -> None:
    asked = {"types": "transcript.*", "volatile": "true", "metadata.a": "1"}
    assert (await project.client.get("/v1/events/stream", params=asked)).json()["code"] == "bad_filter"
    for params in ({"types": "call.*"}, {"metadata.a": "1"}, {}):
        stream = project.client.stream(
            "GET", "/v1/events/stream", params=params, headers={"Last-Event-ID": ""}
        )
        async with stream as answer:
            assert answer.status_code == 200
            assert (await anext(answer.aiter_lines())).startswith("retry:")
    for path in OPEN:
        assert (await api.operator.get(path, params={"_": "1"})).status_code == 200, path
