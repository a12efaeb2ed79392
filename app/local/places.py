"""The regions that a deployment of one machine pretends to have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A region as it will be: `rtt_ms` from the one caller of this machine."""

    id: str
    jurisdiction: str
    name: str
    latitude: float
    longitude: float
    rtt_ms: float = 0.0


PLACES = (
    Place("us-east", "us", "Virginia", 38.9, -77.0, 18.0),
    Place("eu-west", "eu", "Dublin", 53.3, -6.2, 86.0),
    Place("ap-south", "in", "Mumbai", 19.1, 72.9, 204.0),
    Place("us-west", "us", "Oregon", 45.8, -119.7, 70.0),
    Place("ap-northeast", "jp", "Tokyo", 35.7, 139.7, 160.0),
    Place("sa-east", "br", "São Paulo", -23.5, -46.6, 120.0),
)
