"""Erasures on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from app.calls.shapes import Name, ShortText, Subject


class EraseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of them. `subject`: as the creates named it. `number`: that a call came from or went to. `metadata`: all of it."""

    subject: Subject | None = None
    number: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    metadata: Annotated[dict[Name, ShortText], Meta(min_length=1, max_length=32)] | None = None


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: ``instance``, ``valkey`` (of a region) or ``edge``. `done_at` null: it has not said so yet, and is told until it has.
    `how`: ``gone`` where an instance has ended with what it had in memory, ``expired`` where nothing an edge holds is good any
    more."""

    kind: str
    place: str
    done_at: str | None
    how: str


class ErasureView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: ``finding`` while calls are looked for, ``telling`` once none of them opens in the database any more, ``done`` when
    every place has done its part. `calls`: how many so far."""

    id: str
    kind: str
    state: str
    calls: int
    created_at: str
    found_at: str | None
    done_at: str | None
    places: list[PlaceView]


class ErasurePage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ErasureView]
    next_cursor: str | None
