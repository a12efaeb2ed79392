"""The console in a real Chromium: somebody signs in with one click, looks at every page, drains a region, sees a failover.

Every page is held to axe-core (no violation) and to the policy of the browser (no complaint), in light and dark; the pictures go to
``build/console-*.png``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.local.deployment import PLACES
from app.log.append import EdgeIdentity
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, event, owners_in
from tests.support.chromium import Chromium
from tests.support.people import account, link

pytestmark = [pytest.mark.browser]

BUILD = Path(__file__).parents[2] / "build"
AXE = Path(os.environ.get("AXE", BUILD / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
MEASURED: dict[str, float] = {}
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{7*7}}"


@pytest.fixture
async def browser(folder: Path) -> AsyncIterator[Chromium]:
    async with Chromium(folder / "profile") as started:
        await started.size(1440, 1000)
        yield started


@pytest.fixture(scope="module", autouse=True)
def measured() -> Iterator[None]:
    """Milliseconds until each page could be used."""
    yield
    BUILD.mkdir(exist_ok=True)
    (BUILD / "console.json").write_text(json.dumps(MEASURED, indent=2) + "\n")


async def placed(api: Api) -> list[EdgeIdentity]:
    """Six regions where `voxplane up` has them."""
    owners = await owners_in(api, tuple(p.id for p in PLACES))
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        for place in PLACES:
            await connection.execute(
                "update vx.regions set name = $2, latitude = $3, longitude = $4, jurisdiction = $5 where id = $1",
                place.id, place.name, place.latitude, place.longitude, place.jurisdiction,
            )  # fmt: skip
    finally:
        await connection.close()
    await api.control.fleet.refresh()
    return owners


async def call(project: Project, owners: list[EdgeIdentity], near: int, served: int) -> WrittenCall:
    latencies = [{"region": o.region, "rtt_ms": 15 + 70 * abs(i - near)} for i, o in enumerate(owners)]
    body = {
        "agent": {"url": "ws://127.0.0.1:9/"},
        "latencies": latencies,
        "regions": {"prefer": [owners[served].region]} if near == served else {"pin": owners[served].region},
        "metadata": {"order": HOSTILE},
    }
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    edges = [made.json()["placement"]["edge"], *(s["edge"] for s in made.json()["placement"]["standbys"])]
    known = {ids.encode(ids.EDGE, o.edge_id): o for o in owners}
    return WrittenCall(made.json()["id"], [known[e] for e in edges], project, made.json()["ticket"])


async def checked(browser: Chromium, name: str) -> None:
    """Pictures in light and dark, no violation, no complaint."""
    for dark in (False, True):
        await browser.dark(dark, still=True)
        await browser.screenshot(BUILD / f"console-{name}-{'dark' if dark else 'light'}.png")
        await browser.value(AXE.read_text() + ";0")
        found = await browser.value(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then(r =>"
            " JSON.stringify(r.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))])))"
        )
        assert json.loads(found) == [], f"{name}, dark: {dark}"
    entry = "performance.getEntriesByType('navigation')[0]"
    MEASURED[name] = round(await browser.value(f"{entry}.domContentLoadedEventEnd - {entry}.startTime"), 1)
    assert browser.complaints == []


async def test_pages(api: Api, browser: Chromium) -> None:
    owners = await placed(api)
    project = await api.project(name=f"Clinic {HOSTILE}")
    await api.project(name="Another")
    calls = [
        await call(project, owners, near, served)
        for near, served, many in (
            (0, 0, 9),
            (1, 1, 6),
            (0, 1, 4),
            (2, 2, 5),
            (3, 0, 3),
            (4, 4, 2),
            (5, 5, 2),
            (2, 1, 2),
        )
        for _ in range(many)
    ]
    for each in calls:
        await each.append(api, 1, event(1, "call.answered"))
    person = await account(api, "ada@example.com", {project.id: "owner"}, operator=True, name="Ada Lovelace")
    await account(api, "grace@example.com", {project.id: "viewer"}, name=HOSTILE)
    secret = await link(api, person, "sign_in")

    await browser.open(f"{api.url}/console")
    await browser.until("document.querySelector('h1')?.textContent === 'Sign in'")
    await checked(browser, "sign-in")
    await browser.open(f"{api.url}/console/sign-in/link#{secret}")
    await browser.until("document.querySelector('h1')?.textContent === 'Map'")
    assert await browser.value("location.hash") == ""
    await browser.until("document.getElementById('map-live').dataset.live === 'live'")

    await calls[0].append(api, 2, event(1, "call.reconnecting", reason="edge_lost"))
    await browser.until("document.querySelector('#map-happened .failover') !== null")
    await browser.until("document.querySelector('.flash.failover') !== null")
    await checked(browser, "map")
    for jump, title in (
        ("c", "Calls"),
        ("w", "Webhooks"),
        ("k", "Keys and people"),
        ("a", "Audit"),
        ("o", "World"),
        ("f", "Fleet"),
        ("p", "People"),
        ("m", "Map"),
    ):
        await browser.key("g")
        await browser.key(jump)
        await browser.until(f"document.querySelector('h1')?.textContent?.trim() === {title!r}")
        await checked(browser, title.lower().replace(" ", "-"))

    await browser.size(390, 844)
    await browser.open(f"{api.url}/console/p/{project.id}/map")
    assert await browser.value("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    await checked(browser, "phone-map")
    await browser.value("document.querySelector('[data-menu]').click()")
    await checked(browser, "phone-menu")


async def test_a_region_is_drained_by_hand(api: Api, browser: Chromium) -> None:
    await owners_in(api, ("us-central",))
    person = await account(api, "drains@example.com", operator=True)
    secret = await link(api, person, "sign_in")
    await browser.open(f"{api.url}/console/sign-in/link#{secret}")
    await browser.until("location.pathname === '/console/map'")
    await browser.open(f"{api.url}/console/fleet")
    press = "document.querySelector('form[action$=\"/us-central/drain\"] button').click()"
    await browser.value(press)
    await browser.until("document.getElementById('ask').open")
    await browser.screenshot(BUILD / "console-ask.png")
    await browser.value("document.querySelector('#ask [value=no]').click()")
    assert (await api.operator.get("/admin/v1/regions/us-central")).json()["admin_state"] == "active"
    await browser.value(press)
    await browser.value("document.querySelector('#ask [value=yes]').click()")
    await browser.until("document.querySelector('#fleet-drains')?.innerText.includes('us-central')")
    assert (await api.operator.get("/admin/v1/regions/us-central")).json()["admin_state"] == "draining"
    await checked(browser, "fleet-draining")
    await browser.open(f"{api.url}/console/fleet/regions/us-central")
    await checked(browser, "fleet-region")
    # what is done elsewhere is seen without a reload
    await browser.open(f"{api.url}/console/fleet")
    await api.operator.post("/admin/v1/regions/us-central/uncordon")
    await browser.until("document.querySelector('#fleet-drains')?.innerText.includes('canceled')")
    assert browser.complaints == []


async def test_a_key_is_made_and_the_theme_is_switched(api: Api, browser: Chromium, project: Project) -> None:
    person = await account(api, "keys@example.com", {project.id: "owner"})
    secret = await link(api, person, "sign_in")
    await browser.open(f"{api.url}/console/sign-in/link#{secret}")
    await browser.until("document.querySelector('h1')?.textContent === 'Map'")
    await browser.open(f"{api.url}/console/p/{project.id}/keys")
    await browser.value("document.querySelector('input[name=name]').value = 'made by hand'")
    await browser.value("document.querySelector('input[name=name]').form.requestSubmit()")
    made = await browser.until("document.getElementById('secret')?.textContent")
    assert (await (await api.client(made)).get("/v1/calls")).status_code == 200
    await checked(browser, "key-made")
    before = await browser.value("getComputedStyle(document.body).backgroundColor")
    await browser.value("document.querySelector('[data-theme-switch]').click()")
    assert await browser.value("getComputedStyle(document.body).backgroundColor") != before
    await browser.open(f"{api.url}/console/p/{project.id}/keys")
    assert await browser.value("getComputedStyle(document.body).backgroundColor") != before, (
        "it is remembered"
    )
    await browser.key("?")
    await browser.until("document.getElementById('help').open")
    await browser.screenshot(BUILD / "console-help.png")
