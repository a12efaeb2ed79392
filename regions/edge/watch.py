"""One call as its counts and its trace see it: told of everything that is written of it, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from regions.edge.call_counts import CallCounts
from regions.edge.call_trace import CallTrace
from regions.edge.clock import lease_ms

AWAY = ("call.reconnecting", "call.moved")


class Seen(Protocol):
    """`traceparent`: of what follows from the call here; empty where that is not traced."""

    @property
    def traceparent(self) -> str: ...
    def __call__(self, type_: str, data: Mapping[str, object]) -> None: ...


class Nobody:
    traceparent = ""

    def __call__(self, type_: str, data: Mapping[str, object]) -> None:
        return


class Watch:
    __slots__ = ("_away_ms", "_counts", "_trace")

    def __init__(self, counts: CallCounts, trace: CallTrace | None = None) -> None:
        self._counts = counts
        self._trace = trace
        self._away_ms: int | None = None

    @property
    def traceparent(self) -> str:
        return self._trace.traceparent if self._trace is not None else ""

    def __call__(self, type_: str, data: Mapping[str, object]) -> None:
        self._counts.seen(type_, data)
        if self._trace is not None:
            self._trace(type_, data)
        if type_ in AWAY and self._away_ms is None:
            self._away_ms = lease_ms()
        elif type_ == "call.reconnected" and self._away_ms is not None:
            self._counts.returned((lease_ms() - self._away_ms) / 1000)
            self._away_ms = None
