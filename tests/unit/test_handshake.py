"""The handshake before the first delivery: one for all that wait for it, and one more for a URL that has changed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from app.clock import SystemClock
from app.webhooks.handshake import Handshakes
from app.webhooks.sender import Answer

ID = UUID(int=7)


class Stub:
    """A database and envelopes that do as little as a handshake needs."""

    cell = 0

    def __init__(self) -> None:
        self.verified: list[tuple[UUID, str]] = []

    def pool(self, _: str) -> Stub:
        return self

    async def execute(self, _: str, webhook: UUID, url: str) -> None:
        self.verified.append((webhook, url))

    async def headers(self, *_: Any, **__: Any) -> dict[str, str]:
        return {}


class Post:
    """A sender that answers when it is told to."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.answer = asyncio.Event()

    async def post(self, url: str, *_: Any, **__: Any) -> Answer:
        self.urls.append(url)
        await self.answer.wait()
        return Answer(status=204, duration_ms=1)


def endpoint(url: str) -> dict[str, Any]:
    return {"id": ID, "url": url, "scope": "project", "verified": False, "local_targets": False}


async def test_those_that_wait_share_one_and_another_url_is_asked_by_itself() -> None:
    stub, post = Stub(), Post()
    handshakes = Handshakes(stub, stub, SystemClock())  # type: ignore[arg-type]
    asking = [
        asyncio.create_task(handshakes.passed(endpoint(url), post))
        for url in ("http://a", "http://a", "http://b")
    ]
    while len(post.urls) < 2:
        await asyncio.sleep(0)
    post.answer.set()
    answers = await asyncio.gather(*asking)
    assert post.urls == ["http://a", "http://b"], "what one URL has said is no word of another's"
    assert [a.asked for a in answers] == [True, False, True]
    assert [a.refused for a in answers] == [None] * 3
    assert stub.verified == [(ID, "http://a"), (ID, "http://b")]
