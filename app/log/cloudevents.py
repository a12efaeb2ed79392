"""Events as CloudEvents 1.0, JSON format, structured mode (github.com/cloudevents/spec, v1.0.2). Pure.

Decides how our envelope maps to theirs: the type is ours below `dev.voxplane.`, the source names the project, the subject the
call. What they have no attribute for stands in the extensions `voxseq`, `voxepoch` and `voxregion`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from regions.wire.events import PublicEvent, VolatileEvent

PREFIX = "dev.voxplane."
CONTENT_TYPE = "application/cloudevents+json"


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`id` with `source` is unique; a volatile event has one made of what it says, and no `voxseq`."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    voxepoch: int
    voxseq: int | UnsetType = UNSET
    voxregion: str | UnsetType = UNSET
    data: Any


def cloudevent(event: PublicEvent, *, project: str) -> CloudEvent:
    """`project`: its ``prj_`` id."""
    return CloudEvent(
        id=event.id,
        source=source_of(project),
        type=PREFIX + event.type,
        subject=event.call_id,
        time=event.timestamp,
        voxseq=event.seq,
        voxepoch=event.epoch,
        voxregion=event.region if event.region is not None else UNSET,
        data=event.data,
    )


def volatile_cloudevent(event: VolatileEvent, *, project: str) -> CloudEvent:
    return CloudEvent(
        id="live-" + hashlib.sha256(msgspec.json.encode(event)).hexdigest()[:32],
        source=source_of(project),
        type=PREFIX + event.type,
        subject=event.call_id,
        time=event.timestamp,
        voxepoch=event.epoch,
        voxregion=event.region,
        data=event.data,
    )


def source_of(project: str) -> str:
    return f"urn:voxplane:{project}"
