"""The edge's ordinary HTTP: a probe that costs next to nothing, health, metrics, and the page at ``/talk``. One ASGI function."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any

from regions.callers.whip import Signalling, is_whip, whip
from regions.edge.calls import Calls
from regions.edge.clock import precise_ms
from regions.edge.logs import LOST
from regions.edge.probe_gate import WORDS
from regions.edge.software import software
from regions.edge.span_sender import exposition as spans
from regions.edge.talk_page import TalkPage
from regions.edge.uplink import Uplink
from regions.media.pacer import LATE_MS
from regions.wire.edge_metrics import head

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

BUILD, RELEASE = "voxplane_edge_build_info", software()
NOT_HERE = b"this listener has /probe, /v1/webrtc, /healthz, /readyz and /metrics; the media listener has WebSockets\n"
STARTED_S = round(time.time(), 3)
CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"timing-allow-origin", b"*"),
    (b"cache-control", b"no-store"),
]


def make_app(
    calls: Calls, uplink: Uplink, signalling: Signalling | None = None, talk: TalkPage | None = None
) -> App:
    """`signalling`: of callers over WebRTC, where this edge has any. `talk`: the page, where it is to be served."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        part = talk.part(scope["path"]) if talk is not None else None
        if part is not None and scope["method"] in ("GET", "HEAD"):
            body = part.body if scope["method"] == "GET" else b""
            await send({"type": "http.response.start", "status": 200, "headers": part.headers})
            await send({"type": "http.response.body", "body": body})
            return
        if is_whip(scope["path"]):
            status, more, body = await whip(signalling, scope, receive)
            length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
            exposed = (b"access-control-expose-headers", b"location")
            await send(
                {"type": "http.response.start", "status": status, "headers": [*CORS, exposed, *more, *length]}
            )
            await send({"type": "http.response.body", "body": body})
            return
        status, kind, body = answer(scope)
        headers = [*CORS, (b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status == 204:
            headers = [*CORS]
        elif status == 429:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})

    def answer(scope: dict[str, Any]) -> tuple[int, bytes, bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, b"text/plain", b"only GET here\n"
        match scope["path"]:
            case "/probe":
                why = probed(scope)
                return (204, b"", b"") if why is None else (429, b"text/plain", f"{WORDS[why]}\n".encode())
            case "/healthz":
                return 200, b"text/plain", b"ok\n"
            case "/readyz":
                return (200, b"text/plain", b"ready\n") if uplink.up else (503, b"text/plain", b"no uplink\n")
            case "/metrics":
                return 200, b"text/plain; version=0.0.4", exposition(calls, uplink).encode()
        return 404, b"text/plain", NOT_HERE

    def probed(scope: dict[str, Any]) -> str | None:
        probing = calls.context.probing
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
        ]
        network = probing.network(scope.get("client"), forwarded)
        return probing.gate.message(network or "", precise_ms() / 1000)

    return app


def exposition(calls: Calls, uplink: Uplink) -> str:
    """What `GET /metrics` says; see `regions.wire.edge_metrics`."""
    load, context = calls.load(), calls.context
    plain: dict[str, float] = {
        "voxplane_edge_calls": load.calls,
        "voxplane_edge_capacity_calls": load.capacity_calls,
        "voxplane_edge_lateness_p99_ms": load.lateness_p99_ms,
        "voxplane_edge_refused_total": calls.refused,
        "voxplane_edge_uplink_up": int(uplink.up),
        "voxplane_edge_certificate_ends_seconds": context.certificate_ends_in_s(),
        "voxplane_edge_unacknowledged_events": sum(len(outbox.unacked) for outbox in calls.outboxes),
        "voxplane_edge_log_lines_lost_total": LOST.count,
        "voxplane_edge_start_time_seconds": STARTED_S,
    }
    lines = [f"{head(name)}{name} {value}\n" for name, value in plain.items()]
    lines.append(f'{head(BUILD)}{BUILD}{{version="{RELEASE}"}} 1\n')
    parts = (context.counts, context.backends, context.answers, context.probing.gate)
    counted = "".join(part.exposition() for part in parts) + spans(context.spans)
    return "".join(lines) + late_turns(calls.late_turns) + counted


def late_turns(counts: list[int]) -> str:
    """How late the turns of calls began: a counter per upper bound, each including those below it."""
    name = "voxplane_edge_turns_total"
    bounds = [*map(str, LATE_MS), "+Inf"]
    lines = [
        f'{name}{{late_ms_max="{bound}"}} {total}\n'
        for bound, total in zip(bounds, accumulate(counts), strict=True)
    ]
    return head(name) + "".join(lines)
