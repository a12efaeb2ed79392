"""When a call is over for its owner, and why. Pure: asked once in 20 ms.

The cases, in order:

1. it has lasted for as long as it may                       → ``max_duration``
2. its backend has hung up, or is given up on, and what that had said is heard → the reason it was given
3. what is said in it, or is not, ends it                    → see `endings`
"""

from __future__ import annotations

from collections.abc import Mapping

from regions.edge.endings import Endings
from regions.wire.events import EndReason
from regions.wire.ticket import EndWhen

Over = tuple[EndReason, Mapping[str, object]]


class Closing:
    __slots__ = ("_endings", "_max_ms", "_wanted")

    def __init__(self, max_s: int, end_when: EndWhen, now_ms: int) -> None:
        self._max_ms = max_s * 1_000
        self._endings = Endings(end_when, now_ms)
        self._wanted: Over | None = None

    @property
    def wanted(self) -> bool:
        """It ends once what was said is heard; nothing more is said."""
        return self._wanted is not None

    def once_heard(self, reason: EndReason, why: Mapping[str, object]) -> None:
        """The first reason counts."""
        if self._wanted is None:
            self._wanted = (reason, why)

    def hung_up(self, reason: str) -> list[tuple[str, dict[str, object]]]:
        """By the backend; what there is to write down. `reason`: what it gave. Only the one word that is ours stands in the final
        event, which everybody may read: what else it says is content."""
        if reason == EndReason.RESOLVED:
            self.once_heard(EndReason.RESOLVED, {})
            return []
        self.once_heard(EndReason.AGENT_HUNG_UP, {})
        return [("agent.hung_up", {"reason": reason})] if reason else []

    def turn(self, now_ms: int, elapsed_ms: int, *, backend: bool, caller: bool, agent: bool) -> Over | None:
        """`backend`: there is one. `caller`: it speaks. `agent`: something of the agent's is being played, or waits to be."""
        ending = self._endings.turn(now_ms, backend=backend, caller=caller, agent=agent)
        if elapsed_ms > self._max_ms:
            return EndReason.MAX_DURATION, {}
        if self._wanted is not None and not agent:
            return self._wanted
        return None if ending is None else (ending, {})
