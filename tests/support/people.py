"""Somebody who signs in: an account made by the operator, a browser that keeps its cookies, forms with their tokens."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx

from tests.support.api import Api

PASSWORD = "seven blue lamps sing"


class Browser:
    """Sends what a browser sends with a form of the same site, and follows nowhere by itself."""

    def __init__(self, client: httpx.AsyncClient, origin: str) -> None:
        self.client = client
        self.origin = origin

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, **more)

    async def post(self, path: str, fields: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """A form without a token."""
        headers = {"origin": self.origin, "sec-fetch-site": "same-origin"} | more.pop("headers", {})
        return await self.client.post(path, data=fields or {"nothing": ""}, headers=headers, **more)

    async def send(self, path: str, fields: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """A form of this session, with its token."""
        return await self.post(path, (fields or {}) | {"csrf": await self.token()}, **more)

    async def token(self) -> str:
        page = await self.client.get("/console", follow_redirects=True)
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert found is not None, page.text
        return unescape(found[1])


async def account(api: Api, email: str, roles: dict[str, str] | None = None, **more: Any) -> str:
    """The person's id. `roles`: by project."""
    made = await api.operator.post("/admin/v1/people", json={"email": email, **more})
    assert made.status_code == 201, made.text
    for project, role in (roles or {}).items():
        granted = await api.operator.put(
            f"/admin/v1/people/{made.json()['id']}/memberships/{project}", json={"role": role}
        )
        assert granted.status_code == 200, granted.text
    return str(made.json()["id"])


async def link(api: Api, person: str, purpose: str) -> str:
    """The secret of a new one."""
    made = await api.operator.post(f"/admin/v1/people/{person}/links", json={"purpose": purpose})
    assert made.status_code == 201, made.text
    return str(made.json()["path"].partition("#")[2])


async def browser(api: Api) -> Browser:
    """Of nobody yet."""
    return Browser(await api.client(), api.url)


async def signed_in(
    api: Api, email: str, roles: dict[str, str] | None = None, **more: Any
) -> tuple[Browser, str]:
    """A new person's browser, signed in by a link, and the person's id."""
    person = await account(api, email, roles, **more)
    came = await browser(api)
    answer = await came.post("/console/sign-in/link", {"secret": await link(api, person, "sign_in")})
    assert answer.status_code == 303, answer.text
    return came, person
