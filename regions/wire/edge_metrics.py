"""What an edge counts: the name of each metric, its kind, its labels, and what it means.

An edge writes its `/metrics` from these (`regions.edge.http`), the reference is generated from them, and dashboards and alerts are
held against them. No label has the id of a call, a project or a key: there are as many series as an edge has ways to fail.
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """`kind`: gauge, counter or histogram; a counter's name ends in ``_total``."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


EDGE_METRICS: dict[str, Metric] = {
    "voxplane_edge_calls": Metric("gauge", "Calls that are owned here."),
    "voxplane_edge_capacity_calls": Metric("gauge", "Calls that there is room for."),
    "voxplane_edge_lateness_p99_ms": Metric("gauge", "How late the turns of calls began lately."),
    "voxplane_edge_turns_total": Metric(
        "counter", "Turns of 20 ms that began at most so late, those below included.", ("late_ms_max",)
    ),
    "voxplane_edge_refused_total": Metric("counter", "Attaches and takes that there was no room for."),
    "voxplane_edge_uplink_up": Metric("gauge", "1 while the control plane is heard."),
    "voxplane_edge_certificate_ends_seconds": Metric(
        "gauge",
        "For how long the certificate of its listeners is still good; infinite where they are plain.",
    ),
    "voxplane_edge_unacknowledged_events": Metric(
        "gauge", "Events that are not durable yet, of all calls here."
    ),
    "voxplane_edge_events_total": Metric("counter", "Events that were written here, by type.", ("type",)),
    "voxplane_edge_taken_total": Metric(
        "counter", "Calls that were taken over from another owner, by why.", ("reason",)
    ),
    "voxplane_edge_ended_total": Metric("counter", "Calls that were ended here, by why.", ("reason",)),
    "voxplane_edge_presses_dropped_total": Metric(
        "counter",
        "Keys of callers, and presses of their button, beyond 50 in five seconds: they did nothing.",
        ("kind",),
    ),
    "voxplane_edge_return_seconds": Metric(
        "histogram", "From a call's loss of its owner or backend, as seen here, to audio both ways."
    ),
    "voxplane_edge_backends_lost_total": Metric("counter", "Backends that were lost, by how.", ("why",)),
    "voxplane_edge_backend_absences_total": Metric(
        "counter", "Absences of backends, by how they ended.", ("outcome",)
    ),
    "voxplane_edge_backend_away_seconds": Metric(
        "histogram", "How long callers waited for a backend that came back."
    ),
    "voxplane_edge_answer_ms": Metric("histogram", "What an answer took, by stage and in all.", ("stage",)),
    "voxplane_edge_answer_budget_exceeded_total": Metric(
        "counter", "Answers over the budget of their call, by stage.", ("stage",)
    ),
    "voxplane_edge_probes_total": Metric("counter", "Probes of callers that were answered."),
    "voxplane_edge_probes_refused_total": Metric("counter", "Probes that were refused, by why.", ("why",)),
    "voxplane_edge_probe_sockets": Metric("gauge", "Sockets that probes are open on."),
    "voxplane_edge_spans_total": Metric(
        "counter",
        "Spans by what became of them: exported, dropped (no room), failed (not taken).",
        ("outcome",),
    ),
    "voxplane_edge_log_lines_lost_total": Metric(
        "counter", "Lines of the log that could not be written: its disk is full, or nobody reads it."
    ),
    "voxplane_edge_build_info": Metric("gauge", "1; the label says which release runs.", ("version",)),
    "voxplane_edge_start_time_seconds": Metric("gauge", "When this life of the edge began, in Unix seconds."),
}


def head(name: str) -> str:
    """The two lines that stand before a metric's samples."""
    metric = EDGE_METRICS[name]
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
