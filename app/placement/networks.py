"""Which network an address belongs to, as a number that stands for it in every table; no address goes any further than here.

Decides how coarse a network is: a /24, a /48, and where the operator has a file for it, the autonomous system and the metro. An
address that says nothing of where its owner is (loopback, private, link-local) has no network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Protocol

import maxminddb

V4_PREFIX, V6_PREFIX = 24, 48
V4_ALLOCATED, V6_ALLOCATED = 16, 32
"""Whoever is given addresses is given about as many: networks within them are not taken for so many independent witnesses."""
_KIND_BITS = 60
_V4, _V6, _AS, _METRO = (kind << _KIND_BITS for kind in range(1, 5))


_SHARED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
        "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
    )
]  # fmt: skip
"""The same address is used in many places at once."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What an operator's file says of an address: the number of its autonomous system, a metro, coordinates in degrees."""

    asn: int | None = None
    metro: str | None = None
    latitude: float | None = None
    longitude: float | None = None


NOWHERE = Whereabouts()


class Atlas(Protocol):
    """Says where an address is. `NOWHERE` for what it does not know; never raises for an address."""

    def whereabouts(self, address: str) -> Whereabouts: ...


@dataclass(frozen=True, slots=True)
class Network:
    """`text` is how it is shown, such as ``203.0.113.0/24``; `number` stands for it, `wider` for what it is a part of, nearest
    first (autonomous system and metro, then the system alone)."""

    text: str
    number: int
    wider: tuple[int, ...] = ()
    at: tuple[float, float] | None = None


def network_from(address: str, atlas: Atlas | None = None, *, local: bool = False) -> Network | None:
    """None for what is no address, or is one that many share. `local`: private addresses count too (tests, one's own network)."""
    try:
        parsed = ip_address(address.strip())
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if not local and any(parsed in shared for shared in _SHARED if shared.version == parsed.version):
        return None
    bits = int(parsed)
    if isinstance(parsed, IPv6Address):
        prefix = bits >> (128 - V6_PREFIX)
        text = f"{IPv6Address(prefix << (128 - V6_PREFIX))}/{V6_PREFIX}"
        number = _V6 | prefix
    else:
        prefix = bits >> (32 - V4_PREFIX)
        text = f"{ip_address(prefix << (32 - V4_PREFIX))}/{V4_PREFIX}"
        number = _V4 | prefix
    where = atlas.whereabouts(str(parsed)) if atlas is not None else NOWHERE
    at = None if where.latitude is None or where.longitude is None else (where.latitude, where.longitude)
    return Network(text=text, number=number, wider=wider_of(where), at=at)


def is_address(text: str) -> bool:
    try:
        ip_address(text.strip())
    except ValueError:
        return False
    return True


def number_of(text: str) -> int | None:
    """The number of a network written as `Network.text`; None where it is not written so."""
    address, _, length = text.partition("/")
    network = network_from(address, local=True)
    if network is None or network.text != text or not length:
        return None
    return network.number


def allocation_of(number: int) -> int:
    """The /16 or /32 that a network lies in, as a number of no meaning but this; of a system or a metro itself."""
    kind = number >> _KIND_BITS << _KIND_BITS
    if kind == _V4:
        return kind | (number ^ kind) >> (V4_PREFIX - V4_ALLOCATED)
    if kind == _V6:
        return kind | (number ^ kind) >> (V6_PREFIX - V6_ALLOCATED)
    return number


def wider_of(where: Whereabouts) -> tuple[int, ...]:
    if where.asn is None or not 0 < where.asn < 1 << 32:
        return ()
    whole = _AS | where.asn
    if not where.metro:
        return (whole,)
    digest = hashlib.blake2b(f"{where.asn} {where.metro}".encode(), digest_size=7).digest()
    return (_METRO | int.from_bytes(digest, "big"), whole)


class MaxMindAtlas:
    """Reads the operator's own files in MaxMind's format (https://maxmind.github.io/MaxMind-DB/): one with autonomous systems,
    one with cities, or one with both. Raises `OSError` or `ValueError` at opening where a file cannot be used."""

    def __init__(self, *paths: Path) -> None:
        self._readers: list[Any] = []
        for path in paths:
            try:
                self._readers.append(maxminddb.open_database(path, maxminddb.MODE_MMAP))
            except maxminddb.InvalidDatabaseError as error:
                raise ValueError(f"{path} is not a file in MaxMind's format: {error}") from None

    def whereabouts(self, address: str) -> Whereabouts:
        found: dict[str, Any] = {}
        for reader in self._readers:
            try:
                record = reader.get(address)
            except (ValueError, maxminddb.InvalidDatabaseError):
                continue
            if isinstance(record, dict):
                found.update(record)
        place = found.get("location")
        location: dict[str, Any] = place if isinstance(place, dict) else {}
        asn, metro = found.get("autonomous_system_number"), location.get("metro_code") or _city(found)
        return Whereabouts(
            asn=asn if isinstance(asn, int) else None,
            metro=str(metro) if metro else None,
            latitude=_degrees(location.get("latitude"), 90.0),
            longitude=_degrees(location.get("longitude"), 180.0),
        )

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def _city(record: dict[str, Any]) -> str | None:
    city = record.get("city")
    geoname = city.get("geoname_id") if isinstance(city, dict) else None
    return f"city-{geoname}" if isinstance(geoname, int) else None


def _degrees(value: Any, most: float) -> float | None:
    return float(value) if isinstance(value, int | float) and -most <= value <= most else None
