"""The life of a call on one edge, as a table beside its diagram. Pure.

    prepared ──take──► owning ◄──attach──(new)
       │                 │  │
       │ leave           │  └──lapse (lease over) / fence (log says so)──► mute ──release──► gone
       ▼                 └──end (final event written)──► ended ──release──► gone
      gone

Only `owning` sends audio, text or events. `mute` waits a while, so that what is not acknowledged can still be flushed.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    PREPARED = "prepared"
    OWNING = "owning"
    MUTE = "mute"
    ENDED = "ended"
    GONE = "gone"


class BadTransition(Exception):
    """A step that the table does not have."""


TABLE: dict[tuple[Phase, str], Phase] = {
    (Phase.PREPARED, "take"): Phase.OWNING,
    (Phase.PREPARED, "leave"): Phase.GONE,
    (Phase.OWNING, "end"): Phase.ENDED,
    (Phase.OWNING, "lapse"): Phase.MUTE,
    (Phase.OWNING, "fence"): Phase.MUTE,
    (Phase.MUTE, "fence"): Phase.MUTE,
    (Phase.MUTE, "release"): Phase.GONE,
    (Phase.ENDED, "fence"): Phase.ENDED,
    (Phase.ENDED, "release"): Phase.GONE,
}


def step(phase: Phase, action: str) -> Phase:
    """The next phase; raises `BadTransition` for a pair that is not in the table."""
    try:
        return TABLE[(phase, action)]
    except KeyError:
        raise BadTransition(f"{action} while {phase}") from None
