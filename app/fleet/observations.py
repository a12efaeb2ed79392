"""What the edges report of each other: kept here until the next flush, written once per observer, read by every instance.

Decides whom an edge is told to look at, and what of a report is kept. What it means is decided by `votes`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import msgspec
import structlog

from app.connection import DATABASE_ERRORS
from app.db import Database
from app.fleet.votes import Left, Report, Seen
from app.ids import parse
from app.supervisor import wait_for_stop
from regions.wire import ids
from regions.wire.observations import TARGETS_MAX, Neighbour, Neighbours, Observed

log = structlog.get_logger()

FLUSH_S = 0.2
VANTAGES = 5
"""So many regions look at an edge, where there are so many."""
PER_VANTAGE = 2

# Only of an edge that is there; the newest report replaces the one before.
PUT = """
insert into vx.observations (edge_id, at, lag_ms, seen)
select r.id, clock_timestamp(), r.lag_ms, r.seen
  from unnest($1::uuid[], $2::float8[], $3::jsonb[]) as r(id, lag_ms, seen) join vx.edges e on e.id = r.id
on conflict (edge_id) do update set at = excluded.at, lag_ms = excluded.lag_ms, seen = excluded.seen
"""
SELECT_REPORTS = """
select o.edge_id, e.region, o.lag_ms, o.seen, extract(epoch from clock_timestamp() - o.at)::float8 as age_s
  from vx.observations o join vx.edges e on e.id = o.edge_id
 where o.at > clock_timestamp() - interval '15 seconds'
"""


class Known(Protocol):
    """As much of an edge as is needed to choose who looks at it."""

    @property
    def id(self) -> UUID: ...
    @property
    def region(self) -> str: ...
    @property
    def health(self) -> str: ...
    @property
    def http_url(self) -> str: ...
    @property
    def media_url(self) -> str: ...


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The column `seen`: probes and failures, as they came."""

    probes: list[tuple[str, str, str, float, int, int, bool]]
    failures: list[tuple[str, str, str, int]]


_kept = msgspec.json.Decoder(Kept)


@dataclass(slots=True)
class Observations:
    """The reports of all uplinks of this instance. `edges`: the fleet as it is seen now."""

    db: Database
    edges: Callable[[], Iterable[Known]]
    _newest: dict[UUID, Observed] = field(default_factory=dict)

    def heard(self, edge_id: UUID, observed: Observed) -> None:
        """Bounded: the newest of each uplink."""
        self._newest[edge_id] = observed

    def neighbours(self, edge_id: UUID) -> Neighbours:
        return Neighbours(targets=targets_of(edge_id, list(self.edges())))

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, FLUSH_S):
            if not self._newest:
                continue
            # in one order everywhere, so that two instances never wait for each other
            newest, self._newest = dict(sorted(self._newest.items())), {}
            try:
                await self.db.pool("admin").execute(
                    PUT,
                    list(newest),
                    [o.lag_ms for o in newest.values()],
                    [_column(o) for o in newest.values()],
                )
            except DATABASE_ERRORS as error:
                # the next reports say it again
                log.info("observations.lost", error=type(error).__name__)


def targets_of(observer: UUID, edges: list[Known]) -> list[Neighbour]:
    """Whom this edge looks at: of every other edge, `VANTAGES` regions drawn by lot do, by `PER_VANTAGE` of their edges that are
    heard. Its own region counts as one more where it has another edge. The lot is a hash, so that all instances draw alike."""
    chosen = [e for e in edges if e.id != observer and observer in _observers(e, edges)]
    chosen.sort(key=lambda e: _lot(observer, e.id))
    return [
        Neighbour(edge=ids.encode(ids.EDGE, e.id), http_url=e.http_url, media_url=e.media_url)
        for e in chosen[:TARGETS_MAX]
    ]


def _observers(target: Known, edges: list[Known]) -> set[UUID]:
    by_region: dict[str, list[UUID]] = {}
    for edge in edges:
        if edge.id != target.id and edge.health != "down":
            by_region.setdefault(edge.region, []).append(edge.id)
    regions = sorted(by_region, key=lambda r: (r == target.region, _lot(target.id, r)))[:VANTAGES]
    return {o for r in regions for o in sorted(by_region[r], key=lambda o: _lot(target.id, o))[:PER_VANTAGE]}


def _lot(one: UUID, other: UUID | str) -> bytes:
    return hashlib.blake2b(f"{one}{other}".encode(), digest_size=8).digest()


def _column(observed: Observed) -> str:
    return msgspec.json.encode([observed.probes, observed.failures]).decode()


def report_of(row: Any) -> Report | None:
    """A row as the core takes it; None where it cannot be read. An age below zero is a clock's fault, and old."""
    try:
        kept = _kept.decode(row["seen"])
    except msgspec.MsgspecError:
        return None
    seen, left = [], []
    for edge, listener, outcome, rtt_ms, age_ms, streak, reached in kept.probes:
        if (edge_id := parse(ids.EDGE, edge)) is not None:
            seen.append(
                Seen(edge=edge_id, listener=listener, outcome=outcome, rtt_ms=rtt_ms, age_s=age_ms / 1000, streak=streak,
                     reached=reached)
            )  # fmt: skip
    for call, edge, reason, age_ms in kept.failures:
        call_id, edge_id = parse(ids.CALL, call), parse(ids.EDGE, edge)
        if call_id is not None and edge_id is not None:
            left.append(Left(call=call_id, edge=edge_id, reason=reason, age_s=age_ms / 1000))
    return Report(
        observer=row["edge_id"], region=row["region"], age_s=row["age_s"] if row["age_s"] > -1 else 1e9, lag_ms=row["lag_ms"],
        seen=tuple(seen), left=tuple(left),
    )  # fmt: skip
