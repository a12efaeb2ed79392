"""Which inner addresses a project has named as targets of its own, for development: hosts, addresses and networks. Pure.

Decides what can be named at all: private networks and loopback, and never where a cloud tells a machine its secrets, nor anything
that hides one address in another. A name that is listed says nothing about where it leads: every address it resolves to is
looked at again, so one that turns to a metadata service is refused as ever.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

TARGETS_MAX = 32
TARGET_CHARS_MAX = 262
PORT_MAX = 65_535
EXAMPLES = "write it like localhost:3000, devbox.lan, 192.168.1.7:8080 or 192.168.1.0/24"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

INNER: tuple[Network, ...] = tuple(
    ip_network(n)
    for n in (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7",
    )
)  # fmt: skip
METADATA: tuple[Network, ...] = tuple(
    ip_network(n)
    for n in ("169.254.0.0/16", "100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::/32")
)
"""Where AWS, Google, Azure, Alibaba and Oracle answer a machine that asks who it is."""

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")


class TargetError(ValueError):
    """Something that cannot be named as a target; the text says why, and what can."""


class Targets:
    """`names`: (host, port), `networks`: (network, port); port None stands for any. Not changed once it is made."""

    __slots__ = ("names", "networks")

    def __init__(
        self, names: frozenset[tuple[str, int | None]], networks: tuple[tuple[Network, int | None], ...]
    ) -> None:
        self.names = names
        self.networks = networks

    def admits_host(self, host: str, port: int) -> bool:
        """Whether a URL may have this host (lower case, no brackets); an address has to be written in the one usual way."""
        try:
            address = ip_address(host)
        except ValueError:
            return not self.names.isdisjoint({(host, port), (host, None)})
        return str(address) == host and self.admits(address, host, port)

    def admits(self, address: Address, host: str, port: int) -> bool:
        """Whether an address to which `host` has resolved may be dialled."""
        if not is_inner(address):
            return False
        listed = any(address in network for network, only in self.networks if only in (None, port))
        return listed or not self.names.isdisjoint({(host, port), (host, None)})


def is_inner(address: Address) -> bool:
    """Whether it can be anybody's target at all."""
    if getattr(address, "scope_id", None) is not None or any(address in n for n in METADATA):
        return False
    return any(address in network for network in INNER)


@lru_cache(maxsize=1_024)
def read_targets(given: tuple[str, ...]) -> Targets:
    """Raises `TargetError`."""
    names: set[tuple[str, int | None]] = set()
    networks: list[tuple[Network, int | None]] = []
    for text in given:
        found = read_target(text)
        if isinstance(found[0], str):
            names.add((found[0], found[1]))
        else:
            networks.append((found[0], found[1]))
    return Targets(frozenset(names), tuple(networks))


def read_target(text: str) -> tuple[str | Network, int | None]:
    """A name or a network, and its port where one is given. Raises `TargetError`."""
    if not text or len(text) > TARGET_CHARS_MAX or not text.isascii():
        raise TargetError(f"this is no target; {EXAMPLES}")
    if "/" in text:
        return _network(text), None
    host, port = _split(text.lower())
    try:
        return _network(host), port
    except TargetError:
        if ":" in host or _NUMERIC.fullmatch(host.rpartition(".")[2]):
            raise
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise TargetError(f"this is no host; {EXAMPLES}")
    return host, port


def _split(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host:
            raise TargetError(f"this is no target; {EXAMPLES}")
    elif text.count(":") > 1:
        host, rest = text, ""
    else:
        host, colon, number = text.partition(":")
        rest = colon + number
    if not rest:
        return host, None
    number = rest[1:]
    if rest[0] != ":" or not number.isdigit() or len(number) > 5 or not 0 < int(number) <= PORT_MAX:
        raise TargetError(f"the port is a number from 1 to {PORT_MAX}")
    return host, int(number)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise TargetError(f"this is no address or network; {EXAMPLES}") from None
    if any(_within(network, closed) for closed in METADATA):
        raise TargetError("cloud metadata and link-local addresses are never dialled")
    if not any(_within(network, inner) for inner in INNER):
        inner = ", ".join(str(n) for n in INNER)
        raise TargetError(f"it does not lie within {inner}; public addresses need not be listed")
    return network


def _within(network: Network, outer: Network) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]
