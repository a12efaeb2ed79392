"""How a stored event becomes the envelope customers see. Decides the columns every reader selects and opens content.

Rows never leave `app.log` and the stores beside it: what comes out is `PublicEvent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from app.clock import rfc3339
from app.vault import Vault
from regions.wire import ids
from regions.wire.events import PublicEvent

EVENT_COLUMNS = "call_id, seq, project_id, id, type, epoch, region, at, data, content, content_key, feed_xid"
ERASED: dict[str, Any] = {"erased": True}


async def to_public(vault: Vault, rows: Iterable[Mapping[str, Any]]) -> list[PublicEvent]:
    """Envelopes in the order of `rows`; content whose key was destroyed reads ``{"erased": true}``."""
    return [
        PublicEvent(
            id=ids.encode(ids.EVENT, row["id"]),
            type=row["type"],
            call_id=ids.encode(ids.CALL, row["call_id"]),
            seq=row["seq"],
            epoch=row["epoch"],
            region=row["region"],
            timestamp=rfc3339(row["at"]),
            data=await event_data(vault, row),
        )
        for row in rows
    ]


async def event_data(vault: Vault, row: Mapping[str, Any]) -> msgspec.Raw | dict[str, Any]:
    """The event's data as raw JSON, opened where they are content."""
    sealed: bytes | None = row["content"]
    if sealed is None:
        return msgspec.Raw((row["data"] or "{}").encode())
    key_id: UUID = row["content_key"]
    key = await vault.by_id(key_id)
    return ERASED if key is None else msgspec.Raw(key.open(sealed, row["id"]))
