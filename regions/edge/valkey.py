"""The region's own Valkey, as far as this edge may reach it: to read tails, and to write its spool.

Decides which address and credentials are used: the edge's own settings where they name any, else what the control plane
said when the uplink came up. A Valkey that is away is no error here; whoever asks gets the driver's.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


class RegionValkey:
    def __init__(self, own_url: str) -> None:
        self._own_url = own_url
        self._url = ""
        self._client: redis.Redis | None = None
        self.use(None)

    @property
    def client(self) -> redis.Redis | None:
        """None while no Valkey is known."""
        return self._client

    def use(self, given_url: str | None) -> None:
        """Takes what the control plane says, as far as the settings leave it open."""
        url = effective_url(self._own_url, given_url)
        if url == self._url:
            return
        self._url = url
        # the client before is left to the collector: somebody may be waiting for it
        self._client = (
            redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0))
            if url
            else None
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def effective_url(own: str, given: str | None) -> str:
    """1. Nothing of our own: what is given. 2. Our own with a password: ours. 3. Our own without one: there, as who is given."""
    if not own:
        return given or ""
    mine = urlsplit(own)
    if mine.password is not None or not given:
        return own
    who, at, _ = urlsplit(given).netloc.rpartition("@")
    return urlunsplit(mine._replace(netloc=who + at + mine.netloc.rpartition("@")[2]))
