"""Round trips that edges measure, on their way up the uplink, and whom an edge is to measure.

Decides the messages, their limits, and what a network is called. What is learned from it is the control plane's business. No
whole address of a caller travels, only its network; and no times, only durations: an edge whose clock is wrong says nothing
wrong. What is lost on the way is lost: the next report stands for itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from regions.wire.observations import RTT_MS_MAX as RTT_MS_MAX

WITNESSED_MAX = 500
LEGS_MAX = 200
MESH_MAX = 64
COUNT_MAX = 1_000_000
"""Of samples, or of failures."""
HOST_CHARS_MAX = 261
"""A name of 253 characters or an address in brackets, a colon, a port."""
NETWORK_CHARS_MAX = 43
REGION_CHARS_MAX = 31
REPORT_EVERY_S = 2.0
MEASURE_EVERY_S = 30.0
MEASURE_EVERY_MIN_S = 5.0
"""Whatever an edge is asked, it measures no other edge more often."""
BACKEND_EVERY_MIN_S = 30.0
"""Nor a customer's backend."""
V4_BITS, V6_BITS = 24, 48


class Witnessed(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What this edge has itself measured to callers of one network since the report before.

    `network`: ``203.0.113.0/24`` or ``2001:db8:1::/48`` (`network_of`). `rtt_ms`: the least round trip; an edge's sample is never
    less than the caller's true round trip. `jitter_ms`: the mean spread of one caller's samples. `samples`: how many.
    """

    network: str
    rtt_ms: float
    jitter_ms: float
    samples: int


class Leg(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The way to a customer's backend, ``host:port`` in lower case: the least time that TCP took to connect, the spread, and how
    many attempts came to nothing. With failures alone both times are 0."""

    host: str
    rtt_ms: float
    jitter_ms: float
    failures: int


class Mesh(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The way to another region's edge: the least round trip of an echo, the spread, the share that did not come back (0 to 1).
    With a loss of 1 both times are 0."""

    region: str
    rtt_ms: float
    jitter_ms: float
    loss: float


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured", omit_defaults=True):
    """To the control plane, every `REPORT_EVERY_S` where there is something; only by an edge that was sent `Measure`. At most
    `WITNESSED_MAX` networks, `LEGS_MAX` backends, `MESH_MAX` regions; each once."""

    callers: list[Witnessed] = []
    backends: list[Leg] = []
    mesh: list[Mesh] = []


class MeshTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Another region, and the media listener of one of its edges: ``ws(s)://host:port``."""

    region: str
    media_url: str


class BackendTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's ``host:port``, as its URL names it. `tls` false: a ``ws://`` one, which only a local deployment has."""

    host: str
    tls: bool = True


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag="measure", omit_defaults=True):
    """To an edge: measure these from now on, each once in `every_s` or less often, and say what was measured (`Measured`).
    Replaces the list before. An empty one asks for what the edge witnesses of its callers, and nothing more."""

    mesh: list[MeshTarget] = []
    backends: list[BackendTarget] = []
    every_s: float = MEASURE_EVERY_S


def network_of(address: str) -> str | None:
    """The /24 or /48 that an address lies in, written in one way; IPv4 in IPv6 (``::ffff:…``) counts as IPv4. None for what is
    no address, and for one with a zone (``fe80::1%eth0``): it means nothing elsewhere."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return None
        found = found.ipv4_mapped or found
    if isinstance(found, IPv4Address):
        return f"{IPv4Address(int(found) >> (32 - V4_BITS) << (32 - V4_BITS))}/{V4_BITS}"
    return f"{IPv6Address(int(found) >> (128 - V6_BITS) << (128 - V6_BITS))}/{V6_BITS}"


def is_network(text: str) -> bool:
    """Whether `network_of` would write it so."""
    address, slash, _ = text.partition("/")
    return bool(slash) and len(text) <= NETWORK_CHARS_MAX and network_of(address) == text
