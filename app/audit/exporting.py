"""The audit log as a file that can be verified without us: JSON lines or CSV. Pure, both ways.

One record a line, in this order: what it is (`export`), the public keys, all anchors, then the entries chain by chain. CSV has the
same records, with a column for each field of any of them, and JSON in those that are no text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.audit.chain import Anchor, Entry, canonical
from app.clock import rfc3339
from app.projects.roles import Actor
from regions.wire import ids

Format = Literal["jsonl", "csv"]
Record = dict[str, Any]
COLUMNS = (
    "kind", "project", "from", "to", "kid", "public_key", "writer", "n", "id", "at", "actor_kind", "actor_id", "address",
    "request_id", "action", "target", "summary", "salt", "digest", "prev", "hash", "signature", "body",
)  # fmt: skip
JSON_COLUMNS = {"summary"}
LINE_CHARS_MAX = 4 << 20


class BadExport(ValueError):
    """The file is not an export; says in which line."""


def about(project_id: UUID, since: str | None, until: str | None) -> Record:
    return {"kind": "export", "project": str(project_id), "from": since, "to": until}


def of_key(kid: str, key: Ed25519PublicKey) -> Record:
    return {"kind": "key", "kid": kid, "public_key": raw(key)}


def of_anchor(anchor: Anchor) -> Record:
    return {
        "kind": "anchor", "n": anchor.n, "kid": anchor.kid, "hash": anchor.hash.hex(), "signature": anchor.signature.hex(),
        "body": anchor.body,
    }  # fmt: skip


def of_entry(entry: Entry) -> Record:
    address, summary = entry.said
    return {
        "kind": "entry", "project": str(entry.project_id), "writer": str(entry.writer), "n": entry.n,
        "id": ids.encode(ids.AUDIT, entry.id), "at": rfc3339(entry.at), "actor_kind": entry.actor.kind,
        "actor_id": entry.actor.id, "address": address, "request_id": entry.request_id,
        "action": entry.action, "target": entry.target, "summary": summary,
        "salt": entry.salt.hex() if entry.salt is not None else None, "digest": entry.digest.hex(), "prev": entry.prev.hex(),
        "hash": entry.hash.hex(), "kid": entry.kid, "signature": entry.signature.hex(),
    }  # fmt: skip


def raw(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


# ---------------------------------------------------------------------------------------------------------- write


def lines(records: Iterable[Record], format_: Format) -> Iterator[str]:
    """CSV without its first line."""
    for record in records:
        yield json.dumps(record, ensure_ascii=True) + "\n" if format_ == "jsonl" else _csv(record)


def header() -> str:
    return ",".join(COLUMNS) + "\r\n"


def _csv(record: Record) -> str:
    out = io.StringIO()
    cells = [_cell(name, record.get(name)) for name in COLUMNS]
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if name in JSON_COLUMNS else str(value)


# ----------------------------------------------------------------------------------------------------------- read


def records(text: Iterable[str]) -> Iterator[tuple[int, Record]]:
    """With the number of the line. Raises `BadExport`."""
    given = iter(text)
    first = next(given, "")
    if first.startswith("kind,"):
        yield from _from_csv(first, given)
        return
    for number, line in _numbered(first, given):
        try:
            record = json.loads(line)
        except ValueError:
            raise BadExport(f"line {number} is no JSON") from None
        if not isinstance(record, dict):
            raise BadExport(f"line {number} is no object")
        yield number, record


def _numbered(first: str, rest: Iterator[str]) -> Iterator[tuple[int, str]]:
    yield 1, first
    yield from enumerate(rest, 2)


def _from_csv(first: str, rest: Iterator[str]) -> Iterator[tuple[int, Record]]:
    names = first.strip().split(",")
    reader = csv.reader(rest)
    for cells in reader:
        number = reader.line_num + 1
        if len(cells) != len(names):
            raise BadExport(f"line {number} has {len(cells)} cells, not {len(names)}")
        record: Record = {name: cell or None for name, cell in zip(names, cells, strict=True)}
        for name in JSON_COLUMNS:
            if record.get(name) is not None:
                try:
                    record[name] = json.loads(record[name])
                except ValueError:
                    raise BadExport(f"line {number}: {name} is no JSON") from None
        for name in ("target", "request_id", "actor_id"):
            record[name] = record.get(name) or ""
        yield number, record


def entry_of(record: Mapping[str, Any]) -> Entry:
    """Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
    salt = record.get("salt")
    details = (
        canonical({"address": record.get("address") or "", "summary": record.get("summary")})
        if salt
        else None
    )
    return Entry(
        project_id=UUID(record["project"]),
        writer=UUID(record["writer"]),
        n=int(record["n"]),
        id=ids.decode(ids.AUDIT, record["id"]),
        at=datetime.fromisoformat(record["at"]),
        actor=Actor(kind=record["actor_kind"], id=record["actor_id"]),
        action=record["action"],
        target=record["target"] or "",
        request_id=record["request_id"] or "",
        details=details,
        salt=bytes.fromhex(salt) if salt else None,
        digest=bytes.fromhex(record["digest"]),
        prev=bytes.fromhex(record["prev"]),
        hash=bytes.fromhex(record["hash"]),
        kid=record["kid"],
        signature=bytes.fromhex(record["signature"]),
    )


def anchor_of(record: Mapping[str, Any], project_id: UUID) -> Anchor:
    return Anchor(
        project_id=project_id,
        n=int(record["n"]),
        body=record["body"],
        hash=bytes.fromhex(record["hash"]),
        kid=record["kid"],
        signature=bytes.fromhex(record["signature"]),
    )
