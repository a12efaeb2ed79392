"""The console on a phone, in a Chromium that runs no script: whoever looks gets about, and is promised nothing that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, Project
from tests.support.chromium import Chromium
from tests.support.people import account, link

pytestmark = [pytest.mark.browser]

SHOWN = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length).length"


@pytest.fixture
async def browser(folder: Path) -> AsyncIterator[Chromium]:
    async with Chromium(folder / "profile") as started:
        await started.size(390, 844)
        yield started


async def test_a_phone_without_scripts_gets_about(api: Api, project: Project, browser: Chromium) -> None:
    person = await account(api, "plain@example.com", {project.id: "owner"})
    secret = await link(api, person, "sign_in")
    await browser.open(f"{api.url}/console/sign-in/link#{secret}")
    await browser.until("location.pathname.endsWith('/map') && document.readyState === 'complete'")
    assert await browser.value(SHOWN.format("[data-menu]")) == 1
    assert await browser.value(SHOWN.format("nav li a")) == 0, "in the menu, which is closed"

    await browser.call("Emulation.setScriptExecutionDisabled", value=True)
    for page in ("map", "calls", "keys", "usage"):
        await browser.open(f"{api.url}/console/p/{project.id}/{page}")
        assert await browser.value(SHOWN.format("nav li a")) >= 5, page
        assert await browser.value(SHOWN.format('form[action="/console/sign-out"] button')) == 2, page
        idle = "[data-menu], [data-theme-switch], [data-copy], .live-mark, .live-word"
        assert await browser.value(SHOWN.format(idle)) == 0, page
        assert await browser.value("document.documentElement.scrollWidth") == 390, page
