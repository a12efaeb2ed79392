"""Finds, among the hosts of a database URL, the server that takes writes.

Decides which host is asked first and how long one that does not answer is waited for. The host that took writes last is
asked alone; the others join as soon as it refuses, or after a moment. With more than one host in the URL the session has
to be read-write, so a standby is passed over; what a connection is then used for is left to others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final
from urllib.parse import parse_qs

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched

CONNECT_DEADLINE_S: Final = 5.0
HEAD_START_S = 0.3
"""Enough for a handshake with encryption within a continent; the others are asked beside it afterwards."""

PASSED_OVER = (OSError, TimeoutError, TargetServerAttributeNotMatched, asyncpg.PostgresConnectionError,
               asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError)  # fmt: skip
"""This host cannot be used now, another one may."""
WRONG = asyncpg.PostgresError
"""A wrong password or name: raised where every host says so. One alone may not have heard of it yet, or be about to start."""


class NoPrimary(ConnectionError):
    """No host of the URL takes writes at the moment. The text has each one's reason."""


class Hosts:
    """The hosts of one URL. One host: what the driver makes of the URL. Safe to share by every pool of a process."""

    def __init__(self, url: str) -> None:
        self._urls = split(url)
        asked = "target_session_attrs" in parse_qs(url.partition("?")[2].partition("#")[0])
        self._options: dict[str, Any] = (
            {"target_session_attrs": "read-write"} if len(self._urls) > 1 and not asked else {}
        )
        self._first = 0

    def __len__(self) -> int:
        return len(self._urls)

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """A connection to the primary; `options` are the driver's. Raises `NoPrimary`, or what the driver raises."""
        given = {"timeout": CONNECT_DEADLINE_S} | options | self._options
        if len(self._urls) == 1:
            try:
                return await asyncpg.connect(self._urls[0], **given)
            except TargetServerAttributeNotMatched as error:
                raise NoPrimary(str(error)) from None
        return await self._race(given)

    def distrust(self) -> None:
        """The host that took writes last has disappointed: the others are asked before it."""
        self._first = (self._first + 1) % len(self._urls)

    async def _race(self, options: dict[str, Any]) -> asyncpg.Connection:
        count = len(self._urls)
        waiting = deque((self._first + i) % count for i in range(count))
        running: dict[asyncio.Task[asyncpg.Connection], int] = {}
        refused: dict[int, str] = {}
        wrong: list[Exception] = []
        try:
            while waiting or running:
                if waiting:
                    i = waiting.popleft()
                    running[asyncio.create_task(asyncpg.connect(self._urls[i], **options))] = i
                done, _ = await asyncio.wait(
                    running, timeout=HEAD_START_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in sorted(done, key=lambda t: running[t]):
                    try:
                        connection = task.result()
                    except PASSED_OVER as error:
                        refused[running.pop(task)] = str(error) or type(error).__name__
                        continue
                    except WRONG as error:
                        refused[running.pop(task)] = str(error)
                        wrong.append(error)
                        continue
                    self._first = running.pop(task)
                    return connection
        finally:
            await _abandon(running)
        if len(wrong) == count:
            raise wrong[0]
        raise NoPrimary(
            "no host takes writes: "
            + "; ".join(f"{cut(self._urls[i])[1].rpartition('@')[2]}: {refused[i]}" for i in sorted(refused))
        )


def split(url: str) -> list[str]:
    """One URL per host. What stands in the query (`?host=a,b`) is left to the driver."""
    scheme, authority, rest = cut(url)
    user, at, hosts = authority.rpartition("@")
    return [f"{scheme}://{user}{at}{host}{rest}" for host in hosts.split(",")]


def cut(url: str) -> tuple[str, str, str]:
    """Scheme, authority and the rest, which keeps its first character. The standard library refuses a list of hosts with an
    IPv6 address in it."""
    scheme, _, after = url.partition("://")
    end = min((i for c in "/?#" if (i := after.find(c)) >= 0), default=len(after))
    return scheme, after[:end], after[end:]


async def _abandon(running: dict[asyncio.Task[asyncpg.Connection], int]) -> None:
    for task in running:
        task.cancel()
    for late in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(late, asyncpg.Connection):
            late.terminate()
