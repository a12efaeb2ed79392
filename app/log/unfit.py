"""What an edge has written and the log cannot hold. Pure: whoever appends says of what is replaced.

An edge sends what is not acknowledged again, with the same numbers. An event that can never be stored would be sent for ever, and
all of its call behind it would wait: `events.lost` takes its place, the same each time it is made. The final event stays one.
"""

from __future__ import annotations

import json
import re

import msgspec

from regions.wire.events import (
    DATA_BYTES_MAX,
    EVENT_TYPES,
    FINAL_TYPE,
    LOST_TYPE,
    EdgeEvent,
    EndReason,
    Lost,
)
from regions.wire.uplink import CallEvents, Events

REASON = "unfit"
EXPONENT_MAX = 1_000
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, and not the text of one: what follows an escaped backslash is what somebody said."""
_DOUBTFUL = re.compile(rb"\\u0000|[eE][+-]?\d{4}")
"""What may be a NUL or a number beyond the database's, or only look like one: it is looked at more closely."""


def fitting(batch: Events) -> tuple[Events, int]:
    """The batch as it can be stored, and how many of its events were replaced: of an honest edge's none."""
    events = [event for run in batch.calls for event in run.events]
    data = [bytes(event.data) for event in events]
    if (
        max(map(len, data), default=0) <= DATA_BYTES_MAX
        and {raw[:1] for raw in data} <= {b"{"}
        and _DOUBTFUL.search(b" ".join(data)) is None
        and {event.type for event in events} <= EVENT_TYPES.keys()
    ):
        return batch, 0
    unfit = sum(not fits(event) for event in events)
    return (msgspec.structs.replace(batch, calls=list(map(_fitting, batch.calls))) if unfit else batch), unfit


def _fitting(run: CallEvents) -> CallEvents:
    events = [event if fits(event) else replaced(event, run.epoch) for event in run.events]
    return msgspec.structs.replace(run, events=events)


def fits(event: EdgeEvent) -> bool:
    """Whether its type is known here, and its data an object that can be stored."""
    raw = bytes(event.data)
    return event.type in EVENT_TYPES and len(raw) <= DATA_BYTES_MAX and raw[:1] == b"{" and fits_database(raw)


def replaced(event: EdgeEvent, epoch: int) -> EdgeEvent:
    """What is stored in its place, under its number, id and time."""
    if event.type == FINAL_TYPE:
        type_, data = FINAL_TYPE, msgspec.json.encode({"end_reason": EndReason.EDGE_LOST.value})
    else:
        first = (epoch, event.n) if event.origin is None else (event.origin.epoch, event.origin.n)
        lost = Lost(epoch=first[0], from_n=first[1], to_n=first[1], reason=REASON)
        type_, data = LOST_TYPE, msgspec.json.encode(lost)
    return msgspec.structs.replace(event, type=type_, data=msgspec.Raw(data))


def fits_database(raw: bytes) -> bool:
    """Whether PostgreSQL can hold it."""
    try:
        text = raw.decode()
        if _DOUBTFUL.search(raw) is not None:
            json.loads(text, parse_float=_check_float)
    except (ValueError, RecursionError):
        return False
    return _NUL.search(raw) is None


def _check_float(text: str) -> None:
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > EXPONENT_MAX:
        raise ValueError("a number beyond all bounds")
