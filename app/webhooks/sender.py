"""Posts one delivery. Decides which address is dialled and how much of the answer is read; what follows is `retry.judge`'s.

Every address the host resolves to passes the address filter, and the very address that passed is dialled. Redirects are
not followed. The answer is read up to a few kilobytes and never decompressed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass

import httpx

from regions.wire.addresses import AddressError, Target, check_ip, check_url

DEADLINE_S = 15.0
EXCERPT_BYTES = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`status` None: there was none, and `error` says why in one word."""

    status: int | None
    duration_ms: int
    error: str | None = None
    timed_out: bool = False
    retry_after_s: float | None = None
    excerpt: str = ""


class Sender:
    """One connection pool for all deliveries of this instance."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=128, keepalive_expiry=30)
        self._client = httpx.AsyncClient(
            limits=limits, follow_redirects=False, timeout=DEADLINE_S, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, local_targets: bool) -> Answer:
        """Never raises for what the other side does."""
        began = time.perf_counter()
        status: int | None = None
        error: str | None = None
        excerpt, retry_after_s = b"", None
        try:
            async with asyncio.timeout(DEADLINE_S):
                target = check_url(url, schemes=("https", "http"), local_targets=local_targets)
                address = await resolve(target, local_targets=local_targets)
                sent = headers | {"host": target.authority, "accept-encoding": "identity"}
                async with self._client.stream(
                    "POST",
                    f"{target.scheme}://{_bracketed(address)}:{target.port}{target.path}",
                    content=body,
                    headers=sent,
                    extensions={"sni_hostname": target.host},
                ) as response:
                    status = response.status_code
                    retry_after_s = _seconds(response.headers.get("retry-after"))
                    async for chunk in response.aiter_raw(EXCERPT_BYTES):
                        excerpt += chunk[: EXCERPT_BYTES - len(excerpt)]
                        if len(excerpt) >= EXCERPT_BYTES:
                            break
        except AddressError as refused:
            error = refused.code
        except (TimeoutError, httpx.TimeoutException):
            error = "timeout"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as failed:
            error = type(failed).__name__
        return Answer(
            status=status,
            duration_ms=round((time.perf_counter() - began) * 1000),
            error=error if status is None else None,
            timed_out=error == "timeout" and status is None,
            retry_after_s=retry_after_s,
            excerpt=excerpt.decode("utf-8", "replace").replace("\x00", ""),
        )


async def resolve(target: Target, *, local_targets: bool) -> str:
    """One address of the host; raises `AddressError` where any of them may not be dialled, `OSError` where there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        check_ip(address, local_targets=local_targets)
    if not addresses:
        raise OSError("the host has no address")
    return addresses[0]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 8 else None
