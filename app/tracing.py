"""The control plane's part of a call's trace: its create, what is appended to its log, the attempts to tell its webhooks.

Decides whether a create is traced, and under which trace: the one that its request names in `traceparent`, else the call's own.
Off unless an OTLP endpoint is named; then nothing of it costs more than a look at whether it is on.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import structlog

from app.telemetry import spans_total
from regions.wire import ids
from regions.wire.events import FINAL_TYPE, Source
from regions.wire.otlp import CONTENT_TYPE, OFF, Tracing
from regions.wire.span_export import OUTCOMES, Post, Spans
from regions.wire.tracing import (
    CLIENT,
    INTERNAL,
    SERVER,
    Context,
    Span,
    Value,
    parse,
    sampled_at,
    span_of,
    trace_of,
)
from regions.wire.uplink import AppendStatus, CallEvents

log = structlog.get_logger()

EPOCH = datetime.fromtimestamp(0, UTC)
SERVICE = "voxplane-control"
WRITES_MAX = 64
"""Of one call, on one instance: appends of the control plane and of the project that have a span. The end always has."""
CALLS_MAX = 10_000
"""Whose appends are counted; the one that wrote longest ago is forgotten first."""


def ns_of(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1) * 1_000


@dataclass(slots=True)
class Writing:
    """`status`: of `ControlOutcome`, once it is known."""

    status: str = "unknown"


class Tracer:
    def __init__(self, wanted: Tracing = OFF) -> None:
        resource: dict[str, Value] = {"service.name": wanted.service or SERVICE, **wanted.resource}
        self.spans = Spans(wanted, resource)
        self._writes: OrderedDict[UUID, int] = OrderedDict()

    @property
    def on(self) -> bool:
        return bool(self.spans)

    def begin(self, call: str, traceparent: str | None) -> tuple[Context, bytes] | None:
        """The context that the call hands on, and the span that it hangs under, which may be none. None: nothing is traced. What is
        no `traceparent` is as good as none, as W3C has it."""
        if not self.on:
            return None
        wanted, given = self.spans.wanted, parse(traceparent) if traceparent else None
        trace_id = given.trace_id if given is not None else trace_of(call)
        decided = given is not None and wanted.parent_based
        sampled = given.sampled if given is not None and decided else sampled_at(trace_id, wanted.ratio)
        return Context(trace_id, span_of(call), sampled), given.span_id if given is not None else b""

    def created(
        self,
        begun: tuple[Context, bytes] | None,
        at: datetime,
        took_s: dict[str, float],
        call: str,
        region: str,
    ) -> None:
        """A create that has been answered. `took_s`: of its stages, in their order, each since the create began."""
        if begun is None or not begun[0].sampled:
            return
        context, parent_id = begun
        attributes: dict[str, Value] = {"voxplane.call": call, "voxplane.region": region}
        start_ns, before = ns_of(at), 0.0
        for stage, until_s in took_s.items():
            began_ns, ended_ns = start_ns + int(before * 1e9), start_ns + int(until_s * 1e9)
            stage_id = self._add(f"call.{stage}", context, began_ns, ended_ns, INTERNAL, attributes)
            if stage == "commit":
                # the first event of the call is put there by the create itself
                told = _written(call, "call.created", Source.CONTROL, "stored")
                self._add("log.append", context.under(stage_id), began_ns, ended_ns, INTERNAL, told)
            before = until_s
        self.spans.add(
            Span(
                name="POST /v1/calls",
                trace_id=context.trace_id,
                span_id=context.span_id,
                parent_id=parent_id,
                start_ns=start_ns,
                end_ns=start_ns + int(before * 1e9),
                kind=SERVER,
                attributes=attributes,
            )
        )

    def appended(self, run: CallEvents, result: AppendStatus, began: datetime, ended: datetime) -> None:
        """A run of events that an edge has sent, with the context that came with it."""
        context = parse(run.trace) if run.trace and self.on else None
        if context is None or not context.sampled:
            return
        attributes: dict[str, Value] = {
            "voxplane.call": run.call, "voxplane.epoch": run.epoch, "voxplane.events": len(run.events),
            "voxplane.status": result.status,
        }  # fmt: skip
        failed = result.status not in ("durable", "busy", "duplicate")
        self._add(
            "log.append",
            context,
            ns_of(began),
            ns_of(ended),
            INTERNAL,
            attributes,
            error=result.status if failed else "",
        )

    @contextmanager
    def writing(
        self, call_id: UUID, trace: str, type_: str, source: Source, now: Callable[[], datetime]
    ) -> Iterator[Writing]:
        """One event of the control plane's, or of the project's, is put in the log of a call that was created under `trace`. What is
        raised meanwhile is its error, and goes on."""
        told = Writing()
        context = parse(trace) if trace and self.on else None
        if context is None or not context.sampled or not self._has_room(call_id, type_):
            yield told
            return
        began, failed = now(), ""
        try:
            yield told
        except BaseException as error:
            failed = type(error).__name__
            raise
        finally:
            attributes = _written(ids.encode(ids.CALL, call_id), type_, source, told.status)
            self._add("log.append", context, ns_of(began), ns_of(now()), INTERNAL, attributes, error=failed)

    def _has_room(self, call: UUID, type_: str) -> bool:
        if type_ == FINAL_TYPE:
            return True
        count = self._writes.pop(call, 0)
        self._writes[call] = count + 1
        if len(self._writes) > CALLS_MAX:
            self._writes.popitem(last=False)
        return count < WRITES_MAX

    def attempt(self, trace: str | None) -> Context | None:
        """Of one attempt to deliver an event of the call: what the endpoint is given as its parent. None: nothing is traced."""
        context = parse(trace) if trace and self.on else None
        return context.under(os.urandom(8)) if context is not None else None

    def attempted(
        self,
        context: Context,
        call: str,
        at: datetime,
        took_s: float,
        attributes: dict[str, Value],
        error: str,
    ) -> None:
        """`at`: when it was over."""
        if not context.sampled:
            return
        end_ns = ns_of(at)
        self.spans.add(
            Span(
                name="webhook.attempt",
                trace_id=context.trace_id,
                span_id=context.span_id,
                parent_id=span_of(call),
                start_ns=end_ns - int(took_s * 1e9),
                end_ns=end_ns,
                kind=CLIENT,
                attributes={"voxplane.call": call, **attributes},
                error=error,
            )
        )

    def _add(
        self,
        name: str,
        under: Context,
        start_ns: int,
        end_ns: int,
        kind: int,
        attributes: dict[str, Value],
        *,
        error: str = "",
    ) -> bytes:
        """Gives its id."""
        span_id = os.urandom(8)
        self.spans.add(
            Span(
                name=name,
                trace_id=under.trace_id,
                span_id=span_id,
                parent_id=under.span_id,
                start_ns=start_ns,
                end_ns=end_ns,
                kind=kind,
                attributes=attributes,
                error=error,
            )
        )
        return span_id

    async def worker(self, stop: asyncio.Event) -> None:
        wanted = self.spans.wanted
        headers = wanted.headers | {"content-type": CONTENT_TYPE}
        async with httpx.AsyncClient(timeout=wanted.timeout_s, headers=headers) as client:
            await asyncio.gather(self.spans.run(_post(client, wanted.endpoint), stop), self._count(stop))

    async def _count(self, stop: asyncio.Event) -> None:
        shown = dict.fromkeys(OUTCOMES, 0)
        while not stop.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await stop.wait()
            except TimeoutError:
                pass
            for outcome in OUTCOMES:
                spans_total.labels(outcome).inc(self.spans.counts[outcome] - shown[outcome])
                shown[outcome] = self.spans.counts[outcome]


def _written(call: str, type_: str, source: Source, status: str) -> dict[str, Value]:
    """Of one event: what kind it is, whose, and what became of it; nothing of what it says."""
    return {
        "voxplane.call": call, "voxplane.events": 1, "voxplane.type": type_, "voxplane.source": source.value,
        "voxplane.status": status,
    }  # fmt: skip


def _post(client: httpx.AsyncClient, endpoint: str) -> Post:
    async def post(body: bytes) -> int:
        try:
            return (await client.post(endpoint, content=body)).status_code
        except httpx.HTTPError as error:
            log.info("spans.not_sent", error=type(error).__name__)
            return 0

    return post
