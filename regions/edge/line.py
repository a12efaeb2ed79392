"""What a call's line was like, and what went over it: written down ten seconds after its owner has it, then once a minute, and with
the end.

Decides when it is told, and in which words. Leaves the arithmetic to `regions.media.quality`, the counting to the connections
(`Carried`, one of each connection's) and to `Arrivals`. All numbers are of this owner alone, since it has the call; the last that it
has written count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from regions.media.quality import Arrivals, Heard, Opinions, Report

FIRST_MS, EVERY_MS, LOOK_MS = 10_000, 60_000, 1_000
NOTHING = Heard()
Data = dict[str, object]


class Carried:
    """Bytes of one side: messages with their headers, or RTP with its own, without what lies below (TLS, TCP, UDP, IP). `in_bytes`:
    they came to the edge. `saved_bytes`: of silence that was not sent, in either direction."""

    __slots__ = ("in_bytes", "out_bytes", "saved_bytes")

    def __init__(self) -> None:
        self.in_bytes = self.out_bytes = self.saved_bytes = 0

    def add(self, other: Carried) -> None:
        self.in_bytes += other.in_bytes
        self.out_bytes += other.out_bytes
        self.saved_bytes += other.saved_bytes


class Connection(Protocol):
    """Of the caller's, as far as its line is asked. `carried` counts from its beginning."""

    @property
    def carried(self) -> Carried: ...
    def report(self) -> Report | None:
        """What the connection counts itself; None where it loses nothing, and what comes over it is counted frame by frame."""
        ...


class Backend(Protocol):
    """The other side, as far as it is asked: what went to and fro, and whether anybody is there."""

    @property
    def carried(self) -> Carried: ...
    @property
    def connection(self) -> object | None: ...


class CallerLine:
    """The caller's side, over all the connections that it had here."""

    __slots__ = ("_before", "_carried", "_connection", "arrivals")

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self._connection: Connection | None = None
        self._before = Report(up=NOTHING, down=NOTHING)
        self._carried = Carried()

    def connected(self, connection: Connection) -> None:
        self.left()
        self._connection = connection

    def left(self) -> None:
        """What it counted stays."""
        if self._connection is not None:
            self._before, self._carried = self.report(), self.carried()
            self._connection, self.arrivals = None, Arrivals()

    @property
    def attached(self) -> bool:
        return self._connection is not None

    def carried(self) -> Carried:
        total = Carried()
        total.add(self._carried)
        if self._connection is not None:
            total.add(self._connection.carried)
        return total

    @property
    def counts_itself(self) -> bool:
        return self._connection is not None and self._connection.report() is not None

    def report(self) -> Report:
        now = self._connection.report() if self._connection is not None else None
        now = now or Report(up=self.arrivals.heard(), down=NOTHING)
        before = self._before
        return Report(up=now.up.plus(before.up), down=now.down.plus(before.down), rtt_ms=now.rtt_ms)


class CallLine:
    """`too_late`: how many of the caller's frames had come and were thrown away. `rtt_ms`: what its echoes say, where its
    connection does not measure. `agent`: what went to and fro between the edge and the backend."""

    def __init__(
        self,
        caller: CallerLine,
        too_late: Callable[[], int],
        rtt_ms: Callable[[], int | None],
        agent: Backend,
        now_ms: int,
    ) -> None:
        self._caller = caller
        self._too_late = too_late
        self._rtt_ms = rtt_ms
        self._agent = agent
        self._caller_ms = self._agent_ms = 0
        self._counted_ms = now_ms
        self._since_ms = self._looked_ms = now_ms
        self._tell_ms = now_ms + FIRST_MS
        self._opinions = Opinions(now_ms, concealed=caller.counts_itself)

    def turn(self, now_ms: int, *, last: bool) -> list[tuple[str, Data]]:
        """Call it in each turn. What is to be written down now. `last`: the caller is told to go to another edge."""
        self._count(now_ms)
        if last:
            self._tell_ms = now_ms + EVERY_MS
            return [("call.quality", self.data(now_ms))]
        if now_ms - self._looked_ms < LOOK_MS:
            return []
        self._looked_ms = now_ms
        self._opinions.look(now_ms, self._report())
        if now_ms < self._tell_ms:
            return []
        self._tell_ms = now_ms + EVERY_MS
        return [("call.quality", self.data(now_ms))]

    def data(self, now_ms: int) -> Data:
        """All of it, until now."""
        self._count(now_ms)
        report, opinions = self._report(), self._opinions
        caller, agent = self._caller.carried(), self._agent.carried
        found = opinions.mos(report)
        quality: Data = {
            "period_ms": now_ms - self._since_ms,
            "up": _way(report.up),
            "mos": found,
            "mos_min": min(found, opinions.worst or found),
        }
        if report.down.frames:
            quality["down"] = _way(report.down)
        if (rtt_ms := opinions.rtt_ms if opinions.rtt_ms is not None else report.rtt_ms) is not None:
            quality["rtt_ms"] = round(rtt_ms)
        usage = {
            "caller_in_bytes": caller.in_bytes,
            "caller_out_bytes": caller.out_bytes,
            "agent_in_bytes": agent.in_bytes,
            "agent_out_bytes": agent.out_bytes,
            "caller_saved_bytes": caller.saved_bytes,
            "agent_saved_bytes": agent.saved_bytes,
            "silence_saved_bytes": caller.saved_bytes + agent.saved_bytes,
            "caller_ms": self._caller_ms,
            "agent_ms": self._agent_ms,
        }
        return {"quality": quality, "usage": usage}

    def _count(self, now_ms: int) -> None:
        passed_ms, self._counted_ms = now_ms - self._counted_ms, now_ms
        if self._caller.attached:
            self._caller_ms += passed_ms
        if self._agent.connection is not None:
            self._agent_ms += passed_ms

    def _report(self) -> Report:
        found, too_late = self._caller.report(), self._too_late()
        up = Heard(frames=found.up.frames, lost=found.up.lost + too_late, jitter_ms=found.up.jitter_ms)
        return Report(up=up, down=found.down, rtt_ms=self._rtt_ms() if found.rtt_ms is None else found.rtt_ms)


def _way(heard: Heard) -> Data:
    return {"loss": round(heard.loss, 4), "jitter_ms": heard.jitter_ms}
