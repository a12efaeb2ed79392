"""The console's pages of calls, webhooks, usage and the audit log in a real Chromium, of real calls: spoken, answered, taken over.

Every page is held to axe-core (no violation), to the policy of the browser (no complaint) and to its size, in light and dark, and on
a phone; the pictures go to ``build/console-*.png``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.local.caller_script import Talker
from app.local.demo import RATE_HZ, Demo, _speak_lines
from app.local.deployment import Deployment
from app.local.receiver import WebhookReceiver
from tests.support.api import Api
from tests.support.chromium import Chromium
from tests.support.deployed import deployed
from tests.support.engines import Engines
from tests.support.people import account, link
from voxplane import AsyncCaller, AsyncClient

pytestmark = [pytest.mark.browser]

BUILD = Path(__file__).parents[2] / "build"
AXE = Path(os.environ.get("AXE", BUILD / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{7*7}}"
NEAR = [{"region": name, "rtt_ms": ms} for name, ms in (("us-east", 12), ("eu-west", 88), ("ap-south", 210))]
PAGE_BYTES_MAX = 200 * 1024


@pytest.fixture
async def deployment(engines: Engines) -> AsyncIterator[Deployment]:
    async with deployed(engines) as running:
        async with running.operator() as operator:
            await running.until_healthy(operator)
        yield running


@pytest.fixture
async def browser(folder: Path) -> AsyncIterator[Chromium]:
    async with Chromium(folder / "profile") as started:
        await started.size(1440, 1000)
        yield started


async def checked(browser: Chromium, name: str, *, phone: bool = True) -> None:
    """Pictures in light and dark and on a phone; no violation, no complaint, not too large, nothing wider than the screen."""
    size = await browser.value("new Blob([document.documentElement.outerHTML]).size")
    assert size <= PAGE_BYTES_MAX, (name, size)
    widths = [(False, 1440, 1000), (True, 1440, 1000), (True, 390, 844)]
    for dark, width, height in widths if phone else widths[:2]:
        await browser.dark(dark, still=True)
        await browser.size(width, height)
        kind = "phone" if width < 600 else "dark" if dark else "light"
        await browser.screenshot(BUILD / f"console-{name}-{kind}.png")
        assert await browser.value(
            f"document.documentElement.scrollWidth <= {width} && innerWidth === {width}"
        ), (name, kind)
        await browser.value(AXE.read_text() + ";0")
        found = await browser.value(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then(r =>"
            " JSON.stringify(r.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))])))"
        )
        assert json.loads(found) == [], (name, kind)
    await browser.size(1440, 1000)
    assert browser.complaints == []


async def came_in(deployment: Deployment, browser: Chromium, project: str) -> None:
    async with deployment.operator() as operator:
        api = cast(Api, SimpleNamespace(operator=operator))
        person = await account(api, "ada@example.com", {project: "owner"}, name="Ada Lovelace")
        secret = await link(api, person, "sign_in")
    await browser.open(f"{deployment.api_urls[0]}/console/sign-in/link#{secret}")
    await browser.until("document.querySelector('nav') !== null")


async def titled(browser: Chromium, title: str) -> None:
    await browser.until(f"document.querySelector('h1')?.textContent?.trim() === {title!r}")


async def test_pages_of_real_calls(deployment: Deployment, browser: Chromium, folder: Path) -> None:
    project, key = await deployment.create_project(f"Clinic {HOSTILE}")
    demo = Demo(lambda _: None)
    async with demo._stack, WebhookReceiver() as receiver, AsyncClient(deployment.api_urls, key) as client:
        lines = await asyncio.to_thread(_speak_lines, folder)
        _, url = await demo._backend(folder, "near", "backend.py")
        home = f"{deployment.api_urls[0]}/console/p/{project}"
        await came_in(deployment, browser, project)
        for page in ("calls", "webhooks", "usage"):
            await browser.open(f"{home}/{page}")
            await browser.until("document.querySelector('.empty') !== null")
            await checked(browser, f"{page}-empty", phone=False)

        await browser.open(f"{home}/calls")
        await browser.until("document.getElementById('calls-live').dataset.live === 'live'")
        receiver.secret = (await client.create_webhook(receiver.url))["secret"]
        call = await client.create_call(
            {"url": url},
            latencies=NEAR,
            metadata={"order": HOSTILE, "customer": "acme"},
            latency_budget={"total_ms": 200.0},
        )
        await browser.until(f"document.getElementById('go-{call['id']}') !== null")
        async with (
            AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
            Talker(caller, RATE_HZ) as talker,
        ):
            await talker.until_quiet()
            await browser.open(f"{home}/calls/{call['id']}")
            await browser.until("document.getElementById('call-live').dataset.live === 'live'")
            for line in ("ask", "interrupt"):
                spoke = await talker.say(lines[line])
                await talker.until_heard(since=spoke)
                await talker.until_quiet()
            os.kill(deployment.regions[caller.region].edge.pid, signal.SIGKILL)
            await browser.until(
                "document.getElementById('call-lines').textContent.includes('call.reconnected')"
            )
            await browser.until("document.querySelector('#call-drawing .gap') !== null")
            spoke = await talker.say(lines["remember"])
            await talker.until_heard(since=spoke)
            await talker.until_quiet()
            await checked(browser, "call-live", phone=False)
            await caller.hangup()
        await browser.until("document.getElementById('call-head').textContent.includes('completed')")
        await others(client, url)
        await pages(browser, client, home, call)


async def others(client: AsyncClient, url: str) -> None:
    """Calls that ring, were ended, or went nowhere: a list has more than one line."""
    for i in range(9):
        made = await client.create_call(
            {"url": url}, latencies=NEAR[i % 3 :] + NEAR[: i % 3], metadata={"customer": "acme", "n": str(i)}
        )
        if i % 3 == 0:
            await client.end_call(made["id"])


async def pages(browser: Chromium, client: AsyncClient, home: str, call: dict[str, Any]) -> None:
    await browser.open(f"{home}/calls/{call['id']}")
    assert await browser.value("document.querySelectorAll('#call-turns tbody tr').length") >= 2
    await browser.value("document.querySelector('[hx-target=\"#said\"]').click()")
    await browser.until("document.querySelectorAll('.said').length > 3")
    await browser.until("document.getElementById('said').textContent.includes('one five eight')")
    await checked(browser, "call")
    await browser.open(f"{home}/calls")
    await checked(browser, "calls")
    await browser.key("/")
    assert await browser.value("document.activeElement.name") == "q"
    await browser.open(f"{home}/calls?name=customer&value=acme&state=completed")
    assert await browser.value("document.querySelectorAll('.calls tbody tr').length") == 1
    await checked(browser, "calls-found", phone=False)

    (hook,) = (await client.request("GET", "/v1/webhooks"))["data"]
    await browser.open(f"{home}/webhooks")
    await checked(browser, "webhooks")
    await browser.open(f"{home}/webhooks/{hook['id']}")
    await browser.value("document.querySelector('form[action$=\"/test\"]').requestSubmit()")
    await browser.until("document.querySelector('.notice.good') !== null")
    await browser.value(
        "document.querySelector('[name=since]').value = new Date(Date.now() - 6e5).toISOString().slice(0, 16)"
    )
    await browser.value("document.querySelector('form[action$=\"/recover\"]').requestSubmit()")
    await browser.until("document.querySelector('#webhook-replays table') !== null")
    await checked(browser, "webhook")
    await browser.open(f"{home}/webhooks/{hook['id']}/change")
    await browser.value("document.querySelector('[name=headers]').value = 'no header'")
    await browser.value("document.querySelector('[name=rate_per_s]').value = '20'")
    await browser.value("document.querySelector('form.stack-form').requestSubmit()")
    await browser.until("document.querySelector('[aria-invalid]')?.name === 'headers'")
    assert await browser.value("document.querySelector('[name=rate_per_s]').value") == "20"
    browser.complaints.clear()  # the browser has its own line of a 422
    await checked(browser, "webhook-change")
    await browser.value("document.querySelector('[name=headers]').value = 'X-Token: one'")
    await browser.value("document.querySelector('form.stack-form').requestSubmit()")
    await browser.until("document.querySelector('.notice.good') !== null")
    (made,) = (await client.request("GET", "/v1/keys"))["data"]
    await browser.open(f"{home}/keys")
    await checked(browser, "keys-one")
    await browser.open(f"{home}/keys/{made['id']}/change")
    await checked(browser, "key-change")

    for jump, title in (("a", "Audit"), ("c", "Calls"), ("w", "Webhooks"), ("u", "Usage")):
        await browser.key("g")
        await browser.key(jump)
        await titled(browser, title)
    for query in ("", "?by=side&measure=megabytes"):
        await browser.open(f"{home}/usage{query}")
        await browser.until("document.querySelectorAll('.plot rect').length > 0")
    await checked(browser, "usage")
    await browser.open(f"{home}/audit")
    await browser.value("document.querySelector('[hx-target=\"#report\"]').click()")
    await browser.until("document.querySelector('#report .good') !== null")
    assert "conversation.read" in await browser.value("document.body.innerText")
    await checked(browser, "audit")
