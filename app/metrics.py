"""Every metric that there is, of the control plane and of edges: for the reference, and to hold dashboards and alerts against."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.telemetry import registry
from regions.wire.edge_metrics import EDGE_METRICS, Metric

HEAD = """# Metrics

Generated from what is registered (`make openapi`); do not edit.

An instance of the control plane and an edge each serve `GET /metrics` in Prometheus' text format, to whoever reaches the
listener: let no one but your Prometheus (`deploy/prometheus/prometheus.yml`). No label has the id of a call, a project, a key or
a person; `region`, `edge` names and operations are as many as you have. Dashboards are in `deploy/grafana`, alerts in
`deploy/prometheus/alerts.yml`, and what to do about each in [docs/runbooks](../runbooks/README.md).

A histogram `x` is stored as `x_bucket` (with `le`), `x_sum` and `x_count`. Every sample of an edge gets its `region` and
`edge` from the scrape configuration.
"""
PROCESS = "`process_*` (processor time, memory, open files, start) are those of every Prometheus client."


def control_metrics(of: CollectorRegistry = registry) -> dict[str, Metric]:
    """By the name of its samples: a counter's ends in ``_total``."""
    return dict(sorted(_registered(of)))


def _registered(of: CollectorRegistry) -> Iterator[tuple[str, Metric]]:
    for metric in {id(m): m for m in of._names_to_collectors.values()}.values():
        if isinstance(metric, Counter | Gauge | Histogram):
            name = f"{metric._name}_total" if metric._type == "counter" else metric._name
            yield name, Metric(metric._type, metric._documentation, tuple(metric._labelnames))


def sample_names() -> set[str]:
    """Every name that a query may ask for."""
    found: set[str] = set()
    for name, metric in (control_metrics() | EDGE_METRICS).items():
        found |= (
            {f"{name}_{part}" for part in ("bucket", "sum", "count")}
            if metric.kind == "histogram"
            else {name}
        )
    return found


def reference() -> str:
    parts = [HEAD, "\n## The control plane\n", _table(control_metrics()), f"\n{PROCESS}\n", "\n## An edge\n"]
    return "\n".join([*parts, _table(EDGE_METRICS), ""]).replace("\n\n\n", "\n\n")


def _table(metrics: dict[str, Metric]) -> str:
    rows = (
        f"| `{name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for name, m in sorted(metrics.items())
    )
    return "\n".join(("| name | kind | labels | what it says |", "|---|---|---|---|", *rows))
