"""The trace of a call: its context, what is written for a collector, what is given up, and that no content is in it."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.tracing import CALLS_MAX, WRITES_MAX, Tracer
from regions.edge.call_trace import handed_on, trace_call
from regions.wire import ids, otlp
from regions.wire.events import Source
from regions.wire.otlp import OtlpError, Tracing, from_env
from regions.wire.span_export import Spans
from regions.wire.tracing import SERVER, Context, Span, parse, sampled_at, span_of, trace_of

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ON = Tracing(endpoint="http://127.0.0.1:9/v1/traces", queue_max=4, every_s=0.01)
CALL = "call_01arz3ndektsv4rrffq69g5fav"


@pytest.mark.parametrize(
    "text",
    [
        "", "00", GIVEN[:-1], GIVEN.upper(), GIVEN + "-more", "ff" + GIVEN[2:], "00-" + "0" * 32 + GIVEN[35:],
        GIVEN[:36] + "0" * 16 + "-01", "x" * 10_000, GIVEN.replace("4", "٤"),
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert parse(text) is None
    begun = Tracer(ON).begin(CALL, text)
    assert begun is not None and begun == (Context(trace_of(CALL), span_of(CALL), True), b"")


def test_a_traceparent_is_what_it_was() -> None:
    found = parse(GIVEN)
    assert found is not None and found.traceparent == GIVEN
    later = parse("cc-" + GIVEN[3:] + "-what-comes")
    assert later == found
    begun = Tracer(ON).begin(CALL, GIVEN)
    assert begun == (found.under(span_of(CALL)), found.span_id)
    assert Tracer().begin(CALL, GIVEN) is None, "off is off"


def test_ids_are_everybodys_and_unlike_each_other() -> None:
    assert (len(trace_of(CALL)), len(span_of(CALL))) == (16, 8)
    assert len({span_of(CALL), span_of(CALL, 1), span_of(CALL, 2), span_of(CALL + "x", 1)}) == 4


def test_a_share_is_sampled_by_the_id_and_a_parent_decides_where_it_may() -> None:
    ids = [trace_of(str(n)) for n in range(4_000)]
    assert 0.2 < sum(sampled_at(i, 0.25) for i in ids) / 4_000 < 0.3
    assert all(sampled_at(i, 0.5) for i in ids if sampled_at(i, 0.25))
    assert not any(sampled_at(i, 0.0) for i in ids) and all(sampled_at(i, 1.0) for i in ids)
    never = Tracing(endpoint="http://c/", ratio=0.0)
    for wanted, given, sampled in (
        (never, GIVEN, True),
        (never, None, False),
        (Tracing(endpoint="http://c/", ratio=0.0, parent_based=False), GIVEN, False),
        (ON, GIVEN[:-2] + "00", False),
    ):
        begun = Tracer(wanted).begin(CALL, given)
        assert begun is not None and begun[0].sampled is sampled


def span(**more: Any) -> Span:
    given: dict[str, Any] = {
        "name": "s", "trace_id": b"t" * 16, "span_id": b"s" * 8, "parent_id": b"p" * 8, "start_ns": 1_800_000_000_000_000_001,
        "end_ns": 1_800_000_000_000_000_500,
    }  # fmt: skip
    return Span(**(given | more))


def test_openTelemetry_reads_what_is_written() -> None:
    attributes = {"text": "tëxt", "n": -5, "big": 1 << 40, "share": 0.25, "yes": True, "no": False}
    body = otlp.request(
        {"service.name": "x"},
        [span(kind=SERVER, attributes=attributes, links=(b"l" * 8,), error="why"), span(parent_id=b"")],
    )
    read = ExportTraceServiceRequest.FromString(body)
    [of_resource] = read.resource_spans
    [of_scope] = of_resource.scope_spans
    first, second = of_scope.spans
    assert [(a.key, a.value.string_value) for a in of_resource.resource.attributes] == [("service.name", "x")]
    assert of_scope.scope.name == "voxplane"
    assert (first.trace_id, first.span_id, first.parent_span_id) == (b"t" * 16, b"s" * 8, b"p" * 8)
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (
        1_800_000_000_000_000_001,
        1_800_000_000_000_000_500,
    )
    assert (first.kind, first.name) == (2, "s")
    assert {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in first.attributes} == attributes
    assert [(link.trace_id, link.span_id) for link in first.links] == [(b"t" * 16, b"l" * 8)]
    assert (first.status.code, first.status.message) == (2, "why")
    assert (second.parent_span_id, second.status.code) == (b"", 0)


def test_the_environment_is_openTelemetrys() -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}
    assert from_env(base).endpoint == "http://c:4318/v1/traces"
    more = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x", "OTEL_TRACES_SAMPLER": "traceidratio"}
    own = from_env(base | more | {"OTEL_TRACES_SAMPLER_ARG": "0.1"})
    assert (own.endpoint, own.ratio, own.parent_based) == ("https://t/x", 0.1, False)
    for off in ({}, base | {"OTEL_SDK_DISABLED": "true"}, base | {"OTEL_TRACES_EXPORTER": "none"}):
        assert not from_env(off)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
    with pytest.raises(OtlpError, match=name.removesuffix("_ARG")):
        from_env(base | {name: value})


async def test_nobody_waits_for_a_collector_and_what_is_given_up_is_counted() -> None:
    spans, stop, asked = Spans(ON, {}), asyncio.Event(), asyncio.Event()
    answers = iter((200, 400))

    async def post(_: bytes) -> int:
        asked.set()
        return next(answers, 200)

    for _ in range(6):
        spans.add(span())
    assert spans.counts["dropped"] == 2
    task = asyncio.create_task(spans.run(post, stop))
    await asked.wait()
    asked.clear()
    spans.add(span())
    await asked.wait()
    stop.set()
    await task
    assert spans.counts == {"exported": 4, "failed": 1, "dropped": 2}


def test_appends_of_one_call_are_traced_up_to_a_bound_and_its_end_always() -> None:
    tracer, call = Tracer(Tracing(endpoint="http://c/", queue_max=1_000)), uuid4()
    begun = tracer.begin(ids.encode(ids.CALL, call), GIVEN)
    assert begun is not None
    times = (datetime.fromtimestamp(n, UTC) for n in itertools.count(1_800_000_000))

    def write(trace: str, type_: str, call: UUID, status: str = "stored") -> None:
        with tracer.writing(call, trace, type_, Source.PROJECT, lambda: next(times)) as told:
            told.status = status

    for _ in range(WRITES_MAX + 10):
        write(begun[0].traceparent, "turn.ended", call)
    write(begun[0].traceparent, "call.ended", call, "ended")
    write(begun[0].traceparent, "turn.ended", uuid4())
    for trace in ("", begun[0].traceparent[:-2] + "00"):
        write(trace, "turn.ended", uuid4())
    found = list(tracer.spans._queue)
    assert [s.attributes["voxplane.type"] for s in found] == ["turn.ended"] * WRITES_MAX + [
        "call.ended",
        "turn.ended",
    ]
    assert {(s.name, s.parent_id, s.trace_id.hex()) for s in found} == {
        ("log.append", begun[0].span_id, GIVEN[3:35])
    }
    assert all(s.end_ns - s.start_ns == 1_000_000_000 for s in found)
    assert [s.attributes["voxplane.status"] for s in found[-2:]] == ["ended", "stored"]
    with (
        pytest.raises(TimeoutError),
        tracer.writing(call, begun[0].traceparent, "call.ended", Source.CONTROL, lambda: next(times)),
    ):
        raise TimeoutError
    assert (tracer.spans._queue[-1].error, tracer.spans._queue[-1].attributes["voxplane.status"]) == (
        "TimeoutError",
        "unknown",
    )
    for _ in range(CALLS_MAX + 5):
        tracer._has_room(uuid4(), "turn.ended")
    assert len(tracer._writes) == CALLS_MAX


def test_a_trace_has_nothing_of_what_was_said() -> None:
    spans = Spans(Tracing(endpoint="http://c/"), {})
    begun = Tracer(ON).begin(CALL, None)
    assert begun is not None
    context = begun[0]
    trace = trace_call(spans, context.traceparent, CALL, 1)
    assert trace is not None
    trace("call.answered", {"encoding": "pcm16"})
    trace("agent.connected", {"attempts": 1, "fallback": False, "url": "wss://secret"})
    trace("dtmf.received", {"digit": "4111"})
    trace("turn.ended", {"role": "caller", "text": "my secret"})
    trace("playback.started", {"text": "my secret"})
    stages = {
        "capture": 20,
        "uplink": 10,
        "end_of_turn": 300,
        "llm": 400,
        "backend": 50,
        "pacing": 5,
        "downlink": 10,
    }
    trace("turn.answered", {"utterance": 1, "total_ms": sum(stages.values()), "stages": stages})
    trace("call.ended", {"end_reason": "caller_hung_up", "detail": "my secret"})
    found = list(spans._queue)
    assert [s.name for s in found][:4] == ["call.attach", "agent.connect", "agent.first_audio", "turn"]
    turn, parts = found[3], [s for s in found if s.name.startswith("turn.")]
    assert [s.name.removeprefix("turn.") for s in parts] == list(stages)
    assert (parts[0].start_ns, parts[-1].end_ns) == (turn.start_ns, turn.end_ns)
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(parts))
    assert not [s for s in found if "secret" in str(s) or "4111" in str(s)]
    assert {s.parent_id for s in found if s.name != "call.attach"} <= {span_of(CALL, 1), turn.span_id}
    assert handed_on(spans, context.traceparent, CALL, 1) == trace.traceparent
    assert handed_on(Spans(otlp.OFF, {}), context.traceparent, CALL, 1) == context.traceparent
    unsampled = context._replace(sampled=False).traceparent
    assert trace_call(spans, unsampled, CALL, 1) is None and handed_on(spans, unsampled, CALL, 1) == unsampled
