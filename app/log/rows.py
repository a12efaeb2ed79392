"""How a stored event becomes the envelope customers see. Decides the columns every reader selects and opens content.

Rows never leave `app.log` and the stores beside it: what comes out is `PublicEvent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from app.clock import rfc3339
from app.vault import CallKey, Vault
from regions.wire import ids
from regions.wire.events import PublicEvent

EVENT_COLUMNS = "call_id, seq, project_id, id, type, epoch, region, at, data, content, feed_xid"
WRAPPED = "case when e.content is not null then (select c.wrapped from vx.calls c where c.id = e.call_id) end as wrapped"
"""The key beside the content of `vx.events e`: read with it, so that what is destroyed opens nowhere from then on."""
ERASED: dict[str, Any] = {"erased": True}


async def to_public(vault: Vault, rows: Iterable[Mapping[str, Any]]) -> list[PublicEvent]:
    """Envelopes in the order of `rows`; content whose key was destroyed reads ``{"erased": true}``. Raises `VaultError`."""
    return [
        PublicEvent(
            id=ids.encode(ids.EVENT, row["id"]),
            type=row["type"],
            call_id=ids.encode(ids.CALL, row["call_id"]),
            seq=row["seq"],
            epoch=row["epoch"],
            region=row["region"],
            timestamp=rfc3339(row["at"]),
            data=event_data(await _key(vault, row), row),
        )
        for row in rows
    ]


async def _key(vault: Vault, row: Mapping[str, Any]) -> CallKey | None:
    if row["content"] is None:
        return None
    return await vault.of_call(row["project_id"], row["call_id"], row["wrapped"])


def event_data(key: CallKey | None, row: Mapping[str, Any]) -> msgspec.Raw | dict[str, Any]:
    """The event's data as raw JSON, opened where they are content. `key`: of its call, None where it was destroyed."""
    sealed: bytes | None = row["content"]
    if sealed is None:
        return msgspec.Raw((row["data"] or "{}").encode())
    return ERASED if key is None else msgspec.Raw(key.open(sealed, row["id"]))
