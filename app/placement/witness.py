"""Round trips as edges witness them, gathered to one value for each network, region and window. Pure.

Decides what the value of an hour is: the lower middle of what was witnessed, of at most `KEPT` reports spread over it. A caller
cannot make its round trip look shorter than it is, for the edge measures it with a number that the caller has to send back. It can
make it look longer, for its own network, and then one honest neighbour's reports are the lower ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from app.placement.history import RTT_MS_MAX, window_of

KEPT = 9
OPEN_MAX = 200_000
LOW = 0.4


@dataclass(frozen=True, slots=True)
class Value:
    """What one window of a network and a region is now. `reports`: on how many it rests."""

    network: int
    region: str
    window: int
    rtt_ms: float
    reports: int


@dataclass(slots=True)
class _Open:
    values: list[float] = field(default_factory=list)
    reports: int = 0


class Witness:
    """The window that is open, of this instance's edges."""

    def __init__(self) -> None:
        self._window = 0
        self._open: dict[tuple[int, str], _Open] = {}
        self._changed: set[tuple[int, str]] = set()
        self.dropped = 0

    def report(self, network: int, region: str, rtt_ms: float, now_s: float) -> None:
        """One report of an edge. What is no round trip is dropped, and counted; so is what would be too much."""
        if not (math.isfinite(rtt_ms) and 0.0 < rtt_ms <= RTT_MS_MAX):
            self.dropped += 1
            return
        window = window_of(now_s)
        if window > self._window:
            # what was not taken yet of the window before is of little worth
            self._window, self._open, self._changed = window, {}, set()
        key = (network, region)
        open_ = self._open.get(key)
        if open_ is None:
            if len(self._open) >= OPEN_MAX:
                self.dropped += 1
                return
            open_ = self._open[key] = _Open()
        open_.reports += 1
        if len(open_.values) < KEPT:
            open_.values.append(rtt_ms)
        else:
            # each report of the window has the same chance to be among them, with no chance in it: every n-th takes a place in turn
            open_.values[open_.reports % KEPT] = rtt_ms
        self._changed.add(key)

    def take(self, count: int) -> list[Value]:
        """At most so many values that have changed since they were taken."""
        taken = [self._changed.pop() for _ in range(min(count, len(self._changed)))]
        return [self._value(network, region) for network, region in taken]

    def put_back(self, values: list[Value]) -> None:
        """They were not stored: they are taken again."""
        self._changed.update(
            (v.network, v.region)
            for v in values
            if v.window == self._window and len(self._changed) < OPEN_MAX
        )

    def _value(self, network: int, region: str) -> Value:
        open_ = self._open[(network, region)]
        ordered = sorted(open_.values)
        return Value(network, region, self._window, ordered[int(LOW * len(ordered))], open_.reports)
