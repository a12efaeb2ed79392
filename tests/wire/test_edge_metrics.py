"""What an edge says of itself is what the reference says that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from regions.edge.http import make_app
from regions.wire.edge_metrics import EDGE_METRICS
from regions.wire.events import EndReason
from tests.support.lone_edge import lone_edge


class Up:
    up = True


async def test_an_edge_exposes_every_metric_of_the_reference_and_no_other(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        counts = edge.calls.context.counts
        counts.seen("call.reconnecting", {"from_epoch": 1, "to_epoch": 2, "reason": "silent"})
        counts.seen("call.ended", {"end_reason": EndReason.CALLER_HUNG_UP.value})
        counts.seen("call.ended", {"end_reason": "+14155550100"})
        counts.returned(0.7)
        app: Any = make_app(edge.calls, Up())  # type: ignore[arg-type]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            text = (await client.get("/metrics")).text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    exposed = {f"{n}_total" if f.type == "counter" else n: f for n, f in families.items()}
    assert {n: (f.type, f.documentation) for n, f in exposed.items()} == {
        n: (m.kind, m.help) for n, m in EDGE_METRICS.items()
    }
    for name, family in exposed.items():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels <= set(EDGE_METRICS[name].labels), name
    values = {(s.name, *s.labels.values()): s.value for f in exposed.values() for s in f.samples}
    assert values["voxplane_edge_taken_total", "silent"] == 1
    assert values["voxplane_edge_ended_total", "other"] == 1
    assert values["voxplane_edge_return_seconds_bucket", "0.75"] == 1
    assert "+1415" not in text
