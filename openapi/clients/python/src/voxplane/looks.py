"""Why a call is where it is: its timeline, a preview of a placement, and how far regions are from each other. For both clients."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote

from voxplane import requests as ask
from voxplane.requests import Json


class _Asks(Protocol):
    def request(self, method: str, path: str, json: Any = None) -> Any: ...


class _AsksLater(Protocol):
    async def request(self, method: str, path: str, json: Any = None) -> Any: ...


def _timeline(call_id: str) -> str:
    return f"/v1/calls/{quote(call_id, safe='')}/timeline"


class Looks:
    def timeline(self: _Asks, call_id: str) -> Json:
        """What happened to the call, in order: `placement`, `entries`, and what came too `late`."""
        found: Json = self.request("GET", _timeline(call_id))
        return found

    def preview_placement(self: _Asks, agent: Json | str, **wanted: Any) -> Json:
        """Where a call would be placed now, and why. `wanted`: as for `create_call`. Nothing is created."""
        asked = ask.preview_placement(agent, wanted)
        found: Json = self.request(asked.method, asked.path, asked.json)
        return found

    def region_matrix(self: _Asks) -> Json:
        """Round trips from region to region, as their edges measure them: `regions` and `ways`."""
        found: Json = self.request("GET", "/v1/regions/matrix")
        return found


class AsyncLooks:
    """The same, to be awaited."""

    async def timeline(self: _AsksLater, call_id: str) -> Json:
        found: Json = await self.request("GET", _timeline(call_id))
        return found

    async def preview_placement(self: _AsksLater, agent: Json | str, **wanted: Any) -> Json:
        asked = ask.preview_placement(agent, wanted)
        found: Json = await self.request(asked.method, asked.path, asked.json)
        return found

    async def region_matrix(self: _AsksLater) -> Json:
        found: Json = await self.request("GET", "/v1/regions/matrix")
        return found
