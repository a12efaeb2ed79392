"""``voxplane quotas`` and ``voxplane usage``, against a real instance."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import OPERATOR_KEY
from tests.support.api import Api, Project
from tests.support.cli import Done, voxplane
from tests.support.fleet import three_regions

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def said(api: Api, project: Project, *words: str) -> Done:
    keys = {"VOXPLANE_API_KEY": project.key, "VOXPLANE_OPERATOR_KEY": OPERATOR_KEY}
    return await voxplane(*words, VOXPLANE_URL=api.url, **keys)


async def json_of(api: Api, project: Project, *words: str) -> Any:
    done = await said(api, project, *words, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


async def test_quotas_are_shown_and_set(api: Api, project: Project) -> None:
    limits = ["concurrent_calls=5", "destinations=US,CA", "max_duration_s=60"]
    found = await json_of(api, project, "quotas", "set", project.id, *limits[:2], limits[2])
    assert found["limits"] == {"concurrent_calls": 5, "destinations": ["CA", "US"], "max_duration_s": 60}
    found = await json_of(api, project, "quotas", "set", project.id, "max_duration_s=none")
    assert (found["version"], sorted(found["limits"])) == (2, ["concurrent_calls", "destinations"])
    found = await json_of(api, project, "quotas", "set", project.id, "webhook_backlog=unlimited")
    assert found["limits"]["unbounded"] == ["webhook_backlog"]
    found = await json_of(api, project, "quotas", "set", project.id, "webhook_backlog=9")
    assert (found["limits"]["webhook_backlog"], "unbounded" in found["limits"]) == (9, False)
    found = await json_of(api, project, "quotas", "set", project.id, "webhook_backlog=none")

    done = await said(api, project, "quotas")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["project", "concurrent_calls", "0", "of", "5"] in lines, done
    assert ["project", "destinations", "CA,", "US"] in lines
    assert (await json_of(api, project, "quotas"))["project"] == found["limits"]

    for words, code, says in (
        (("quotas", "set", project.id, "concurrent_calls=many"), 2, "a number"),
        (("quotas", "set", project.id, "concurrent_calls"), 2, "NAME=LIMIT"),
        (("quotas", "set", project.id, "calls=3"), 1, "calls"),
        (("quotas", "set", "prj_nobody", "concurrent_calls=3"), 1, "no such project"),
    ):
        done = await said(api, project, *words)
        assert (done.code, done.err.count("\n")) == (code, 1), done
        assert says in done.err


async def test_usage_is_a_table_a_document_and_a_sheet(api: Api) -> None:
    project = await api.project("live")
    body = {"agent": {"url": "wss://agent.example.com/"}}
    made = (await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": "k"})).json()
    await project.client.post(f"/v1/calls/{made['id']}/end")
    pool = api.control.db.pool("worker")
    while await pool.fetchval("select exists (select from vx.usage_due)"):
        await pool.fetchval("select vx.fold_usage(10)")
    prices = await json_of(api, project, "usage", "price", project.id, "--from", "2020-01-01", "call=2500000")
    assert prices["data"][0]["prices"]["call"] == 2_500_000

    found = await json_of(api, project, "usage", "--group-by", "region")
    assert (found["total"]["calls"], found["total"]["cost_micros"]) == (1, 2_500_000)
    done = await said(api, project, "usage")
    assert done.out.splitlines()[-1].split()[:3] == ["total", "1", "call"], done
    assert done.out.splitlines()[-1].endswith("2.500000 USD")
    sheet = await said(api, project, "usage", "--csv", "--group-by", "region")
    [row] = csv.DictReader(io.StringIO(sheet.out))
    assert (row["region"], row["calls"], row["cost_micros"]) == (found["data"][0]["region"], "1", "2500000")
    one = await said(api, project, "usage", "call", made["id"])
    assert "total: 2.500000 USD" in one.out, one

    for words, code, says in (
        (("usage", "--group-by", "moon"), 2, "region_pair"),
        (("usage", "--json", "--csv"), 2, "not both"),
        (("usage", "--from", "2025-02-01", "--to", "2025-01-01"), 1, "days"),
        (("usage", "price", project.id, "call=1"), 2, "--from"),
        (("usage", "price", project.id, "--from", "2020-01-01", "call=-1"), 2, "NAME=MILLIONTHS"),
        (("usage", "price", project.id, "--from", "2021-01-01", "--currency", "EUR", "call=1"), 1, "USD"),
    ):
        done = await said(api, project, *words)
        assert (done.code, done.err.count("\n")) == (code, 1), done
        assert says in done.err
