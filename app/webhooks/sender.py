"""Posts one delivery. Decides which address is dialled and how much of the answer is read; what follows is `retry.judge`'s.

Every address the host resolves to passes the address filter inside the connector, and the very address that passed is
dialled. Redirects are not followed, no cookie is kept. The answer is read up to a kilobyte and never decompressed; what comes
beside it, such as interim answers without end, is cut off after a megabyte.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from app.webhooks.lookups import Lookups
from regions.wire.addresses import AddressError, check_ip, check_url
from regions.wire.targets import Targets

DEADLINE_S = 15.0
CONNECT_S = 5.0
EXCERPT_BYTES = 1_024
CONNECTIONS_MAX = 2_560
"""More than deliveries are under way at once, those that get no answer among them."""
KEPT_ALIVE_S = 30.0
ANSWER_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`status` None: there was none, and `error` says why in one word."""

    status: int | None
    duration_ms: int
    error: str | None = None
    timed_out: bool = False
    retry_after_s: float | None = None
    excerpt: str = ""

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class FilteredResolver(AbstractResolver):
    """The system's resolver; raises `AddressError` where any address of the host may not be dialled."""

    def __init__(self, lookups: Lookups, *, local_targets: bool, listed: Targets | None = None) -> None:
        self._lookups = lookups
        self._local_targets = local_targets
        self._listed = listed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._lookups.find(host, port, family)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            check_ip(
                str(address[0]),
                local_targets=self._local_targets,
                listed=self._listed,
                host=host.lower(),
                port=port,
            )
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        if not results:
            raise OSError("the host has no address")
        return results

    async def close(self) -> None:
        return


class _Bounded(ResponseHandler):
    """Breaks off where more comes in for one request than any answer needs."""

    _came = 0

    def set_response_params(self, **given: Any) -> None:
        self._came = 0
        super().set_response_params(**given)

    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        if self._came <= ANSWER_BYTES_MAX:
            super().data_received(data)
        elif self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        bounded: type[ResponseHandler] = _Bounded
        self._factory = functools.partial(bounded, loop=self._loop)


class Sender:
    """One connection pool for the deliveries of this instance to the world, and one for those of test projects where
    `local_targets` lets them reach this machine. A project that has listed targets of its own gets a connection per request, which is
    never another's. Make it inside the event loop.

    `proxy`: what goes to the world leaves through it. Every address the host resolves to here is filtered first; the proxy
    resolves the host again, so it must refuse inner addresses too."""

    def __init__(self, *, local_targets: bool, proxy: str = "") -> None:
        self._proxy = proxy
        self._lookups = Lookups()
        self._world = FilteredResolver(self._lookups, local_targets=False)
        # the proxy's own address is the operator's, and filtered by nobody
        self._sessions = {False: _session(None if proxy else self._world)}
        if local_targets:
            self._sessions[True] = _session(FilteredResolver(self._lookups, local_targets=True))

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._lookups.close()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: dict[str, str],
        *,
        local_targets: bool = False,
        listed: Targets | None = None,
    ) -> Answer:
        """Never raises for what the other side does. `local_targets`: the endpoint is a test project's; `listed`: which inner
        targets that project has named."""
        local = local_targets and True in self._sessions
        began = time.perf_counter()
        status: int | None = None
        error: str | None = None
        excerpt, retry_after_s = bytearray(), None
        try:
            target = check_url(url, schemes=("https", "http"), local_targets=local, listed=listed)
            where = URL(f"{target.scheme}://{target.authority}{target.path}", encoded=True)
            own = listed is not None and (not self._proxy or listed.admits_host(target.host, target.port))
            proxy = self._proxy if self._proxy and not local and not own else None
            if proxy:
                async with asyncio.timeout(CONNECT_S):
                    await self._world.resolve(target.host, target.port)
            async with (
                self._session(local, listed if own else None) as session,
                session.post(
                    where, data=body, headers=headers, allow_redirects=False, proxy=proxy
                ) as response,
            ):
                status = response.status
                retry_after_s = retry_after(response.headers)
                await _read(response, excerpt)
        except AddressError as refused:
            error = refused.code
        except TimeoutError:
            error = "timeout"
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            error = _refused(failed) or type(failed).__name__
        return Answer(
            status=status,
            duration_ms=round((time.perf_counter() - began) * 1000),
            error=error if status is None else None,
            timed_out=error == "timeout" and status is None,
            retry_after_s=retry_after_s,
            excerpt=excerpt.decode("utf-8", "replace").replace("\x00", ""),
        )

    @asynccontextmanager
    async def _session(self, local: bool, listed: Targets | None) -> AsyncIterator[aiohttp.ClientSession]:
        if listed is None:
            yield self._sessions[local]
            return
        # what one project may reach is left open for no other
        async with _session(FilteredResolver(self._lookups, local_targets=local, listed=listed)) as session:
            yield session


async def _read(response: aiohttp.ClientResponse, excerpt: bytearray) -> None:
    """What comes of the body until it is long enough: what broke off half-way is kept as well."""
    while len(excerpt) < EXCERPT_BYTES:
        chunk = await response.content.read(EXCERPT_BYTES - len(excerpt))
        if not chunk:
            return
        excerpt += chunk


def _session(resolver: AbstractResolver | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(
            resolver=resolver,
            use_dns_cache=False,
            limit=CONNECTIONS_MAX,
            keepalive_timeout=KEPT_ALIVE_S,
        ),
        timeout=aiohttp.ClientTimeout(total=DEADLINE_S, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Voxplane-Webhooks/1", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


def _refused(error: BaseException) -> str | None:
    """The address filter's code, where it is what stands behind the connector's error."""
    behind = error.__cause__ or error.__context__
    return behind.code if isinstance(behind, AddressError) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """In seconds, by either form of RFC 9110 (10.2.3); None where it cannot be read. A date counts from the answer's own `Date`, so
    that nobody's clock has to be right."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        pause = parsedate_to_datetime(text) - parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, pause.total_seconds())
