"""``voxplane call --browser``: a call for whoever sits at this machine, in the page that its edge serves."""

from __future__ import annotations

import webbrowser
from typing import Any
from urllib.parse import quote

import httpx

from app.local.process import EngineError
from voxplane import AsyncClient, trust

PAGE = "/talk"
PROBE = "/probe"
WITHIN_S = 5.0


async def open_talk(client: AsyncClient, *, agent: str, dialect: str, webrtc: bool = False) -> None:
    """Places a call, prints the address of its page, and opens it where this machine has a browser. Raises `EngineError`."""
    async with client:
        pages = page_urls(await client.regions())
        latencies = await client.probe()
        caller = {"kind": "webrtc" if webrtc else "websocket"}
        call = await client.create_call(
            {"url": agent, "dialect": dialect}, caller=caller, latencies=latencies
        )
        page = pages.get(call["region"], "")
        if not await _is_served(page):
            await client.end_call(call["id"])
            raise EngineError(
                "no_page",
                f"The edge in {call['region']} serves no page to talk with ({page or 'it names no HTTP listener'}).",
                "`voxplane up` does; else start the edge with VOXPLANE_TALK_PAGE=1.",
            )
    print(f"{call['id']} in {call['region']} ({call['placement']['protection']} protection)")
    # in the fragment: a browser sends it to nobody
    address = f"{page}#ticket={quote(call['ticket'], safe='')}"
    print(f"open this now, and keep it to yourself:\n\n  {address}\n")
    print(f"afterwards: voxplane call timeline {call['id']}", flush=True)
    webbrowser.open(address)


def page_urls(regions: list[dict[str, Any]]) -> dict[str, str]:
    """Region → the page of its first edge, as `GET /v1/regions` names its HTTP listener."""
    return {r["id"]: r["probes"][0]["http"].removesuffix(PROBE) + PAGE for r in regions if r.get("probes")}


async def _is_served(page: str) -> bool:
    try:
        async with httpx.AsyncClient(
            timeout=WITHIN_S, trust_env=False, verify=trust.context() or True
        ) as http:
            return page != "" and (await http.head(page)).status_code == 200
    except httpx.HTTPError:
        return False
