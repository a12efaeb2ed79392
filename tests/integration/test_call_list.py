"""Lists of calls by several filters: complete and in order page by page, however short the time that a page may look."""

from __future__ import annotations

import re
from html import unescape
from itertools import chain, combinations
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from app.calls.listing import Filters, filters_of
from app.calls.store import StoredCall
from app.console import calls_page
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.fleet import three_regions
from tests.support.people import signed_in

FILTERS: list[dict[str, Any]] = [
    {"state": "ringing"},
    {"state": "canceled"},
    {"state": "busy"},
    {"region": "us-east"},
    {"region": "eu-west"},
    {"region": "mars-north"},
    {"caller_to": "+12065550100"},
    {"caller_to": "+12065550199"},
    {"caller_from": "+14155550100"},
    {"metadata": {"half": "even"}},
    {"metadata": {"third": "0"}},
    {"metadata": {"half": "odd", "third": "1"}},
    {"metadata": {"half": "neither"}},
]
NO_TIME, AMPLE_S = 0.0, 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


async def a_project_with_calls(api: Api) -> Project:
    project = await api.project()
    for n in range(18):
        made = await project.client.post(
            "/v1/calls",
            json={
                "agent": {"url": "ws://127.0.0.1:9/agent"},
                "caller": {"kind": "websocket", "from": "+14155550100", "to": f"+120655501{'00' if n % 4 else '99'}"},
                "metadata": {"half": "odd" if n % 2 else "even", "third": str(n % 3)},
                "regions": {"pin": "us-east" if n < 9 else "eu-west"},
            },
            headers={"Idempotency-Key": str(uuid4())},
        )  # fmt: skip
        assert made.status_code == 201, made.text
        if n % 5 == 0:
            await project.client.post(f"/v1/calls/{made.json()['id']}/end")
    return project


def asked(*parts: dict[str, Any]) -> Filters:
    given: dict[str, Any] = dict.fromkeys(
        ("state", "region", "created_after", "created_before", "caller_from", "caller_to")
    )
    metadata = {k: v for part in parts for k, v in part.get("metadata", {}).items()}
    for part in parts:
        given |= part
    return filters_of(**given | {"metadata": metadata})


def passes(call: StoredCall, filters: Filters) -> bool:
    caller = call.request.caller
    return (
        filters.state in (None, call.state)
        and filters.region in (None, call.region)
        and filters.caller_to in (None, caller.to)
        and filters.caller_from in (None, caller.from_)
        and filters.metadata.items() <= call.metadata.items()
    )


async def test_two_filters_find_the_same_however_short_the_time_is(api: Api) -> None:
    project = await a_project_with_calls(api)
    store, owner = api.control.calls.store, ids.decode(ids.PROJECT, project.id)
    everything = (await store.page(owner, asked(), below=None, limit=50)).calls
    assert len(everything) == 18

    async def pages(filters: Filters, limit: int, look_s: float) -> list[list[UUID]]:
        found, below = [], None
        while not found or below is not None:
            page = await store.page(owner, filters, below=below, limit=limit, look_s=look_s)
            assert below is None or page.below is None or page.below < below, "it goes on"
            assert len(page.calls) <= limit
            found.append([call.id for call in page.calls])
            below = page.below
        return found

    short = 0
    for pair in [(one,) for one in FILTERS] + list(combinations(FILTERS, 2)):
        filters = asked(*pair)
        wanted = [call.id for call in everything if passes(call, filters)]
        patient, hasty = await pages(filters, 4, AMPLE_S), await pages(filters, 4, NO_TIME)
        assert list(chain(*patient)) == wanted, pair
        assert all(len(page) == 4 for page in patient[:-1]), f"a page is full while there is time: {pair}"
        assert list(chain(*hasty)) == wanted, pair
        short += any(len(page) < 4 for page in hasty[:-1])
    assert short > 20, "the pages that time has cut were among them"


async def test_the_console_says_how_far_it_has_looked_and_looks_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await a_project_with_calls(api)
    monkeypatch.setattr(calls_page, "ROWS", 1)
    monkeypatch.setattr(calls_page, "LOOK_S", NO_TIME)
    came, _ = await signed_in(api, f"{uuid4().hex}@example.com", {project.id: "viewer"})
    path: str | None = f"/console/p/{project.id}/calls?region=us-east&name=third&value=0"
    shown, said = [], []
    while path:
        page = (await came.get(path)).text
        shown += re.findall(r'id="go-(call_\w+)"', page)
        said.append("None so far" in page)
        assert "Look on in older calls" in page or not said[-1]
        onward = re.search(r'href="([^"]*cursor=[^"]*)"', page)
        path = unescape(onward[1]) if onward else None
    everything = (
        await project.client.get("/v1/calls", params={"region": "us-east", "metadata.third": "0"})
    ).json()
    assert shown == [call["id"] for call in everything["data"]] and len(shown) == 3
    assert said[0] and len(said) > 3, "pages without a call were among them"
