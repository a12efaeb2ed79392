"""Verifies an exported audit log, without a server or a database. Pure.

The file brings the public keys with it, so it proves that nobody without the signing key has changed it: whose key it is, is to be
compared with what the deployment says (`GET /v1/audit/verify`), or given as the one that is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.audit.exporting import BadExport, Record, anchor_of, entry_of, raw, records
from app.audit.verifying import Verifier


def verify(text: Iterable[str], trusted: frozenset[str] = frozenset()) -> Verifier:
    """`trusted`: public keys in hex; none: those of the file. It is finished. Raises `BadExport` where the file cannot be read."""
    given = records(text)
    _, first = next(given, (1, {}))
    try:
        project_id = UUID(first["project"]) if first.get("kind") == "export" else None
    except (KeyError, ValueError, TypeError):
        project_id = None
    if project_id is None:
        raise BadExport("line 1 does not say whose log it is: this is no export of an audit log")
    keys: dict[str, Ed25519PublicKey] = {}
    verifier = Verifier(keys, project_id, whole=not (first.get("from") or first.get("to")))
    for number, record in given:
        try:
            _take(verifier, keys, record, trusted)
        except (KeyError, ValueError, TypeError, AttributeError):
            raise BadExport(f"line {number} is no record of an audit log, or a part of one") from None
    verifier.finish()
    return verifier


def _take(
    verifier: Verifier, keys: dict[str, Ed25519PublicKey], record: Record, trusted: frozenset[str]
) -> None:
    match record.get("kind"):
        case "key":
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(record["public_key"]))
            if not trusted or raw(key) in trusted:
                keys[record["kid"]] = key
        case "anchor":
            verifier.take_anchors([anchor_of(record, verifier.project_id)])
        case "entry":
            verifier.take_entries([entry_of(record)])
        case _:
            raise ValueError
