"""The edge's ordinary HTTP: a probe that costs next to nothing, health, metrics. One ASGI function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any

from regions.edge.calls import Calls
from regions.edge.clock import precise_ms
from regions.edge.probe_gate import WORDS
from regions.edge.uplink import Uplink
from regions.media.pacer import LATE_MS

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"timing-allow-origin", b"*"),
    (b"cache-control", b"no-store"),
]


def make_app(calls: Calls, uplink: Uplink) -> App:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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
                return 200, b"text/plain; version=0.0.4", metrics().encode()
        return 404, b"text/plain", b"this listener has /probe, /healthz, /readyz and /metrics\n"

    def probed(scope: dict[str, Any]) -> str | None:
        probing = calls.context.probing
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
        ]
        network = probing.network(scope.get("client"), forwarded)
        return probing.gate.message(network or "", precise_ms() / 1000)

    def metrics() -> str:
        load = calls.load()
        return (
            f"# TYPE voxplane_edge_calls gauge\nvoxplane_edge_calls {load.calls}\n"
            f"# TYPE voxplane_edge_capacity_calls gauge\nvoxplane_edge_capacity_calls {load.capacity_calls}\n"
            f"# TYPE voxplane_edge_lateness_p99_ms gauge\nvoxplane_edge_lateness_p99_ms {load.lateness_p99_ms}\n"
            f"{late_turns(calls.late_turns)}{calls.context.backends.exposition()}{calls.context.probing.gate.exposition()}"
            "# HELP voxplane_edge_refused_total Attaches and takes that this edge had no room for.\n"
            f"# TYPE voxplane_edge_refused_total counter\nvoxplane_edge_refused_total {calls.refused}\n"
            f"# TYPE voxplane_edge_uplink_up gauge\nvoxplane_edge_uplink_up {int(uplink.up)}\n"
        )

    return app


def late_turns(counts: list[int]) -> str:
    """How late the turns of calls began: a counter per upper bound, each including those below it."""
    name = "voxplane_edge_turns_total"
    bounds = [*map(str, LATE_MS), "+Inf"]
    lines = [
        f'{name}{{late_ms_max="{bound}"}} {total}\n'
        for bound, total in zip(bounds, accumulate(counts), strict=True)
    ]
    return f"# TYPE {name} counter\n" + "".join(lines)
