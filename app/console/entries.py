"""Entries of a timeline in words and numbers, whatever an edge or a backend has put into them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.calls.timeline_shapes import TimelineDelivery, TimelineEntry

STAGES = ("capture", "uplink", "jitter", "end_of_turn", "stt", "llm", "tts", "backend", "pacing", "downlink")


def stages_of(event: TimelineEntry) -> list[tuple[str, int]]:
    given = data_of(event).get("stages", {})
    known = given if isinstance(given, dict) else {}
    return [(s, int(known[s])) for s in STAGES if isinstance(known.get(s), (int, float)) and known[s] > 0]


def total_of(event: TimelineEntry) -> int:
    total = data_of(event).get("total_ms", 0)
    return int(total) if isinstance(total, (int, float)) else 0


def data_of(event: TimelineEntry) -> dict[str, Any]:
    return event.data if isinstance(event.data, dict) else {}


def went(one: TimelineDelivery) -> bool:
    return one.status is not None and 200 <= one.status < 300


def answer(one: TimelineDelivery) -> str:
    return str(one.status) if one.status is not None else one.error or "no answer"


def why(reason: str) -> str:
    words = {
        "silent": "the edge was silent", "closed": "the edge was lost", "refused": "the edge refused", "planned": "moved by plan",
        "agent_lost": "the backend was lost", "created": "placed here", "attached": "the caller came here",
    }  # fmt: skip
    return words.get(reason, reason or "taken over")


def words(name: str) -> str:
    return name.replace("_", " ")


def short(value: Any) -> str:
    """One line of it."""
    if isinstance(value, dict):
        return ", ".join(f"{words(str(k))} {short(v)}" for k, v in value.items())[:300]
    if isinstance(value, list):
        return ", ".join(short(v) for v in value)[:300]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:300]


def moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def length(seconds: float) -> str:
    return (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
    )


def clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
