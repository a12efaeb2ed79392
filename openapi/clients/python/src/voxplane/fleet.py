"""What operators ask of the fleet: its health and the reasons for it. For both clients; the key is the platform's (``vx_op_…``)."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote

from voxplane.looks import AsyncLooks, Looks
from voxplane.requests import Json

FLEET_STREAM_PATH = "/admin/v1/events/stream"


class _Asks(Protocol):
    def request(self, method: str, path: str, json: Any = None, *, params: Json | None = None) -> Any: ...


class _AsksLater(Protocol):
    async def request(
        self, method: str, path: str, json: Any = None, *, params: Json | None = None
    ) -> Any: ...


class Fleet(Looks):
    def region_health(self: _Asks, region: str) -> Json:
        """Verdict, action, each edge with its signals and what would change it, and the latest transitions."""
        found: Json = self.request("GET", f"/admin/v1/regions/{quote(region, safe='')}/health")
        return found

    def edge_health(self: _Asks, edge: str) -> Json:
        """The same of one edge."""
        found: Json = self.request("GET", f"/admin/v1/edges/{quote(edge, safe='')}/health")
        return found

    def fleet_events(
        self: _Asks, cursor: str | None = None, *, types: list[str] | None = None, limit: int = 50
    ) -> Json:
        """A page: `data`, and `next_cursor` to go on from, now or later."""
        params = {"cursor": cursor, "types": types, "limit": limit}
        found: Json = self.request("GET", "/admin/v1/events", params=params)
        return found

    def start_drill(self: _Asks, kind: str, target: str, **more: Any) -> Json:
        """Rehearses a loss. `kind`: ``edge.loss`` or ``region.loss``; `more`: `calls`, `label`, `share`, `max_calls`, `how`,
        `bounds`, `time_limit_s`, `dry_run`. Never sent twice by itself: a second one would be refused."""
        found: Json = self.request("POST", "/admin/v1/drills", {"kind": kind, "target": target, **more})
        return found

    def drill(self: _Asks, drill_id: str) -> Json:
        """How far it is, and what became of each call."""
        found: Json = self.request("GET", f"/admin/v1/drills/{quote(drill_id, safe='')}")
        return found

    def drills(self: _Asks) -> list[Json]:
        """The newest first, without their calls."""
        found: list[Json] = self.request("GET", "/admin/v1/drills")["data"]
        return found

    def stop_drill(self: _Asks, drill_id: str) -> Json:
        """No more calls are cut; those that were are followed."""
        found: Json = self.request("POST", f"/admin/v1/drills/{quote(drill_id, safe='')}/stop")
        return found


class AsyncFleet(AsyncLooks):
    async def region_health(self: _AsksLater, region: str) -> Json:
        """See `Fleet.region_health`."""
        found: Json = await self.request("GET", f"/admin/v1/regions/{quote(region, safe='')}/health")
        return found

    async def edge_health(self: _AsksLater, edge: str) -> Json:
        """See `Fleet.edge_health`."""
        found: Json = await self.request("GET", f"/admin/v1/edges/{quote(edge, safe='')}/health")
        return found

    async def fleet_events(
        self: _AsksLater, cursor: str | None = None, *, types: list[str] | None = None, limit: int = 50
    ) -> Json:
        """See `Fleet.fleet_events`."""
        params = {"cursor": cursor, "types": types, "limit": limit}
        found: Json = await self.request("GET", "/admin/v1/events", params=params)
        return found

    async def start_drill(self: _AsksLater, kind: str, target: str, **more: Any) -> Json:
        """See `Fleet.start_drill`."""
        found: Json = await self.request("POST", "/admin/v1/drills", {"kind": kind, "target": target, **more})
        return found

    async def drill(self: _AsksLater, drill_id: str) -> Json:
        """See `Fleet.drill`."""
        found: Json = await self.request("GET", f"/admin/v1/drills/{quote(drill_id, safe='')}")
        return found

    async def drills(self: _AsksLater) -> list[Json]:
        """See `Fleet.drills`."""
        found: list[Json] = (await self.request("GET", "/admin/v1/drills"))["data"]
        return found

    async def stop_drill(self: _AsksLater, drill_id: str) -> Json:
        """See `Fleet.stop_drill`."""
        found: Json = await self.request("POST", f"/admin/v1/drills/{quote(drill_id, safe='')}/stop")
        return found
