"""When a call ends by itself, because of what is said in it, or is not. Pure: asked once in 20 ms.

The cases, in order; each only where the call was created with it, and none while there is no backend:

1. the caller has spoken for `monologue_s` without a pause    → ``monologue``: a voicemail greeting, a television
2. the caller has said nothing for `silence_s`                → ``caller_silent``, however often the agent asks
3. nobody has said anything for `idle_s`                      → ``idle``

A new owner of the call counts anew: what it was handed does not say how long it had been quiet.
"""

from __future__ import annotations

from regions.wire.events import EndReason
from regions.wire.ticket import EndWhen


class Endings:
    __slots__ = ("_any_ms", "_caller_ms", "_since_ms", "_wanted")

    def __init__(self, wanted: EndWhen, now_ms: int) -> None:
        self._wanted = wanted
        self._caller_ms = self._any_ms = now_ms
        self._since_ms: int | None = None

    def turn(self, now_ms: int, *, backend: bool, caller: bool, agent: bool) -> EndReason | None:
        """`caller`: it is speaking, the pauses within what it says included. `agent`: something of the agent's is being played."""
        if not backend:
            self._begin(now_ms)
            return None
        if caller:
            self._caller_ms = self._any_ms = now_ms
            if self._since_ms is None:
                self._since_ms = now_ms
        else:
            self._since_ms = None
        if agent:
            self._any_ms = now_ms
        wanted = self._wanted
        if _over(wanted.monologue_s, self._since_ms, now_ms):
            return EndReason.MONOLOGUE
        if _over(wanted.silence_s, self._caller_ms, now_ms):
            return EndReason.CALLER_SILENT
        if _over(wanted.idle_s, self._any_ms, now_ms):
            return EndReason.IDLE
        return None

    def _begin(self, now_ms: int) -> None:
        self._caller_ms = self._any_ms = now_ms
        self._since_ms = None


def _over(after_s: float, since_ms: int | None, now_ms: int) -> bool:
    return after_s > 0 and since_ms is not None and now_ms - since_ms >= after_s * 1_000
