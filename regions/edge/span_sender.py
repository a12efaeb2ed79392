"""What an edge says of its spans, and how they leave it: to an OTLP collector over HTTP."""

from __future__ import annotations

import asyncio

import httpx
import structlog

from regions.edge.settings import EdgeSettings
from regions.wire.edge_metrics import head
from regions.wire.otlp import CONTENT_TYPE
from regions.wire.span_export import Spans

log = structlog.get_logger()

SERVICE = "voxplane-edge"
METRIC = "voxplane_edge_spans_total"


def spans_of(settings: EdgeSettings) -> Spans:
    wanted = settings.tracing
    return Spans(
        wanted,
        {
            "service.name": wanted.service or SERVICE,
            "service.instance.id": f"{settings.region}/{settings.name}",
            "voxplane.region": settings.region,
            **wanted.resource,
        },
    )


async def send_spans(spans: Spans, stop: asyncio.Event) -> None:
    """Nothing where tracing is off."""
    wanted = spans.wanted
    if not wanted:
        return
    async with httpx.AsyncClient(
        timeout=wanted.timeout_s, headers=wanted.headers | {"content-type": CONTENT_TYPE}
    ) as client:

        async def post(body: bytes) -> int:
            try:
                return (await client.post(wanted.endpoint, content=body)).status_code
            except httpx.HTTPError as error:
                log.info("spans.not_sent", error=type(error).__name__)
                return 0

        await spans.run(post, stop)


def exposition(spans: Spans) -> str:
    return head(METRIC) + "".join(f'{METRIC}{{outcome="{name}"}} {n}\n' for name, n in spans.counts.items())
