"""Spans as an OTLP collector takes them over HTTP, and which collector that is. Pure.

Writes `ExportTraceServiceRequest` of opentelemetry-proto 1.x in protobuf: a handful of fields, which needs no library of 20 MB on
every edge. The environment's variables are OpenTelemetry's own; without an endpoint nothing is traced.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from regions.wire.tracing import Span, Value

PATH = "/v1/traces"
CONTENT_TYPE = "application/x-protobuf"
SCOPE = "voxplane"
VARINT, FIXED64, BYTES = 0, 1, 2
ERROR = 2
SAMPLERS = ("always_on", "always_off", "traceidratio")
PARENT_BASED = "parentbased_"


class OtlpError(Exception):
    """A variable that cannot be used; the text says which, and how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """`endpoint` empty: off. `ratio`: of the traces that begin here; one that a request brings decides for itself where
    `parent_based`."""

    endpoint: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    ratio: float = 1.0
    parent_based: bool = True
    service: str = ""
    resource: dict[str, str] = field(default_factory=dict)
    queue_max: int = 2_048
    batch_max: int = 512
    every_s: float = 5.0

    def __bool__(self) -> bool:
        return bool(self.endpoint)


OFF = Tracing()


def from_env(env: Mapping[str, str]) -> Tracing:
    """Raises `OtlpError`."""
    endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if not endpoint and (base := env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")):
        endpoint = base.rstrip("/") + PATH
    off = (
        env.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or env.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    )
    if not endpoint or off:
        return OFF
    if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
        raise OtlpError("OTEL_EXPORTER_OTLP_ENDPOINT is a URL such as http://collector:4318")
    protocol = (
        env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or env.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if protocol != "http/protobuf":
        raise OtlpError("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf: a collector's port 4318")
    parent_based, ratio = _sampler(env)
    headers = env.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or env.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    timeout_ms = (
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"
        if "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT" in env
        else "OTEL_EXPORTER_OTLP_TIMEOUT"
    )
    return Tracing(
        endpoint=endpoint,
        headers=_pairs("OTEL_EXPORTER_OTLP_HEADERS", headers),
        timeout_s=_number(env, timeout_ms, 10_000) / 1000,
        ratio=ratio,
        parent_based=parent_based,
        service=env.get("OTEL_SERVICE_NAME", ""),
        resource=_pairs("OTEL_RESOURCE_ATTRIBUTES", env.get("OTEL_RESOURCE_ATTRIBUTES", "")),
        queue_max=int(_number(env, "OTEL_BSP_MAX_QUEUE_SIZE", 2_048)),
        batch_max=int(_number(env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)),
        every_s=_number(env, "OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1000,
    )


def _sampler(env: Mapping[str, str]) -> tuple[bool, float]:
    name = env.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    kind = name.removeprefix(PARENT_BASED)
    if kind not in SAMPLERS:
        raise OtlpError(
            f"OTEL_TRACES_SAMPLER is one of {', '.join(SAMPLERS)}, with or without {PARENT_BASED} before it"
        )
    if kind != "traceidratio":
        return name != kind, float(kind == "always_on")
    text = env.get("OTEL_TRACES_SAMPLER_ARG") or "1"
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise OtlpError("OTEL_TRACES_SAMPLER_ARG is a share from 0 to 1, such as 0.01")
    return name != kind, ratio


def _number(env: Mapping[str, str], name: str, default: int) -> float:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise OtlpError(f"{name} must be a whole number from 1 to 1000000")
    return float(text)


def _pairs(name: str, text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise OtlpError(f"{name} is a list such as key=value,other=value")
        found[key.strip()] = unquote(value.strip())
    return found


# ------------------------------------------------------------------------------------------------------------------ protobuf


def request(resource: Mapping[str, Value], spans: Iterable[Span]) -> bytes:
    """An `ExportTraceServiceRequest`."""
    scope = _bytes(1, SCOPE.encode())
    scope_spans = _bytes(1, scope) + b"".join(_bytes(2, _span(span)) for span in spans)
    return _bytes(1, _bytes(1, _attributes(1, resource)) + _bytes(2, scope_spans))


def _span(span: Span) -> bytes:
    return b"".join(
        (
            _bytes(1, span.trace_id),
            _bytes(2, span.span_id),
            _bytes(4, span.parent_id) if span.parent_id else b"",
            _bytes(5, span.name.encode()),
            _varint(6 << 3 | VARINT) + _varint(span.kind),
            _fixed64(7, span.start_ns),
            _fixed64(8, max(span.start_ns, span.end_ns)),
            _attributes(9, span.attributes),
            *(_bytes(13, _bytes(1, span.trace_id) + _bytes(2, link)) for link in span.links),
            _bytes(15, _bytes(2, span.error.encode()) + _varint(3 << 3 | VARINT) + _varint(ERROR))
            if span.error
            else b"",
        )
    )


def _attributes(field_: int, attributes: Mapping[str, Value]) -> bytes:
    return b"".join(
        _bytes(field_, _bytes(1, key.encode()) + _bytes(2, _value(value)))
        for key, value in attributes.items()
    )


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return _varint(2 << 3 | VARINT) + _varint(int(value))
    if isinstance(value, int):
        return _varint(3 << 3 | VARINT) + _varint(value & (1 << 64) - 1)
    if isinstance(value, float):
        return _varint(4 << 3 | FIXED64) + struct.pack("<d", value)
    return _bytes(1, value.encode())


def _bytes(field_: int, body: bytes) -> bytes:
    return _varint(field_ << 3 | BYTES) + _varint(len(body)) + body


def _fixed64(field_: int, value: int) -> bytes:
    return _varint(field_ << 3 | FIXED64) + struct.pack("<Q", value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
