"""When a caller prepares a standby and when it takes it. Pure: times and what was seen come in, actions go out.

    attached ──silent 400 ms──► suspicious: Prepare(next)   ──heard again──► attached (standby let go)
        │                           │ silent 500 ms and the standby has answered: Take
        │ closed without an end ────┴──────────────────────────────────────► taking: Take(next) at once
    taking ──attached──► attached at the higher epoch
        └─refused / failed─► the next grant; none left: AskTicket; too late: GiveUp

When both are silent before any take was sent, it is the caller's own network: the old owner is tried again and the epoch
stays. A take once sent is never withdrawn: no lower epoch is presented afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREPARE_AFTER_MS = 400
TAKE_AFTER_MS = 500
OWN_NETWORK_AFTER_MS = 1_500
GIVE_UP_AFTER_MS = 30_000
TAKE_PATIENCE_MS = 1_500


class State(StrEnum):
    ATTACHED = "attached"
    SUSPICIOUS = "suspicious"
    TAKING = "taking"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Prepare:
    epoch: int


@dataclass(frozen=True, slots=True)
class Take:
    """`reason`: ``silent``, ``closed`` or ``refused``."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """Close the prepared standby: the owner is heard again."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Open a new socket to the present owner: the caller's own network was away."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AskTicket:
    """No higher grant is left."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


Action = Prepare | Take | LetGo | Retry | AskTicket | GiveUp


class Watch:
    """One call's watch. Feed it what happens, and `tick` it every 20 ms or so; carry out what it returns."""

    def __init__(self, epochs: list[int], epoch: int, now_ms: float) -> None:
        self._epochs = sorted(epochs)
        self.state = State.ATTACHED
        self.epoch = epoch
        self._highest_tried = epoch
        self._heard_ms = now_ms
        self._lost_ms = 0.0
        self._sent_ms = 0.0
        self._prepared: int | None = None
        self._answered = False
        self._retried = False
        self._asked = False

    def heard(self, now_ms: float) -> list[Action]:
        """Anything from the present owner."""
        self._heard_ms = now_ms
        self._retried = False
        if self.state is State.SUSPICIOUS:
            self.state = State.ATTACHED
            return self._let_go()
        return []

    def prepared(self, epoch: int, now_ms: float) -> list[Action]:
        """The standby has answered a prepare."""
        if self.state is State.SUSPICIOUS and epoch == self._prepared:
            self._answered = True
        return self.tick(now_ms)

    def closed(self, now_ms: float) -> list[Action]:
        """The owner's socket has closed, and it did not say that the call ended."""
        if self.state in (State.TAKING, State.OVER):
            return []
        return self._take("closed", now_ms)

    def attached(self, epoch: int, now_ms: float) -> list[Action]:
        """An edge has said `attached`."""
        if epoch < self._highest_tried and self.state is State.TAKING:
            return []
        self.state = State.ATTACHED
        self.epoch = epoch
        self._highest_tried = max(self._highest_tried, epoch)
        self._heard_ms = now_ms
        self._prepared, self._answered, self._asked = None, False, False
        return []

    def failed(self, epoch: int, now_ms: float) -> list[Action]:
        """A standby refused, or its socket did not open or closed."""
        if self.state is State.SUSPICIOUS and epoch == self._prepared:
            self._prepared, self._answered = None, False
            self._highest_tried = max(self._highest_tried, epoch)
            following = self._next()
            if following is not None:
                self._prepared = following
                return [Prepare(following)]
            return []
        if self.state is State.TAKING and epoch == self._highest_tried:
            return self._take_next("refused", now_ms)
        return []

    def granted(self, epochs: list[int], now_ms: float) -> list[Action]:
        """A new ticket has come."""
        self._asked = False
        self._epochs = sorted(set(self._epochs) | set(epochs))
        return self._take_next("refused", now_ms) if self.state is State.TAKING else []

    def not_granted(self, now_ms: float) -> list[Action]:
        """The ticket could not be renewed now; it is asked for again until it is too late."""
        self._asked = False
        return self.tick(now_ms)

    def over(self) -> None:
        self.state = State.OVER

    def tick(self, now_ms: float) -> list[Action]:
        silent_ms = now_ms - self._heard_ms
        if self.state is State.ATTACHED and silent_ms >= PREPARE_AFTER_MS:
            self.state = State.SUSPICIOUS
            self._prepared = self._next()
            return [Prepare(self._prepared)] if self._prepared is not None else []
        if self.state is State.SUSPICIOUS:
            if silent_ms >= TAKE_AFTER_MS and self._answered:
                return self._take("silent", now_ms)
            if silent_ms >= OWN_NETWORK_AFTER_MS and not self._retried:
                self._retried = True
                return [Retry(self.epoch)]
            if silent_ms >= GIVE_UP_AFTER_MS:
                self.state = State.OVER
                return [GiveUp()]
        if self.state is State.TAKING:
            if now_ms - self._lost_ms >= GIVE_UP_AFTER_MS:
                self.state = State.OVER
                return [GiveUp()]
            if not self._asked and now_ms - self._sent_ms >= TAKE_PATIENCE_MS:
                return self._take_next("refused", now_ms)
        return []

    def _take(self, reason: str, now_ms: float) -> list[Action]:
        self.state = State.TAKING
        self._lost_ms = now_ms
        if self._prepared is not None and self._answered:
            self._sent_ms = now_ms
            self._highest_tried = max(self._highest_tried, self._prepared)
            return [Take(self._prepared, reason)]
        return self._take_next(reason, now_ms)

    def _take_next(self, reason: str, now_ms: float) -> list[Action]:
        self._sent_ms = now_ms
        following = self._next()
        if following is None:
            if self._asked:
                return []
            self._asked = True
            return [AskTicket()]
        self._highest_tried = following
        return [Take(following, reason)]

    def _next(self) -> int | None:
        return next((e for e in self._epochs if e > self._highest_tried), None)

    def _let_go(self) -> list[Action]:
        prepared, self._prepared, self._answered = self._prepared, None, False
        return [LetGo(prepared)] if prepared is not None else []
