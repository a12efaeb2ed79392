"""Who is at the other end of a connection, where a proxy stands in front. Pure.

`X-Forwarded-For` is believed as far as it was written by proxies that are trusted, from the right: the first address that is
none of theirs is the peer. Without trusted proxies the header is nobody's word.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

Networks = tuple[IPv4Network | IPv6Network, ...]
HEADER_CHARS_MAX = 1_024


def peer_of(address: str, forwarded: str | None, trusted: Networks) -> str:
    """The peer's address as text; `address` is that of the connection."""
    if not trusted or not forwarded or len(forwarded) > HEADER_CHARS_MAX or not _among(address, trusted):
        return address
    found = address
    for part in reversed(forwarded.split(",")):
        found = part.strip()
        if not _among(found, trusted):
            break
    return found


def _among(text: str, networks: Networks) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in networks)
