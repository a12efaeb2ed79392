"""Measures what is worth measuring: the regions that the server suggests, in two rounds at most, and not again while it is fresh.

Decides whom to probe, how often and for how long a result holds; a round itself is `probing`'s. The server knows which regions tell
networks apart: those are the first round. With their round trips it names the regions that may be nearest: the second. A server that
suggests nothing, or is too old to be asked, has all of its regions measured.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from voxplane import requests as ask
from voxplane.errors import ApiError, Unavailable
from voxplane.probing import BUDGET_MS, FIRST_MAX, Latency, chosen, probe_regions
from voxplane.requests import Json, Request

ALL_MAX = 6
"""So few regions are all measured, unless the server suggests some."""
TTL_S, TTL_MIN_S, TTL_MAX_S = 60.0, 1.0, 600.0
NOT_THERE = frozenset({404, 405})
KEPT_MAX = 16


class Prober:
    """The probing of one client. `probe` may be called from many tasks: they share one measurement."""

    def __init__(self, client: AsyncProbes) -> None:
        self._client = client
        self._one_at_a_time = asyncio.Lock()
        self._page: Json = {}
        self._page_until_s = -math.inf
        self._kept: dict[frozenset[str], tuple[float, list[Latency]]] = {}

    async def probe(self, *, budget_ms: float, fresh: bool) -> list[Latency]:
        """See `AsyncProbes.probe`."""
        async with self._one_at_a_time:
            page = await self._regions(fresh=fresh)
            regions = chosen(page["data"], None)
            key = frozenset(region["id"] for region in regions)
            until_s, kept = self._kept.get(key, (-math.inf, []))
            if not fresh and _now_s() < until_s:
                return list(kept)
            found, ttl_s = await self._rounds(page, regions, budget_ms)
            self._kept = {k: v for k, v in self._kept.items() if k != key and _now_s() < v[0]}
            if found and len(self._kept) < KEPT_MAX:
                self._kept[key] = (_now_s() + ttl_s, found)
            return list(found)

    async def _regions(self, *, fresh: bool) -> Json:
        if fresh or _now_s() >= self._page_until_s:
            self._page = await self._client._ask(ask.regions())
            self._page_until_s = _now_s() + _ttl_s(self._page)
        return self._page

    async def _rounds(self, page: Json, regions: list[Json], budget_ms: float) -> tuple[list[Latency], float]:
        """What was measured, nearest first, and for how many seconds it holds."""
        first: list[str] | None = page.get("probe_first") or None
        if first is None and len(regions) > ALL_MAX:
            first = (await self._suggestions([])).get("probe_next") or None
        if first is None:
            return await probe_regions(regions, budget_ms=budget_ms), _ttl_s(page)
        asked = [region["id"] for region in chosen(regions, first)]
        found = await probe_regions(regions, first=asked, budget_ms=budget_ms)
        answer = await self._suggestions(found)
        following = [name for name in answer.get("probe_next") or () if name not in asked]
        if answer.get("missing"):
            rest = [region for region in regions if region["id"] not in asked]
            found += await probe_regions(rest, budget_ms=budget_ms)
        elif following and len(asked) < FIRST_MAX:
            second = following[: FIRST_MAX - len(asked)]
            found += await probe_regions(regions, first=second, budget_ms=budget_ms)
        return sorted(found, key=lambda latency: latency.rtt_ms), _ttl_s(answer)

    async def _suggestions(self, found: list[Latency]) -> Json:
        """What `POST /v1/probes` says; `missing` where there is no such route. Where nobody answers there is nothing to go by,
        and what was measured is good all the same."""
        try:
            answer = await self._client._ask(ask.probes(found))
        except ApiError as error:
            return {"missing": error.status in NOT_THERE}
        except Unavailable:
            return {}
        return answer if isinstance(answer, dict) else {}


class AsyncProbes:
    """The part of `AsyncClient` that measures."""

    _prober: Prober | None = None

    async def _ask(self, wanted: Request) -> Any:
        raise AssertionError("a client sends it")

    async def probe(self, *, budget_ms: float = BUDGET_MS, fresh: bool = False) -> list[Latency]:
        """The regions near this machine, nearest first, for `create_call(latencies=…)`: measure where the caller is.

        At most four regions in two rounds of `budget_ms` where the server suggests them, else all of them in one. What was
        found is given again for as long as the server says it holds, unless `fresh`. Empty where no region answers: the call is
        placed by what the server knows. Raises `ApiError` or `Unavailable` where the regions cannot be listed.
        """
        if self._prober is None:
            self._prober = Prober(self)
        return await self._prober.probe(budget_ms=budget_ms, fresh=fresh)


def _ttl_s(said: Json) -> float:
    value = said.get("ttl_s", TTL_S)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return TTL_S
    return min(TTL_MAX_S, max(TTL_MIN_S, value))


def _now_s() -> float:
    """By a clock that nobody sets."""
    return time.monotonic()
