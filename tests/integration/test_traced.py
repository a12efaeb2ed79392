"""A create that is traced: by the route and by the lane alike, whatever its `traceparent`, and whatever becomes of the collector."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

from regions.wire.otlp import Tracing
from regions.wire.tracing import parse, span_of, trace_of
from tests.conftest import make_settings
from tests.support.api import serving
from tests.support.collector import collector
from tests.support.engines import Engines
from tests.support.fleet import three_regions

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"
BODY = {"agent": {"url": "ws://127.0.0.1:9/"}}


async def test_every_way_to_create_a_call_goes_on_in_the_trace_that_is_given(
    engines: Engines, tmp_path: Path
) -> None:
    async with collector() as collected, engines.database() as url:
        wanted = Tracing(endpoint=f"{collected.url}/v1/traces", every_s=0.05)
        async with serving(make_settings(url, engines.redis_urls, tmp_path, tracing=wanted)) as api:
            await three_regions(api)
            client = (await api.project()).client

            async def made(key: str = "", **headers: str) -> tuple[str, str]:
                sent = {"Idempotency-Key": key or str(uuid4()), **headers}
                answer = await client.post("/v1/calls", json=BODY, headers=sent)
                assert answer.status_code == 201, answer.text
                told = answer.json()
                assert told["traceparent"] == answer.headers["traceparent"]
                assert (await client.get(f"/v1/calls/{told['id']}")).json()["traceparent"] == told[
                    "traceparent"
                ]
                return told["id"], told["traceparent"]

            # the first goes by the framework's route, for its key has not been seen; the second by the lane
            for _ in range(2):
                call, told = await made(traceparent=GIVEN)
                assert told == f"00-{TRACE}-{span_of(call).hex()}-01"
            for broken in ("", "nonsense", GIVEN.upper(), "00-" + "0" * 32 + GIVEN[35:], "x" * 4_000):
                call, told = await made(traceparent=broken)
                context = parse(told)
                assert context is not None and context.trace_id == trace_of(call), "a trace of its own"
            call, told = await made(key="k", traceparent=GIVEN[:-2] + "00")
            assert told.endswith("-00"), "its parent is not sampled, so it is not"
            assert await made(key="k", traceparent=GIVEN) == (call, told), (
                "a repeated create is the one that it was"
            )

            collected.status = 503
            await made()
            collected.status = 200
            late, _ = await made()
            while span_of(late) not in {s.span_id for s in collected.named("POST /v1/calls")}:
                await asyncio.sleep(0.01)
    spans = collected.named("POST /v1/calls")
    assert [s.trace_id.hex() for s in spans].count(TRACE) == 2
    assert span_of(call) not in {s.span_id for s in spans}


async def test_what_the_control_plane_appends_is_in_the_calls_trace(engines: Engines, tmp_path: Path) -> None:
    async with collector() as collected, engines.database() as url:
        wanted = Tracing(endpoint=f"{collected.url}/v1/traces", every_s=0.05)
        async with serving(make_settings(url, engines.redis_urls, tmp_path, tracing=wanted)) as api:
            await three_regions(api)
            client = (await api.project()).client
            sent = {"Idempotency-Key": str(uuid4()), "traceparent": GIVEN}
            call = (await client.post("/v1/calls", json=BODY, headers=sent)).json()
            written = {"type": "turn", "key": "k", "role": "caller", "text": "canary-81f3"}
            for _ in range(2):
                await client.post(f"/v1/calls/{call['id']}/conversation", json=written)
            assert (await client.post(f"/v1/calls/{call['id']}/end")).status_code == 200
            while len(collected.named("log.append")) < 4:
                await asyncio.sleep(0.01)
    found = {
        s.span_id: {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in s.attributes}
        for s in collected.named("log.append")
    }
    assert [(a["voxplane.type"], a["voxplane.source"], a["voxplane.status"]) for a in found.values()] == [
        ("call.created", "control", "stored"),
        ("turn.ended", "project", "stored"),
        ("turn.ended", "project", "duplicate"),
        ("call.ended", "control", "stored"),
    ]
    [commit], [root] = collected.named("call.commit"), collected.named("POST /v1/calls")
    parents = [s.parent_span_id for s in collected.named("log.append")]
    assert parents == [commit.span_id, root.span_id, root.span_id, root.span_id]
    assert {s.trace_id.hex() for _, s in collected.spans if s.name == "log.append"} == {TRACE}
    assert "canary-81f3" not in str(collected.spans)
