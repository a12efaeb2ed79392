"""Spans on their way to the collector: a queue with a bound, and a loop that empties it.

Decides what is given up: a span for which there is no room is dropped, a batch that the collector does not take is sent once more
and then forgotten, both counted. Whoever records a span never waits. Leaves the request itself to the `Post` that it is given.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping

from regions.wire.otlp import Tracing, request
from regions.wire.tracing import Span, Value

Post = Callable[[bytes], Awaitable[int]]
"""Sends one request; the status of the answer, or 0 where there was none. Never raises."""
RETRY_S = 1.0
LAST_WITHIN_S = 2.0
OUTCOMES = ("exported", "dropped", "failed")


class Spans:
    """`counts`: by `OUTCOMES`. Switched off it takes nothing, and nobody should have asked."""

    def __init__(self, wanted: Tracing, resource: Mapping[str, Value]) -> None:
        self.wanted = wanted
        self.counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.resource: dict[str, Value] = dict(resource)
        self._queue: deque[Span] = deque()
        self._some = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self.wanted)

    def add(self, span: Span) -> None:
        if not self.wanted:
            return
        if len(self._queue) >= self.wanted.queue_max:
            self.counts["dropped"] += 1
            return
        self._queue.append(span)
        if len(self._queue) >= self.wanted.batch_max:
            self._some.set()

    async def run(self, post: Post, stop: asyncio.Event) -> None:
        """Until `stop`; what is left then is sent for a moment."""
        while not stop.is_set():
            waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._some.wait())}
            await asyncio.wait(waiting, timeout=self.wanted.every_s, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            self._some.clear()
            while self._queue and not stop.is_set():
                await self._send(post)
        try:
            async with asyncio.timeout(LAST_WITHIN_S):
                while self._queue:
                    await self._send(post)
        except TimeoutError:
            self.counts["failed"] += len(self._queue)

    async def _send(self, post: Post) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self.wanted.batch_max))]
        body = request(self.resource, batch)
        status = await post(body)
        if status in (0, 429, 502, 503, 504):
            await asyncio.sleep(RETRY_S)
            status = await post(body)
        self.counts["exported" if 200 <= status < 300 else "failed"] += len(batch)
