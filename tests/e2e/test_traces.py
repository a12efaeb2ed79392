"""One trace per call, whatever becomes of it: real processes, an edge that is killed, and a collector that knows nothing of us."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.local.caller_script import Talker
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.receiver import WebhookReceiver
from regions.wire.tracing import span_of
from tests.e2e.test_failover import RATE_HZ, ToneBackend, until
from tests.support.collector import Collected, collector
from voxplane import AsyncCaller, AsyncClient, watch

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRACE, CUSTOMERS = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NUMBER, WORD = "+14155550123", "canary-5d20"


@pytest.fixture
async def collected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collected]:
    monkeypatch.setattr(watch, "PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr(watch, "TAKE_AFTER_MS", 25_000)
    async with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme%20ltd")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield found


async def test_a_call_with_a_failover_is_one_connected_trace(collected: Collected) -> None:
    folder = temporary_folder("voxplane-traces")
    try:
        async with Deployment(folder, places=PLACES[:3], fsync=False) as deployment:
            _, key = await deployment.create_project("traces")
            async with (
                ToneBackend().run() as backend,
                WebhookReceiver() as receiver,
                AsyncClient(deployment.api_urls, key) as client,
            ):
                receiver.secret = (await client.create_webhook(receiver.url))["secret"]
                call = await _created(deployment.api_urls[0], key, backend.url)
                await _carried(deployment, client, call, collected)
                await until(
                    lambda: "call.ended" in [e["type"] for e in receiver.received], "no end was told", 30
                )
                last = receiver.headers[-1]["traceparent"]
                parents = [s["customParameters"]["voxplane_traceparent"] for s in backend.starts]
            await until(lambda: collected.named("call.serve"), "the end was not traced")
            await until(lambda: _last_attempt(collected, last), "the last attempt was not traced")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _check(collected, call, parents)


async def _created(url: str, key: str, backend: str) -> dict[str, Any]:
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        answer = await client.post(
            "/v1/calls",
            json={
                "agent": {"url": f"{backend}{WORD}", "parameters": {"p": WORD}},
                "caller": {"kind": "websocket", "from": NUMBER, "to": f"sip:{WORD}@example.org"},
                "metadata": {WORD: WORD},
                "subject": WORD,
                # refused: an error stands in the trace, and no more of it
                "webhook_url": f"http://127.0.0.1:9/{WORD}",
                "latencies": [{"region": "us-east", "rtt_ms": 10}, {"region": "eu-west", "rtt_ms": 90}],
            },
            headers={"Idempotency-Key": str(uuid4()), "traceparent": f"00-{TRACE}-{CUSTOMERS}-01"},
        )
        made: dict[str, Any] = answer.raise_for_status().json()
        own = f"00-{TRACE}-{span_of(made['id']).hex()}-01"
        assert made["traceparent"] == answer.headers["traceparent"] == own
        events = (await client.get(f"/v1/calls/{made['id']}/events")).json()["data"]
        assert events[0]["data"]["traceparent"] == own
    return made


async def _carried(
    deployment: Deployment, client: AsyncClient, call: dict[str, Any], collected: Collected
) -> None:
    async with (
        AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
        Talker(caller, RATE_HZ) as talker,
    ):
        await talker.until_heard(since=0.0)
        await until(lambda: collected.named("agent.first_audio"), "the first edge said nothing")
        os.kill(deployment.regions["us-east"].edge.pid, signal.SIGKILL)
        await talker.until_moved()
        await talker.until_notice("call.reconnected")
        await caller.hangup()


def _last_attempt(collected: Collected, traceparent: str) -> bool:
    return traceparent.split("-")[2] in {s.span_id.hex() for s in collected.named("webhook.attempt")}


def _check(collected: Collected, call: dict[str, Any], parents: list[str]) -> None:
    spans = [span for _, span in collected.spans]
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "each span came once"
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    [root] = collected.named("POST /v1/calls")
    assert (root.parent_span_id.hex(), root.span_id) == (CUSTOMERS, span_of(call["id"]))
    assert [s.name for s in spans if s is not root and s.parent_span_id not in by_id] == [], "it is connected"
    services = {span.name: service for service, span in collected.spans}
    assert {name for name, service in services.items() if service == "voxplane-control"} == {
        "POST /v1/calls", "call.check", "call.place", "call.commit", "call.answer", "log.append", "webhook.attempt",
    }  # fmt: skip
    assert {name for name, service in services.items() if service == "voxplane-edge"} >= {
        "call.attach", "call.take", "agent.connect", "agent.first_audio", "call.return", "call.serve",
    }  # fmt: skip
    [first], [second] = collected.named("call.attach"), collected.named("call.take")
    assert [link.span_id for link in second.links] == [first.span_id], "the take follows what was lost"
    assert {first.parent_span_id, second.parent_span_id} == {root.span_id}
    assert [p.split("-")[2] for p in parents] == [first.span_id.hex(), second.span_id.hex()]
    appended = {s.parent_span_id for s in collected.named("log.append")}
    [commit] = collected.named("call.commit")
    assert appended == {first.span_id, second.span_id, commit.span_id}
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano > 1.7e18 for s in spans)
    values = {str(a.value.string_value) for s in spans for a in s.attributes}
    told = " ".join(values | {s.name for s in spans} | {a.key for s in spans for a in s.attributes})
    told += "".join(str(span) for span in spans)
    assert not [
        secret
        for secret in (NUMBER[1:], WORD, "question", "answer 1", "vx_test_", "ws://", "http://")
        if secret in told
    ]
    assert {h["x-tenant"] for h in collected.requests} == {"acme ltd"}
    assert {h[""] for h in collected.requests} == {"POST /v1/traces HTTP/1.1"}
