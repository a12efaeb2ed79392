"""New ids. The forms stand in `regions.wire.ids`; this adds the clock and the random source of the control plane."""

from __future__ import annotations

import os
import time
from uuid import UUID

from regions.wire import ids as wire

__all__ = ["new_id", "parse"]


def new_id(cell: int = 0, now_ms: int | None = None) -> UUID:
    """A fresh UUIDv7 in `cell`; `now_ms` in Unix milliseconds, the system's when it is left out."""
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return wire.uuid7(ms, int.from_bytes(os.urandom(8), "big"), cell)


def parse(prefix: str, text: str) -> UUID | None:
    """The UUID behind a TypeID, or None where `text` is not one: for a caller that answers 404."""
    try:
        return wire.decode(prefix, text)
    except wire.IdError:
        return None
