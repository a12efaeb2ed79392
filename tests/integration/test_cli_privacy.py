"""``voxplane privacy``, ``voxplane erasures`` and ``voxplane calls erase``, against a real instance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.support.api import Api, Project
from tests.support.cli import Done, voxplane
from tests.support.fleet import three_regions

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def said(api: Api, project: Project, *words: str) -> Done:
    return await voxplane(*words, VOXPLANE_URL=api.url, VOXPLANE_API_KEY=project.key)


async def test_settings_are_shown_and_set_and_what_is_not_named_stays(
    api: Api, project: Project, tmp_path: Path
) -> None:
    rules = [
        {"name": "card", "kind": "card"},
        {"name": "order", "kind": "pattern", "pattern": "ORD-[0-9]{4,12}"},
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules))
    done = await said(api, project, "privacy", "set", "conversation_days=30", "audit_days=60")
    assert (done.code, "30" in done.out, "nothing is struck out" in done.out) == (0, True, True), done
    done = await said(api, project, "privacy", "set", "audit_days=none", "--redaction", str(file), "--json")
    found = json.loads(done.out)
    assert (found["retention"], found["redaction"]) == ({"conversation_days": 30}, rules)
    assert json.loads((await said(api, project, "privacy", "show", "--json")).out) == found
    shown = (await said(api, project, "privacy", "show")).out
    assert "ORD-[0-9]{4,12}" in shown and "as long as the deployment keeps it" in shown

    file.write_text("[")
    for words, code, says in (
        ((), 2, "name what is to change"),
        (("days=3",), 2, "NAME=DAYS"),
        (("audit_days=soon",), 2, "not a number of days"),
        (("audit_days=3",), 1, "audit_days"),
        (("--redaction", str(file)), 2, "--redaction"),
        (("--redaction", str(tmp_path / "none.json")), 2, "--redaction"),
    ):
        done = await said(api, project, "privacy", "set", *words)
        assert (done.code, done.err.count("\n"), says in done.err) == (code, 1, True), (words, done)
    assert json.loads((await said(api, project, "privacy", "show", "--json")).out) == found


async def test_calls_are_erased_by_id_and_by_whom_they_are_about(api: Api, project: Project) -> None:
    calls: list[str] = []
    for _ in range(2):
        body: dict[str, Any] = {
            "agent": {"url": "ws://127.0.0.1:9/"},
            "subject": "c-17",
            "metadata": {"a": "b"},
        }
        key = {"Idempotency-Key": str(uuid4())}
        calls.append((await project.client.post("/v1/calls", json=body, headers=key)).json()["id"])
    done = await said(api, project, "calls", "erase", calls[0])
    assert (done.code, "telling" in done.out, "valkey" in done.out) == (0, True, True), done
    made = json.loads((await said(api, project, "erasures", "create", "--subject", "c-17", "--json")).out)
    assert made["kind"] == "subject"
    listed = json.loads((await said(api, project, "erasures", "list", "--json")).out)
    assert listed[0]["id"] == made["id"] and len(listed) == 2
    shown = await said(api, project, "erasures", "show", made["id"])
    assert shown.code == 0 and made["id"] in shown.out

    for words, code, says in (
        (("erasures", "create"), 2, "exactly one"),
        (("erasures", "create", "--subject", "a", "--number", "+14155550100"), 2, "exactly one"),
        (("erasures", "create", "--metadata", "a"), 2, "NAME=VALUE"),
        (("erasures", "create", "--number", "me"), 1, "E.164"),
        (("erasures", "show", "era_nobody"), 1, "no such erasure"),
        (("calls", "erase", "call_nobody"), 1, "no such call"),
    ):
        done = await said(api, project, *words)
        assert (done.code, done.err.count("\n"), says in done.err) == (code, 1, True), (words, done)
