"""One socket to one edge, from the moment it is wanted until it is gone; and all of a caller's, with what it does beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from voxplane import trust
from voxplane.messages import MEDIA_PATH, SUBPROTOCOL

OPEN_WITHIN_S = 1.5
MESSAGE_BYTES_MAX = 1 << 20

Connect = Callable[..., Awaitable[ClientConnection]]
"""Opens a WebSocket as `websockets.connect` does, and raises what it raises."""


async def websocket(url: str, **more: Any) -> ClientConnection:
    return await connect(url, **trust.secured(url), **more)


class Link:
    """`heard` gets every message, `closed` is told once that it is over; neither hears anything after `drop`.

    `mode`: what was asked of the edge in the first message, ``attach``, ``resume``, ``prepare`` or ``take``.
    """

    def __init__(
        self,
        url: str,
        epoch: int,
        mode: str,
        *,
        first: Callable[[], str],
        heard: Callable[[Link, str | bytes], None],
        closed: Callable[[Link], None],
        connect: Connect = websocket,
    ) -> None:
        self.epoch = epoch
        self.mode = mode
        self.prepared = False
        self.refused = ""
        """The code with which the edge has refused."""
        self._url = url
        self._first, self._heard, self._closed = first, heard, closed
        self._connect = connect
        self._socket: ClientConnection | None = None
        self._dropped = False
        self._task = asyncio.create_task(self._run())

    async def tell(self, message: str | bytes) -> None:
        """A socket that is not open swallows it: its end is told apart."""
        if self._socket is None:
            return
        try:
            await self._socket.send(message)
        except (WebSocketException, OSError):
            return

    def drop(self) -> None:
        """Gone at once, and nobody is told."""
        self._dropped = True
        if self._socket is not None:
            self._socket.transport.abort()
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def gone(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                self._socket = await self._connect(
                    self._url + MEDIA_PATH,
                    subprotocols=[SUBPROTOCOL],
                    open_timeout=OPEN_WITHIN_S,
                    close_timeout=0.2,
                    ping_interval=None,
                    compression=None,
                    max_size=MESSAGE_BYTES_MAX,
                    proxy=None,
                )
            await self.tell(self._first())
            async for message in self._socket:
                self._heard(self, message)
                if self._dropped:
                    return
        except (WebSocketException, OSError, TimeoutError):
            pass
        finally:
            if self._socket is not None:
                self._socket.transport.abort()
        if not self._dropped:
            self._closed(self)


class Links:
    """The sockets and the tasks of one caller: none of them outlives `close`."""

    def __init__(
        self,
        heard: Callable[[Link, str | bytes], None],
        closed: Callable[[Link], None],
        connect: Connect = websocket,
    ) -> None:
        self._heard, self._closed = heard, closed
        self._connect = connect
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, url: str, epoch: int, mode: str, first: Callable[[], str]) -> Link:
        link = Link(
            url, epoch, mode, first=first, heard=self._heard, closed=self._over, connect=self._connect
        )
        self._links.add(link)
        return link

    def drop(self, link: Link | None) -> None:
        if link is not None:
            link.drop()
            self._links.discard(link)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        links, tasks = list(self._links), list(self._tasks)
        for link in links:
            link.drop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(link.gone() for link in links), *tasks, return_exceptions=True)

    def _over(self, link: Link) -> None:
        self._links.discard(link)
        self._closed(link)
