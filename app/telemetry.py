"""Logs and metrics. Decides how a line looks and which request lines are worth one; outcomes log themselves.

One wide line per outcome. What people said, phone numbers, keys and tickets are never given to a logger.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from app.clock import SystemClock
from app.release import release
from regions.wire.lines import Lines

_clock = SystemClock()
request_id: ContextVar[str] = ContextVar("request_id", default="")

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds for what a request waits for."""
LONG_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400)
"""And for what may take hours."""

registry = CollectorRegistry()
ProcessCollector(registry=registry)
build_info = Gauge(
    "voxplane_build_info", "1; the label says which release runs.", ["version"], registry=registry
)
build_info.labels(release()).set(1)
requests_total = Counter(
    "voxplane_http_requests", "Requests by operation and status.", ["operation", "status"], registry=registry
)
request_seconds = Histogram(
    "voxplane_http_request_seconds",
    "From a request to the head of its answer.",
    ["operation"],
    buckets=FAST_S,
    registry=registry,
)
create_seconds = Histogram(
    "voxplane_create_seconds",
    "A create, by what it waits for: check, place, commit, answer; and the total.",
    ["stage"],
    buckets=FAST_S,
    registry=registry,
)
certificate_ends_seconds = Gauge(
    "voxplane_certificate_ends_seconds",
    "For how long the certificate of its listener is still good; infinite where it is plain.",
    registry=registry,
)
certificate_ends_seconds.set(math.inf)
calls_created_total = Counter("voxplane_calls_created", "Calls placed.", ["region"], registry=registry)
calls_live = Gauge(
    "voxplane_calls", "Calls that have not ended, by state.", ["cell", "state"], registry=registry
)
failovers_total = Counter(
    "voxplane_failovers",
    "What became of calls, by region: reconnecting (after a failure), reconnected (audio flows), moved (planned).",
    ["region", "kind"],
    registry=registry,
)
events_appended_total = Counter("voxplane_events_appended", "Runs by outcome.", ["status"], registry=registry)
append_seconds = Histogram(
    "voxplane_append_seconds",
    "A batch of events from an edge, until its acknowledgement goes out.",
    buckets=FAST_S,
    registry=registry,
)
durable_seconds = Histogram(
    "voxplane_durable_seconds",
    "How long a commit of a few bytes took to be acknowledged, by the quorum where there is one.",
    ["cell"],
    buckets=FAST_S,
    registry=registry,
)
database_up = Gauge(
    "voxplane_database_up", "1 while a write is acknowledged in time.", ["cell"], registry=registry
)
database_replicated = Gauge(
    "voxplane_database_replicated", "1 where commits wait for standbys.", ["cell"], registry=registry
)
database_trouble_total = Counter(
    "voxplane_database_trouble",
    "Writes that were not acknowledged, by why (the reasons of /readyz).",
    ["cell", "trouble"],
    registry=registry,
)
pool_wait_seconds = Histogram(
    "voxplane_pool_wait_seconds",
    "How long a statement waited for a connection.",
    ["role"],
    buckets=FAST_S,
    registry=registry,
)
pool_connections = Gauge(
    "voxplane_pool_connections",
    "Connections of the driver's pools by state: used, idle.",
    ["cell", "role", "state"],
    registry=registry,
)
loop_lag_seconds = Histogram(
    "voxplane_loop_lag_seconds",
    "How late the event loop came back to one that had asked to be woken.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=registry,
)
log_lines_lost_total = Counter(
    "voxplane_log_lines_lost",
    "Lines of the log that could not be written: its disk is full, or nobody reads it.",
    registry=registry,
)
worker_restarts_total = Counter(
    "voxplane_worker_restarts", "Workers that failed and were started again.", ["worker"], registry=registry
)
workers_failing = Gauge(
    "voxplane_workers_failing", "Workers that make readiness red.", ["cell"], registry=registry
)
calls_reconciled_total = Counter(
    "voxplane_calls_reconciled",
    "Calls ended because nobody held them.",
    ["reason", "outcome"],
    registry=registry,
)
spool_events_total = Counter(
    "voxplane_spool_events", "Events flushed from spools by outcome.", ["outcome"], registry=registry
)
webhook_attempts_total = Counter(
    "voxplane_webhook_attempts", "Delivery attempts by outcome.", ["outcome"], registry=registry
)
webhook_attempt_seconds = Histogram(
    "voxplane_webhook_attempt_seconds",
    "What an endpoint took to answer, or not to.",
    ["outcome"],
    buckets=FAST_S,
    registry=registry,
)
webhook_lag_seconds = Histogram(
    "voxplane_webhook_lag_seconds",
    "From an event to the end of an attempt to deliver it.",
    ["outcome"],
    buckets=LONG_S,
    registry=registry,
)
webhook_backlog = Gauge(
    "voxplane_webhook_backlog",
    "Deliveries that are not done, by state; counted up to 100,000.",
    ["cell", "state"],
    registry=registry,
)
webhook_oldest_seconds = Gauge(
    "voxplane_webhook_oldest_due_seconds",
    "For how long the delivery has been due that has been due longest.",
    ["cell"],
    registry=registry,
)
erasure_oldest_seconds = Gauge(
    "voxplane_erasure_oldest_open_seconds",
    "For how long the erasure has been open that has been open longest; 0 where none is.",
    ["cell"],
    registry=registry,
)
feed_readers = Gauge("voxplane_feed_readers", "Open streams of events.", ["kind"], registry=registry)
feed_readers_cut_total = Counter(
    "voxplane_feed_readers_cut", "Streams cut off because they were not read.", ["kind"], registry=registry
)
events_unfit_total = Counter(
    "voxplane_events_unfit",
    "Events of an edge that the log can never hold, replaced by events.lost: a newer edge's, or a faulty one's.",
    ["region"],
    registry=registry,
)
volatile_events_total = Counter(
    "voxplane_volatile_events", "Volatile events that edges have sent here.", registry=registry
)
volatile_dropped_total = Counter(
    "voxplane_volatile_dropped", "Volatile events dropped, by where.", ["where"], registry=registry
)
audit_anchored_total = Counter(
    "voxplane_audit_anchored", "Anchors of the audit log that this instance has written.", registry=registry
)
audit_set_back_total = Counter(
    "voxplane_audit_set_back",
    "Rounds in which anchors were gone that had been seen: the log was set back.",
    registry=registry,
)
audit_missing_total = Counter(
    "voxplane_audit_missing",
    "Answers to requests that should have been written down, and were not.",
    registry=registry,
)
edge_key_misuses_total = Counter(
    "voxplane_edge_key_misuses",
    "Tokens that came signed with an edge's key that was replaced and holds no more.",
    ["region"],
    registry=registry,
)
uplinks = Gauge("voxplane_uplinks", "Uplinks this instance holds.", registry=registry)

spans_total = Counter(
    "voxplane_spans",
    "Spans by what became of them: exported, dropped (no room), failed (not taken).",
    ["outcome"],
    registry=registry,
)
standbys_renewed_total = Counter(
    "voxplane_standbys_renewed", "Calls that were given other standbys.", registry=registry
)
gain_moves_total = Counter(
    "voxplane_gain_moves", "Calls that were asked to move to a nearer region.", registry=registry
)
fleet_transitions_total = Counter(
    "voxplane_fleet_transitions", "Verdicts that this instance wrote.", ["kind", "verdict"], registry=registry
)
region_health = Gauge(
    "voxplane_region_health",
    "1 for the verdict that holds of a region.",
    ["region", "verdict"],
    registry=registry,
)
region_calls = Gauge("voxplane_region_calls", "Calls that a region carries.", ["region"], registry=registry)
region_capacity = Gauge(
    "voxplane_region_capacity_calls",
    "Calls that the edges of a region which are heard can carry.",
    ["region"],
    registry=registry,
)
edges_by_verdict = Gauge("voxplane_edges", "Edges by verdict.", ["verdict"], registry=registry)
detector_abstains = Gauge(
    "voxplane_detector_abstains", "1 while this instance lags, and changes nothing.", registry=registry
)
heartbeat_phi = Gauge(
    "voxplane_heartbeat_phi",
    "How unusual the silence of the region's quietest edge is.",
    ["region"],
    registry=registry,
)

tail_lag_seconds = Histogram(
    "voxplane_tail_lag_seconds",
    "From an event's acknowledgement to its place in the region's memory.",
    ["region"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=registry,
)
tails_waiting = Gauge(
    "voxplane_tails_waiting", "Calls whose tail waits to be written.", ["region"], registry=registry
)
tail_oldest_waiting_seconds = Gauge(
    "voxplane_tail_oldest_waiting_seconds",
    "For how long the region has lacked an event of the call that waits longest.",
    ["region"],
    registry=registry,
)
tails_dropped_total = Counter(
    "voxplane_tails_dropped", "Tails given up for room; the log mends them.", ["region"], registry=registry
)
tails_mended_total = Counter(
    "voxplane_tails_mended", "Tails found behind and written again.", ["region"], registry=registry
)
tail_steps_total = Counter(
    "voxplane_tail_steps",
    "Acknowledged writes by how they reached the tail: fold (in memory), read (from the log), known.",
    ["step"],
    registry=registry,
)


def _with_request_id(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    current = request_id.get()
    if current:
        event["request_id"] = current
    return event


def _stamped(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = _clock.now().isoformat(timespec="microseconds")[:-6] + "Z"
    return event


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    return _encode(event)


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure(log_format: str = "json", level: int = logging.INFO) -> None:
    """`log_format`: ``json`` (one object per line) or ``console``."""
    as_json = log_format == "json"
    last: Any = _json if as_json else structlog.dev.ConsoleRenderer(colors=False)
    factory: Any = (
        structlog.BytesLoggerFactory(Lines(sys.stdout.buffer, log_lines_lost_total.inc))  # type: ignore[arg-type]
        if as_json
        else structlog.PrintLoggerFactory(Lines(sys.stdout, log_lines_lost_total.inc))  # type: ignore[arg-type]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_request_id,
            structlog.processors.add_log_level,
            _stamped,
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def stand_at_zero(region: str) -> None:
    """Shows what alerts watch the increase of before there is any: Prometheus sees none in a counter that begins at 1."""
    for status in ("durable", "gap", "busy", "fenced", "conflict", "refused"):
        events_appended_total.labels(status)
    for kind in ("reconnecting", "reconnected", "moved"):
        failovers_total.labels(region, kind)
    edge_key_misuses_total.labels(region)
    events_unfit_total.labels(region)
