"""What an edge may do in its region's Valkey: read tails, and write below its own prefix, so that the prefix says who wrote.

Decides the user, its password and its rights (Valkey ACL). The password follows from a key that only the control plane has,
so that any instance can name it and none stores it. A server that knows no ACL rules of this kind, or whose operator keeps
them from us, is used as it is: the operator's own credentials then stand for the edge's honesty.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError, ResponseError

from regions.wire import ids
from regions.wire.spool import spool_prefix

log = structlog.get_logger()

Client: TypeAlias = Any
"""`redis.asyncio.Redis`, whose `execute_command` has no types."""

DEADLINE_S = 0.5
COMMANDS = (
    "+hello", "+auth", "+ping", "+select", "+client|setname", "+client|setinfo", "+hmget", "+hset", "+hdel", "+del", "+sadd",
    "+srem", "+expire",
)  # fmt: skip


class EdgeAccess:
    def __init__(self, redis_urls: dict[str, str], secret: Callable[[], bytes]) -> None:
        self._redis_urls = redis_urls
        self._secret = secret
        self._plain: set[str] = set()

    async def url_for(self, region: str, edge_id: UUID) -> str | None:
        """How the edge reaches its region's Valkey; None where the region has none. Its user is made now if the server answers
        in time, else with the next round of the region's worker."""
        url = self._redis_urls.get(region)
        if url is None:
            return None
        client: Client = redis.from_url(url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._make(region, client, edge_id)
        except (RedisError, OSError, TimeoutError):
            log.info("edge_access.later", region=region)
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                await client.aclose()
        if region in self._plain:
            return url
        parsed = urlsplit(url)
        where = parsed.netloc.rpartition("@")[2]
        netloc = f"{_user(edge_id)}:{self._password(edge_id)}@{where}"
        return urlunsplit(parsed._replace(netloc=netloc))

    async def revoke(self, region: str, edge_id: UUID) -> None:
        """Its user, and the connections that it has open. Where the server is away, `ensure` does it when it is back."""
        url = self._redis_urls.get(region)
        if url is None or region in self._plain:
            return
        client: Client = redis.from_url(url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S)
        try:
            await client.execute_command("ACL DELUSER", _user(edge_id))
        except (RedisError, OSError, TimeoutError):
            log.info("edge_access.later", region=region)
        finally:
            with suppress(RedisError, OSError, TimeoutError):
                await client.aclose()

    async def ensure(self, region: str, client: Client, edges: list[UUID], revoked: list[UUID]) -> None:
        """Makes the users that the server does not have (any more), and ends those of edges that were revoked. Raises what the
        driver raises."""
        if region in self._plain or not (edges or revoked):
            return
        try:
            found = {
                u.decode() if isinstance(u, bytes) else u for u in await client.execute_command("ACL USERS")
            }
        except ResponseError as error:
            await self._use_plain(region, client, error)
            return
        for edge_id in edges:
            if _user(edge_id) not in found:
                await self._make(region, client, edge_id)
        for edge_id in revoked:
            if _user(edge_id) in found:
                await client.execute_command("ACL DELUSER", _user(edge_id))

    async def _make(self, region: str, client: Client, edge_id: UUID) -> None:
        keys = (f"~{spool_prefix(_user(edge_id))}*", "%R~tail:*")
        rules = ("reset", "on", f">{self._password(edge_id)}", *keys, *COMMANDS)
        try:
            await client.execute_command("ACL SETUSER", _user(edge_id), *rules)
        except ResponseError as error:
            await self._use_plain(region, client, error)

    async def _use_plain(self, region: str, client: Client, error: ResponseError) -> None:
        """Raises what the driver raises where the server answers nothing at the moment, such as while a script runs: then its answer
        was no word about its rules."""
        await client.ping()
        if region not in self._plain:
            log.warning("edge_access.unlimited", region=region, error=str(error)[:80])
        self._plain.add(region)

    def _password(self, edge_id: UUID) -> str:
        return hmac.digest(self._secret(), b"valkey:" + edge_id.bytes, "sha256").hex()


def _user(edge_id: UUID) -> str:
    return ids.encode(ids.EDGE, edge_id)
