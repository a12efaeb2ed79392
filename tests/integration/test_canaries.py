"""Numbers and words that stand in calls, and in what is wrong with them, stand in no line, metric, error or record of requests."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
import structlog

from app.log.append import EdgeIdentity
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, event, owners_in, said
from tests.support.engines import REGIONS

NUMBER = "+14155550142"
WORD = "canary7d31"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, REGIONS)


@pytest.fixture
def lines() -> Any:
    """Every line that is written, as it would be, tracebacks and all."""
    written: list[str] = []

    def keep(_: Any, __: str, event_dict: Any) -> Any:
        written.append(json.dumps(event_dict, default=repr))
        return event_dict

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.processors.format_exc_info, keep, *before[-1:]])
    yield written
    structlog.configure(processors=before)


async def bad_requests(client: httpx.AsyncClient, call: str) -> list[str]:
    """The answers to what is wrong, in every place where a canary can stand."""
    key = {"Idempotency-Key": str(uuid4())}
    agent = {"url": f"ws://127.0.0.1:9/{WORD}"}
    bodies: list[Any] = [
        {"agent": agent, "caller": {"from": NUMBER + "x", "to": WORD}},
        {"agent": agent, "metadata": {WORD: 7}},
        {"agent": agent, "caller": {"kind": "phone", "to": NUMBER}},
        {"agent": agent, "unknown": [NUMBER, WORD]},
        {"agent": {"url": f"http://{WORD}.example/"}, "caller": {"to": NUMBER}},
        {"agent": agent, "subject": WORD * 40},
    ]
    answers = [await client.post("/v1/calls", json=body, headers=key) for body in bodies]
    answers.append(
        await client.post("/v1/calls", content=b'{"agent": "' + WORD.encode() + b"\xff", headers=key)
    )
    answers.append(
        await client.post(
            f"/v1/calls/{call}/conversation", json={"type": "turn", "role": WORD, "text": "x", "key": "k"}
        )
    )
    answers.append(
        await client.post(f"/v1/calls/{call}/conversation", json={"type": "turn", "text": WORD, "key": "k"})
    )
    answers.append(await client.post("/v1/erasures", json={"number": NUMBER + WORD}))
    answers.append(await client.get("/v1/calls", params={"from": NUMBER + WORD}))
    assert all(400 <= a.status_code < 500 for a in answers), [a.text for a in answers]
    return [a.text for a in answers]


async def test_no_canary_sings(
    api: Api, project: Project, owners: list[EdgeIdentity], lines: list[str]
) -> None:
    body = {
        "agent": {"url": f"ws://127.0.0.1:9/{WORD}", "parameters": {"who": WORD}},
        "caller": {"from": NUMBER, "to": f"sip:{WORD}@example.org"},
        "metadata": {"who": WORD},
        "webhook_url": f"http://127.0.0.1:9/{WORD}",
        "subject": WORD,
    }
    made = (
        await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    ).json()
    order = [made["region"], *(s["region"] for s in made["placement"]["standbys"])]
    call = WrittenCall(
        made["id"], [next(o for o in owners if o.region == r) for r in order], project, made["ticket"]
    )
    await call.append(
        api,
        1,
        event(1, "call.answered"),
        said(2, "caller", f"{WORD} {NUMBER}"),
        event(3, "dtmf.received", digit="7"),
    )
    await call.write(type="turn", key="k1", role="agent", text=WORD)
    conflict = event(2, "turn.ended", role="caller", text=f"other {WORD}")
    with pytest.raises(AssertionError):
        await call.append(api, 1, conflict)

    told = await bad_requests(project.client, call.id)
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{api.url}/metrics", headers={"authorization": "Bearer x"})).text
        metrics += (await api.operator.get("/metrics")).text
    kept = [(await project.client.get("/v1/requests", params={"limit": 100})).text]
    await project.client.post(f"/v1/calls/{call.id}/erase")

    assert any("call.placed" in line for line in lines) and any("append.not_stored" in line for line in lines)
    assert "voxplane" in metrics
    for where, texts in (("lines", lines), ("metrics", [metrics]), ("requests", kept)):
        for canary in (WORD, NUMBER, NUMBER[1:]):
            assert not [t for t in texts if canary in t], (where, canary)
    for canary in (NUMBER[1:], WORD):
        assert not [t for t in told if canary in t], [t for t in told if canary in t]
