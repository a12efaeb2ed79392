"""Which events a reader wants: types with wildcards, one call, calls with certain metadata. Pure.

Decides what a filter means, and its digest, by which a cursor belongs to it. A wildcard stands for durable events; volatile
ones are wanted by their full name or by `volatile`. They have no place in the log, so they are no part of the digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from app.errors import BadRequest
from regions.wire.events import EVENT_TYPES

TYPES_MAX = 64
TYPE_CHARS_MAX = 64
METADATA_MAX = 8
METADATA_CHARS_MAX = 512
DIGEST_BYTES = 6
FIX = "See docs/reference/webhooks-and-events.md."

DURABLE = frozenset(name for name, kind in EVENT_TYPES.items() if kind.durable)
VOLATILE = frozenset(EVENT_TYPES) - DURABLE


@dataclass(frozen=True, slots=True)
class EventFilter:
    """`types` None: all durable ones. `live`: the volatile types that are wanted as well. `digest`: of what decides which
    durable events come, as it was asked for: a release that knows more types changes no digest."""

    types: frozenset[str] | None = None
    call_id: UUID | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    live: frozenset[str] = frozenset()
    digest: str = ""

    def takes(self, type_: str, call_id: UUID, metadata: Mapping[str, str] | None) -> bool:
        """`metadata`: of the event's call; needed where this filter asks for any."""
        return (
            (self.types is None or type_ in self.types)
            and (self.call_id is None or call_id == self.call_id)
            and all((metadata or {}).get(k) == v for k, v in self.metadata)
        )

    @property
    def types_list(self) -> list[str] | None:
        return None if self.types is None else sorted(self.types)


def digest_of(*parts: object) -> str:
    raw = hashlib.sha256(repr(parts).encode()).digest()[:DIGEST_BYTES]
    return base64.urlsafe_b64encode(raw).decode()


def filter_of(
    types: list[str] | None = None,
    call_id: UUID | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    volatile: bool = False,
) -> EventFilter:
    """Raises `BadRequest` ``unknown_type`` or ``bad_filter``: a reader that waits for what never comes would wait for ever."""
    asked = sorted(set(types or []))
    pairs = tuple(sorted((metadata or {}).items()))
    if len(asked) > TYPES_MAX:
        raise BadRequest(f"A filter names at most {TYPES_MAX} types.", code="bad_filter", fix=FIX)
    if len(pairs) > METADATA_MAX or any(len(k) + len(v) > METADATA_CHARS_MAX for k, v in pairs):
        raise BadRequest(
            f"A filter has at most {METADATA_MAX} pairs of metadata, of {METADATA_CHARS_MAX} characters each.",
            code="bad_filter",
            fix=FIX,
        )
    durable, live = expanded(asked)
    every = not asked or "*" in asked
    return EventFilter(
        types=None if every else durable,
        call_id=call_id,
        metadata=pairs,
        live=live | (VOLATILE if every else _volatile(asked)) if volatile else live,
        digest=digest_of([t for t in asked if t not in VOLATILE], bool(asked), call_id, pairs),
    )


def expanded(asked: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The durable types that are meant, and the volatile ones that are named in full. Raises `BadRequest`."""
    durable: set[str] = set()
    live: set[str] = set()
    for pattern in asked:
        if pattern in VOLATILE:
            live.add(pattern)
            continue
        found = {t for t in DURABLE if _matches(pattern, t)}
        if not found and not any(_matches(pattern, t) for t in VOLATILE):
            raise BadRequest(
                f"There is no event type {pattern[:TYPE_CHARS_MAX]!r}.", code="unknown_type", fix=FIX
            )
        durable |= found
    return frozenset(durable), frozenset(live)


def _volatile(asked: list[str]) -> frozenset[str]:
    return frozenset(t for t in VOLATILE if any(_matches(p, t) for p in asked))


def _matches(pattern: str, type_: str) -> bool:
    if pattern == "*":
        return True
    return type_.startswith(pattern[:-1]) if pattern.endswith(".*") else type_ == pattern


EVERYTHING = filter_of()
