"""What the console costs who looks: how late a failover shows on the map with a thousand calls alive, and how heavy a page is.

An instance and the readers share this process, over real engines. The edges are on paper: what they would append is appended as they
do.
"""

from __future__ import annotations

import asyncio
import logging
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from app.console.pages import PAGES
from app.settings import Settings
from regions.wire import ids
from tests.bench.report import Figure
from tests.support.api import Api, Project, serving
from tests.support.calls import WrittenCall, create_call, event, owners_in
from tests.support.engines import Engines, running_engines
from tests.support.people import Browser, signed_in

CALLS = 1_000
FAILOVERS = 25
AT_ONCE = 16
REGIONS = ("us-east", "eu-west", "ap-south")
OPERATOR_KEY = "vx_op_0123456789abcdefghijklmnopqrstuv"
WITHIN_S = 20.0


async def measure(*, full: bool) -> list[Figure]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        async with _engines() as engines, engines.database() as url:
            settings = Settings(
                database_url=url,
                redis_urls=engines.redis_urls,
                data=Path(folder),
                port=0,
                operator_key=OPERATOR_KEY,
                local_targets=True,
                attach_within_s=900,
            )
            async with serving(settings) as api:
                return await _measured(api)


@asynccontextmanager
async def _engines() -> AsyncIterator[Engines]:
    """They are started and stopped by a loop of their own, in a thread that lives as long as they do."""
    loop, stack = asyncio.get_running_loop(), ExitStack()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield await loop.run_in_executor(thread, stack.enter_context, running_engines())
        finally:
            await loop.run_in_executor(thread, stack.close)


async def _measured(api: Api) -> list[Figure]:
    owners = await owners_in(api, REGIONS * 14)
    project = await api.project(name="bench")
    calls = await _calls(api, project, owners)
    came, _ = await signed_in(api, "bench@example.com", {project.id: "owner"}, operator=True)
    lags = await _lags(api, came, f"/console/p/{project.id}/map/live", calls)
    pages = {page.label: await _weight(came, project, page) for page in PAGES}
    heaviest = max(pages, key=lambda label: pages[label])
    how = f"{CALLS} calls alive; the worst of {FAILOVERS}, median {statistics.median(lags):.0f} ms"
    return [
        Figure(family="admin", name="console.map_lag_ms", value=max(lags), unit="ms", how=how, target=1_000, at_most=True),
        Figure(
            family="admin", name="console.page_kb", value=pages[heaviest], unit="KB", target=200, at_most=True,
            how=f"{heaviest}, the heaviest of {len(pages)}, with its files, as sent",
        ),
    ]  # fmt: skip


async def _calls(api: Api, project: Project, owners: list[Any]) -> list[WrittenCall]:
    """Answered ones. Each is owned by an edge of the first region, so that there is a next one to take it."""
    known = {ids.encode(ids.EDGE, o.edge_id): o for o in owners}
    seats = asyncio.Semaphore(AT_ONCE)

    async def one() -> WrittenCall:
        async with seats:
            made = await create_call(project, owners[:3])
            placed = (await project.client.get(f"/v1/calls/{made.id}")).json()["placement"]
            edges = [placed["edge"], *(s["edge"] for s in placed["standbys"])]
            call = WrittenCall(made.id, [known[e] for e in edges], project, made.ticket)
            await call.append(api, 1, event(1, "call.answered"))
            return call

    return await asyncio.gather(*(one() for _ in range(CALLS)))


async def _lags(api: Api, came: Browser, path: str, calls: list[WrittenCall]) -> list[float]:
    """From the moment before a successor's first event is appended until the reader has the line about it."""
    lags: list[float] = []
    async with asyncio.timeout(WITHIN_S * FAILOVERS), came.client.stream("GET", path) as answer:
        lines = answer.aiter_lines()
        await _until(lines, "event: html")
        for call in calls[:FAILOVERS]:
            began = time.perf_counter()
            await call.append(api, 2, event(1, "call.reconnecting", reason="edge_lost"))
            await _until(lines, "event: moved")
            lags.append((time.perf_counter() - began) * 1000)
    return lags


async def _until(lines: Any, wanted: str) -> None:
    async for line in lines:
        if line == wanted:
            return
    raise AssertionError(f"the stream ended without {wanted!r}")


async def _weight(came: Browser, project: Project, page: Any) -> float:
    """In KB of 1,000 bytes: the page and every file that it names, as a browser without a cache loads them."""
    path = f"/console/p/{project.id}/{page.key}" if page.scope == "project" else f"/console/{page.key}"
    shown = await came.get(path)
    assert shown.status_code == 200, (path, shown.status_code)
    files = set(re.findall(r'"(/console/assets/[^"#]+)', shown.text))
    return (len(shown.content) + sum([len((await came.get(file)).content) for file in files])) / 1000
