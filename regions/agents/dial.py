"""Opens a WebSocket to a customer's backend: to an address that passed the filter, and to that very address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from picows import WSError, WSInvalidStatusError, WSListener, WSTransport, ws_connect

from regions.edge.clock import precise_ms
from regions.wire.addresses import AddressError, check_ip, check_url

SCHEMES = ("wss", "ws")
FRAME_BYTES_MAX = 1 << 20
UNACKED_MS_MAX = 5_000
"""A machine that takes in nothing for so long is gone: audio is sent to it 50 times a second."""

AWAY = frozenset({"connect", "unavailable"})
"""Codes of a `DialError` by which nobody is there at the moment, and somebody may be in the next."""
NOBODY_BEHIND = frozenset({502, 503, 504})
"""What a proxy answers while no backend of its is there (RFC 9110, 15.6.3 to 15.6.5)."""

Connected = Callable[[str, float | None], None]
"""How many milliseconds TCP took to connect to ``host:port``; None: it came to nothing."""


class DialError(Exception):
    """The backend was not reached. `code`: ``address``, ``resolve``, ``connect``, ``unavailable``, ``handshake``,
    ``timeout``, or ``lapsed`` where the call was gone by then. `away`: at one of those tried nobody is there at the
    moment."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.away = code in AWAY


class Dial(Protocol):
    async def __call__(
        self,
        url: str,
        listener: Callable[[], WSListener],
        *,
        local_targets: bool,
        deadline_s: float,
        silent_s: float,
        tls: ssl.SSLContext,
        headers: Mapping[str, str],
    ) -> WSTransport:
        """An open WebSocket, asked for with these headers, whose events go to a listener that was made for it. One that sends
        nothing for half of `silent_s` is asked by a ping, and has the other half to answer: then it is lost. Raises `DialError`."""
        ...


async def dial(
    url: str,
    listener: Callable[[], WSListener],
    *,
    local_targets: bool,
    deadline_s: float,
    silent_s: float,
    tls: ssl.SSLContext,
    headers: Mapping[str, str] = MappingProxyType({}),
    connected: Connected = lambda _host, _ms: None,
) -> WSTransport:
    """Resolves, filters every address, connects to the first one; no redirects. Raises `DialError`."""
    try:
        async with asyncio.timeout(deadline_s):
            return await _dial(
                url,
                listener,
                local_targets=local_targets,
                silent_s=silent_s,
                tls=tls,
                headers=headers,
                connected=connected,
            )
    except TimeoutError:
        raise DialError("timeout", f"the backend did not answer within {deadline_s:g} s") from None


async def _dial(
    url: str,
    listener: Callable[[], WSListener],
    *,
    local_targets: bool,
    silent_s: float,
    tls: ssl.SSLContext,
    headers: Mapping[str, str],
    connected: Connected,
) -> WSTransport:
    loop = asyncio.get_running_loop()
    try:
        target = check_url(url, schemes=SCHEMES, local_targets=local_targets)
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        for entry in found:
            check_ip(str(entry[4][0]), local_targets=local_targets)
    except AddressError as error:
        raise DialError("address", error.detail) from None
    except OSError:
        raise DialError("resolve", "the backend's host has no address") from None

    ready = await _connect(found, lambda ms: connected(target.endpoint, ms))
    try:
        transport, heard = await ws_connect(
            listener,
            url,
            ssl_context=tls if target.secure else None,
            socket_factory=lambda _: ready,
            max_redirects=0,
            max_frame_size=FRAME_BYTES_MAX,
            enable_auto_ping=True,
            auto_ping_idle_timeout=silent_s / 2,
            auto_ping_reply_timeout=silent_s / 2,
            extra_headers={"Host": target.authority, **headers},
        )
    except (WSError, OSError) as error:
        _hang_up(ready)
        raise _refusal(error) from None
    except BaseException:
        _hang_up(ready)
        raise
    # the library takes what ended before an answer for open, and says nothing of it afterwards
    if heard is None:
        raise _closed()
    return transport


def _refusal(error: WSError | OSError) -> DialError:
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        status = int(error.response.status)
        code = "unavailable" if status in NOBODY_BEHIND else "handshake"
        return DialError(code, f"the backend's host answered {status} instead of opening a WebSocket")
    if isinstance(error, ConnectionError):
        return _closed()
    return DialError("handshake", f"the backend refused the WebSocket ({type(error).__name__})")


def _closed() -> DialError:
    """As from a proxy that takes connections for a backend that is not there, or from one that falls over."""
    return DialError("unavailable", "the backend's host closed the connection without an answer")


async def _connect(found: list[Any], took: Callable[[float | None], None]) -> socket.socket:
    """To the first address that takes it. `took`: how many milliseconds that one's handshake was; None: no address did."""
    loop = asyncio.get_running_loop()
    for family, kind, protocol, _, address in found:
        candidate = socket.socket(family, kind, protocol)
        candidate.setblocking(False)
        began_ms = precise_ms()
        try:
            await loop.sock_connect(candidate, address)
        except OSError:
            candidate.close()
            continue
        except BaseException:
            candidate.close()
            raise
        took(precise_ms() - began_ms)
        candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MS_MAX)
        return candidate
    took(None)
    raise DialError("connect", "the backend refuses connections")


def _hang_up(given: socket.socket) -> None:
    """Ends a connection whose socket was given away: its transport reads the end and closes it. Closed here, its number would
    go to the next socket while the loop still watches it for this one."""
    with contextlib.suppress(OSError):
        given.shutdown(socket.SHUT_RDWR)
