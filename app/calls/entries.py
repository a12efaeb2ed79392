"""What a project writes into a conversation, as events. Pure: decides the key, the event and what is refused, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from app.calls.conversation_shapes import WriteEntry
from app.errors import BadRequest, FieldError, Invalid
from regions.wire.conversation import good_key
from regions.wire.events import DATA_BYTES_MAX

KEY_FIX = (
    "Send `Idempotency-Key: <a fresh UUID>` or `key`, and the same one when you send the same entry again."
)
FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "turn": (frozenset({"role", "text"}), frozenset()),
    "tool.called": (frozenset({"name"}), frozenset({"id", "arguments"})),
    "tool.result": (frozenset(), frozenset({"id", "result"})),
}
"""Per type: the fields it needs, and those it may have."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`event_type` and `data` go into the log once per `source_key`."""

    event_type: str
    key: str
    source_key: str
    data: dict[str, Any]


def entry_of(body: WriteEntry, header_key: str | None) -> Entry:
    """Raises `BadRequest` or `Invalid`."""
    key = the_key(body.key, header_key)
    needed, allowed = FIELDS[body.type]
    given = {
        name
        for name in ("role", "text", "id", "name", "arguments", "result")
        if getattr(body, name) is not None
    }
    faults = [FieldError(pointer=f"/{n}", detail=f"{body.type} needs it") for n in sorted(needed - given)]
    faults += [
        FieldError(pointer=f"/{n}", detail=f"{body.type} has no such field")
        for n in sorted(given - needed - allowed)
    ]
    data = _data(body, key)
    if len(msgspec.json.encode(data)) > DATA_BYTES_MAX:
        large = "result" if body.type == "tool.result" else "arguments"
        faults.append(
            FieldError(pointer=f"/{large}", detail=f"the entry is over {DATA_BYTES_MAX // 1024} KiB of JSON")
        )
    if faults:
        raise Invalid("The entry does not fit.", errors=faults)
    event_type = "turn.ended" if body.type == "turn" else body.type
    return Entry(event_type, key, f"project:{body.type}:{key}", data)


def the_key(in_body: str | None, in_header: str | None) -> str:
    if in_body and in_header and in_body != in_header:
        raise Invalid(
            "The entry has two keys.",
            errors=[FieldError(pointer="/key", detail="differs from the Idempotency-Key")],
            fix="Send one of them, or the same in both.",
        )
    key = in_body or in_header
    if not key:
        raise BadRequest("An entry needs a key.", code="idempotency_key_required", fix=KEY_FIX)
    if not good_key(key):
        raise BadRequest(
            "The key has a form that an address cannot carry.",
            code="bad_idempotency_key",
            fix="Use 1 to 128 letters, digits and `._:@=+,-`, the first a letter or a digit.",
        )
    return key


def _data(body: WriteEntry, key: str) -> dict[str, Any]:
    match body.type:
        case "turn":
            return {"role": body.role, "text": body.text}
        case "tool.called":
            return {"id": body.id or key, "key": key, "name": body.name, "arguments": body.arguments}
        case "tool.result":
            return {"id": body.id or key, "key": key, "result": body.result}
