"""Until when an edge may end a call because its backend has asked for it over REST. Pure.

Whoever asked waits for `app.calls.hang_up.WAIT_S` and is then told that nothing has come of it; a command that an edge gets later
must change nothing. Its time is counted in hops, each by one clock: how long it lay in a database, by that database; then on its
way to the edge, by the edge's own clock, whose time the holder of the uplink knows from heartbeats. A heartbeat that took long
makes the time shorter, never longer.
"""

from __future__ import annotations

import msgspec

from regions.wire.uplink import Command

KIND = "hangup"
WITHIN_MS = 1_500
"""From the asking to the edge's decision. The rest of `WAIT_S` is for the final event to be stored."""


def body(epoch: int, socket: int) -> dict[str, str]:
    """Of the command as it is written down."""
    return {"epoch": str(epoch), "socket": str(socket), "within_ms": str(WITHIN_MS)}


def aged(body: dict[str, str], age_s: float) -> dict[str, str]:
    """What is left of it after it lay in a database for so long; empty where that is nothing."""
    left_ms = int(body.get("within_ms", "0")) - max(0, int(age_s * 1000))
    return {**body, "within_ms": str(left_ms)} if left_ms > 0 else {}


class EdgeTime:
    """What an edge's wall clock shows at the least, by its newest heartbeat. `now_s`: monotonic, of this process."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def heard(self, at_ms: int, now_s: float) -> None:
        self._ahead_ms = at_ms - now_s * 1000

    def at_least_ms(self, now_s: float) -> int | None:
        """None before the first heartbeat."""
        return int(now_s * 1000 + self._ahead_ms) if self._ahead_ms is not None else None


def timed(command: Command, *, age_s: float | None, edge_ms: int | None) -> Command:
    """As it is sent. `age_s`: in the database, None where it is not known any more; `edge_ms`: what the edge's clock showed
    at the least when it was that old."""
    left = aged(command.body, age_s) if age_s is not None and edge_ms is not None else {}
    if not left:
        return msgspec.structs.replace(command, body={})
    assert edge_ms is not None
    until_ms = edge_ms + int(left.pop("within_ms"))
    return msgspec.structs.replace(command, body={**left, "until_ms": str(until_ms)})
