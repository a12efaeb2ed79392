"""``voxplane place``, ``voxplane regions matrix`` and ``voxplane call timeline``, against a real instance."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
import pytest_asyncio

from regions.wire.measuring import Measured, Mesh
from tests.support.api import Api, Project
from tests.support.cli import Done, voxplane
from tests.support.fleet import three_regions

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def said(api: Api, project: Project, *words: str) -> Done:
    return await voxplane(*words, VOXPLANE_URL=api.url, VOXPLANE_API_KEY=project.key)


async def test_a_place_is_shown_with_its_reasons(api: Api, project: Project) -> None:
    words = ["place", "--jurisdiction", "eu", "--jurisdiction", "us", "--address", "203.0.113.9"]
    done = await said(api, project, *words)
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0].startswith(("eu-west, standbys us-east", "us-east, standbys eu-west"))
    assert "protection reduced (1 other region can take the call over)" in lines[0]
    assert any(line.split()[:2] == ["ap-south", "not_allowed"] for line in lines)
    found = json.loads((await said(api, project, *words, "--json")).out)
    assert {c["region"] for c in found["candidates"]} == {"eu-west", "us-east", "ap-south"}
    refused = await said(api, project, "place", "--jurisdiction", "mars")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert (await project.client.get("/v1/calls")).json()["data"] == []


async def test_the_matrix_is_a_table(api: Api, project: Project) -> None:
    mesh = [
        Mesh(region="eu-west", rtt_ms=81.5, jitter_ms=1, loss=0),
        Mesh(region="ap-south", rtt_ms=0, jitter_ms=0, loss=1),
    ]
    api.control.learning.heard("us-east", Measured(mesh=mesh))
    done = await said(api, project, "regions", "matrix")
    assert done.code == 0, done
    head, *rows = [line.split() for line in done.out.splitlines()]
    assert head == ["ap-south", "eu-west", "us-east"]
    assert rows[2] == ["us-east", "–", "81.5", "–"]
    found = json.loads((await said(api, project, "regions", "matrix", "--json")).out)
    assert len(found["ways"]) == 2


async def test_a_timeline_is_told_line_by_line(api: Api, project: Project) -> None:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": [{"region": "eu-west", "rtt_ms": 9}]}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    call = made.json()["id"]
    await project.client.post(f"/v1/calls/{call}/end")
    done = await said(api, project, "call", "timeline", call)
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0].startswith("eu-west, standbys ")
    assert lines[-3].endswith("epoch 1  call.created → ringing  [eu-west has it: created]")
    assert lines[-2].endswith("call.ended → canceled")
    assert lines[-1] == "canceled, ended_by_api"
    found = json.loads((await said(api, project, "call", "timeline", call, "--json")).out)
    assert found["call_id"] == call
    unknown = await said(api, project, "call", "timeline", "call_x")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)
