"""What a ticket grants, read without its signature: that is the edges' business."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """One epoch on one edge. `url`: the edge's media listener, ``ws(s)://host:port``."""

    epoch: int
    region: str
    url: str


def read_grants(ticket: str) -> tuple[str, list[Grant]]:
    """(call id, grants in order of epoch, at least one); raises `ValueError` for what is not a ticket."""
    try:
        payload = ticket.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        grants = [Grant(int(g["e"]), str(g["region"]), str(g["url"])) for g in claims["g"]]
        call_id = str(claims["sub"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        grants = []
    if not grants:
        raise ValueError("this is not a ticket: use the `ticket` of a created call") from None
    return call_id, sorted(grants, key=lambda g: g.epoch)
