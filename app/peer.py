"""Where a request comes from. Pure: the connection's own address, or the one that a trusted proxy names.

Decides whom `X-Forwarded-For` is believed from: the operator's own proxies (`VOXPLANE_TRUSTED_PROXIES`), each of which adds at the
end the address that it was asked from. So the header is read from its end, and the first address that is not a proxy's own is the
sender's; whatever stands before it was written by the sender.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

HOPS_MAX = 32
_WITH_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?")


def read_address(text: str) -> Address | None:
    """As a proxy may write it: with a port or without. IPv4 in IPv6's clothes is IPv4; a zone is left out."""
    text = text.strip().strip('"')
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((found["v6"] or found["v4"]) if found else text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def read_network(text: str) -> Network:
    """An address or a network; raises `ValueError` with what is to be written instead."""
    text = text.strip()
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            "expected an address or a network, such as 203.0.113.0/24 or 2001:db8::/48"
        ) from None
    if network.version == 6 and network.subnet_of(_MAPPED):
        raise ValueError("write it as IPv4")
    if "/" in text and str(network.network_address) != str(ip_address(text.partition("/")[0])):
        raise ValueError(f"it has bits beyond its prefix; write {network}")
    return network


_MAPPED = IPv6Network("::ffff:0:0/96")


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address.version == n.version and address in n for n in networks)


def address_of(scope: Any) -> Address | None:
    """Of an ASGI connection: of its sender, where a `Proxied` stands in front. None where there is none."""
    client = scope.get("client") if scope is not None else None
    return read_address(client[0]) if client else None


class Peers:
    """`trusted`: the networks of the operator's own proxies. None of them: the header is never looked at."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def __bool__(self) -> bool:
        return bool(self._trusted)

    def of(self, scope: Any) -> Address | None:
        """Of an ASGI connection; None where there is no address, and where a trusted proxy names none that can be read."""
        address = address_of(scope)
        if address is None or not within(address, self._trusted):
            return address
        for hop in reversed(_hops(scope)):
            address = read_address(hop)
            if address is None or not within(address, self._trusted):
                return address
        return address

    def is_secure(self, scope: Any) -> bool:
        """Whether the sender came over TLS: to us, or to the trusted proxy in front, as that says."""
        if within(address_of(scope), self._trusted):
            said = [v for k, v in scope["headers"] if k == b"x-forwarded-proto"]
            if said:
                return bool(said[-1].strip().lower() in (b"https", b"wss"))
        return scope.get("scheme") in ("https", "wss")


class Proxied:
    """Around an ASGI application: its connections have their senders' address and scheme, as trusted proxies say."""

    def __init__(self, app: Any, peers: Peers) -> None:
        self._app = app
        self._peers = peers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            address, secure = self._peers.of(scope), self._peers.is_secure(scope)
            plain, over_tls = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
            scope["scheme"] = over_tls if secure else plain
            scope["client"] = (str(address), 0) if address is not None else None
        await self._app(scope, receive, send)


def _hops(scope: Any) -> list[str]:
    named = [v.decode("latin-1") for k, v in scope["headers"] if k == b"x-forwarded-for"]
    return [hop for value in named for hop in value.split(",")][-HOPS_MAX:]
