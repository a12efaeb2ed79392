"""Logs and metrics. Decides how a line looks and which request lines are worth one; outcomes log themselves.

One wide line per outcome. What people said, phone numbers, keys and tickets are never given to a logger.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.clock import SystemClock

_clock = SystemClock()
request_id: ContextVar[str] = ContextVar("request_id", default="")

registry = CollectorRegistry()
requests_total = Counter("voxplane_http_requests", "Requests by status class.", ["status"], registry=registry)
calls_created_total = Counter("voxplane_calls_created", "Calls placed.", ["region"], registry=registry)
events_appended_total = Counter("voxplane_events_appended", "Runs by outcome.", ["status"], registry=registry)
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
feed_readers = Gauge("voxplane_feed_readers", "Open streams of events.", ["kind"], registry=registry)
feed_readers_cut_total = Counter(
    "voxplane_feed_readers_cut", "Streams cut off because they were not read.", ["kind"], registry=registry
)
volatile_events_total = Counter(
    "voxplane_volatile_events", "Volatile events that edges have sent here.", registry=registry
)
volatile_dropped_total = Counter(
    "voxplane_volatile_dropped", "Volatile events dropped, by where.", ["where"], registry=registry
)
uplinks = Gauge("voxplane_uplinks", "Uplinks this instance holds.", registry=registry)

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
        logger_factory=structlog.BytesLoggerFactory() if as_json else structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
