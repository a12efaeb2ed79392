"""How an edge lets go of a call that is to be moved: when it asks the caller, when it says go, when it makes it go. Pure.

    offered ──ready──► ready ──end of a turn, or the deadline──► gone ──moved──► (the session is left)
       │ cannot be had    │ cannot be had                          │ still here after a while
       └──► the next ◄────┴────────────────────────────────────────┘
       offered, and no answer at all until the deadline and a little ──► Drop: the caller does not know the message

A caller that answers and finds none of the grants is kept: wherever it was sent, nobody would have it. Whether a turn has
ended is `Boundary`'s: the agent has finished speaking and the caller has not begun, or nobody has spoken for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

ANSWER_WITHIN_MS = 2_000
"""After the deadline a caller has so long to prepare, if it was not asked long before."""
GONE_WITHIN_MS = 4_000
QUIET_MS = 3_000


@dataclass(frozen=True, slots=True)
class Offer:
    epoch: int
    within_ms: int


@dataclass(frozen=True, slots=True)
class Go:
    epoch: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the socket without an end: the caller takes its next grant."""


class Boundary:
    """Fed every 20 ms with who is speaking."""

    __slots__ = ("_caller_last", "_spoken_ms")

    def __init__(self) -> None:
        self._caller_last = False
        self._spoken_ms = 0

    def at(self, now_ms: int, *, agent: bool, caller: bool) -> bool:
        """Whether a turn has ended, and the next has not begun. A caller that has spoken is waiting for its answer."""
        if agent or caller:
            self._caller_last = caller
            self._spoken_ms = now_ms
            return False
        return not self._caller_last or now_ms - self._spoken_ms >= QUIET_MS


class Handover:
    """`epochs`: what the new ticket grants. `within_ms`: until then a boundary is waited for; then it goes without one, or where it
    is not `forced` not at all."""

    def __init__(self, epochs: list[int], now_ms: int, within_ms: int, *, forced: bool = True) -> None:
        self._forced = forced
        self._left = sorted(epochs)
        self._deadline_ms = now_ms + within_ms
        self._offered: int | None = None
        self._offered_ms = now_ms
        self._ready = False
        self._answered = False
        self._went_ms: int | None = None

    @property
    def gone(self) -> bool:
        """The caller was told to go."""
        return self._went_ms is not None

    @property
    def failed(self) -> bool:
        """None of the grants can be had."""
        return self._offered is None and not self._left

    def ready(self, epoch: int, code: str) -> None:
        """The caller's answer; one about another epoch says nothing."""
        if epoch != self._offered:
            return
        self._answered = True
        if code:
            self._pass_over()
        elif not self.gone:
            self._ready = True

    def again(self, now_ms: int) -> None:
        """The caller has a new socket, and may not have heard what was said on the old one."""
        if self._offered is not None and not self.gone:
            self._left.insert(0, self._offered)
            self._offered, self._ready = None, False

    def goes(self, now_ms: int, *, boundary: bool) -> bool:
        """Whether the caller is to be told to go now: it should have the newest snapshot before."""
        return self._ready and not self.gone and (boundary or (self._forced and now_ms >= self._deadline_ms))

    def tick(self, now_ms: int, *, boundary: bool) -> Offer | Go | Drop | None:
        late_ms = now_ms - self._deadline_ms
        if self._went_ms is not None:
            if now_ms - self._went_ms < GONE_WITHIN_MS:
                return None
            self._pass_over()
        if late_ms >= 0 and not self._forced:
            self._left.clear()
            self._pass_over()
            return None
        if self._offered is None:
            return self._offer(now_ms)
        if self._ready:
            if self.goes(now_ms, boundary=boundary):
                self._went_ms = now_ms
                return Go(self._offered)
        elif late_ms >= 0 and now_ms - self._offered_ms >= ANSWER_WITHIN_MS:
            if not self._answered:
                return Drop()
            self._pass_over()
        return None

    def _offer(self, now_ms: int) -> Offer | None:
        if not self._left:
            return None
        self._offered, self._offered_ms = self._left.pop(0), now_ms
        return Offer(self._offered, max(0, self._deadline_ms - now_ms))

    def _pass_over(self) -> None:
        self._offered, self._ready, self._went_ms = None, False, None
