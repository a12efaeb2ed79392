"""When a caller prepares a standby and when it takes it. Pure: times and what was seen come in, actions go out.

    attached ──silent 400 ms──► suspicious: Prepare(next)   ──heard again──► attached (standby let go)
        │                           │ silent 500 ms and the standby has answered: Take
        │ closed without an end ────┴──────────────────────────────────────► taking: Take(next) at once
    taking ──attached──► attached at the higher epoch
        └─refused / failed─► the next grant; none left: AskTicket; too late: GiveUp
    attached ──planned──► moving: Take(the epoch asked for), while the owner goes on ──attached──► attached there
                             │ refused: nothing was taken ──► attached, the owner stays
                             └─the new one fails, or the owner does ──► taking

When both are silent before any take was sent, it is the caller's own network: the old owner is tried again, at growing
intervals, and the standbys from the first on, until somebody is heard; the epoch stays. A standby that failed to prepare is
passed over and has lost nothing by it. A take once sent is never withdrawn: no lower epoch is presented afterwards. The grants
of the newest ticket come first: whoever made it knew more of the fleet than those who made the ones before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

PREPARE_AFTER_MS = 400
TAKE_AFTER_MS = 500
OWN_NETWORK_AFTER_MS = 1_500
RETRY_AFTER_MS = (1_000, 1_500, 2_000, 3_000)
"""After one try of the owner and before the next; the last holds for all that follow. Each up to a quarter shorter, by chance."""
PREPARE_PATIENCE_MS = 1_500
GIVE_UP_AFTER_MS = 30_000
TAKE_PATIENCE_MS = 1_500


class State(StrEnum):
    ATTACHED = "attached"
    SUSPICIOUS = "suspicious"
    TAKING = "taking"
    MOVING = "moving"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Prepare:
    epoch: int


@dataclass(frozen=True, slots=True)
class Take:
    """`reason`: ``silent``, ``closed`` or ``refused``; ``planned`` where the owner is there and stays until the new one is."""

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

    def __init__(
        self, epochs: list[int], epoch: int, now_ms: float, draw: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`draw`: a number from 0 to 1, another one each time. `left_for`: why the last owner was left, whatever has become of the
        takes since."""
        self.left_for = "closed"
        self._epochs = sorted(epochs)
        self._draw = draw
        self.state = State.ATTACHED
        self.epoch = epoch
        self._highest_tried = epoch
        self._heard_ms = now_ms
        self._lost_ms = 0.0
        self._sent_ms = 0.0
        self._prepared: int | None = None
        self._prepared_ms = 0.0
        self._answered = False
        self._passed: set[int] = set()
        self._retries = 0
        self._retry_ms = 0.0
        self._asked = False

    def accepts(self, epoch: int) -> bool:
        """Whether an edge that says `attached` at `epoch` is the one that was asked for last."""
        return self.state is not State.OVER and epoch >= self._highest_tried

    def heard(self, now_ms: float) -> list[Action]:
        """Anything from the present owner."""
        self._heard_ms = now_ms
        self._retries = 0
        if self.state is State.SUSPICIOUS:
            self.state = State.ATTACHED
            return self._let_go()
        return []

    def prepared(self, epoch: int, now_ms: float) -> list[Action]:
        """The standby has answered a prepare."""
        if self.state is State.SUSPICIOUS and epoch == self._prepared:
            self._answered = True
        return self.tick(now_ms)

    def closed(self, now_ms: float, reason: str = "closed") -> list[Action]:
        """The owner's socket has closed, and it did not say that the call ended; ``refused``: it has not taken the call."""
        if self.state in (State.TAKING, State.OVER):
            return []
        if self.state is State.MOVING:
            self.state = State.TAKING  # the take is on its way
            return []
        return self._take(reason, now_ms)

    def planned(self, epoch: int, now_ms: float) -> list[Action]:
        """The owner asks to be left for `epoch`, whose edge is prepared. Nothing while the owner is in doubt."""
        if self.state is not State.ATTACHED or epoch <= self._highest_tried or epoch not in self._epochs:
            return []
        self.state = State.MOVING
        self._highest_tried = epoch
        self._sent_ms = self._lost_ms = now_ms
        return [Take(epoch, "planned")]

    def declined(self, epoch: int, now_ms: float) -> list[Action]:
        """An edge has refused: it has not taken the call. Of a planned move the owner still has it."""
        if self.state is State.MOVING and epoch == self._highest_tried:
            self.state = State.ATTACHED
            self._highest_tried = self.epoch
            self._passed.add(epoch)
            return []
        return self.failed(epoch, now_ms)

    def attached(self, epoch: int, now_ms: float) -> list[Action]:
        """An edge has said `attached`."""
        if not self.accepts(epoch):
            return []
        self.state = State.ATTACHED
        self.epoch = self._highest_tried = epoch
        self._heard_ms = now_ms
        self._retries = 0
        self._asked = False
        return self._let_go()

    def failed(self, epoch: int, now_ms: float) -> list[Action]:
        """A standby refused, or its socket did not open or closed."""
        if self.state is State.SUSPICIOUS and epoch == self._prepared:
            return self._prepare_next(now_ms)
        if self.state in (State.TAKING, State.MOVING) and epoch == self._highest_tried:
            self.state = State.TAKING
            return self._take_next("refused", now_ms)
        return []

    def granted(self, epochs: list[int], now_ms: float) -> list[Action]:
        """A new ticket has come."""
        self._asked = False
        self._epochs = [*sorted(set(epochs) - set(self._epochs)), *self._epochs]
        return self._take_next("refused", now_ms) if self.state is State.TAKING else []

    def not_granted(self, now_ms: float) -> list[Action]:
        """The ticket could not be renewed now; it is asked for again until it is too late."""
        self._asked = False
        late = self.tick(now_ms)
        return late if late or self.state is not State.TAKING else self._take_next("refused", now_ms)

    def over(self) -> None:
        self.state = State.OVER

    def tick(self, now_ms: float) -> list[Action]:
        silent_ms = now_ms - self._heard_ms
        if self.state is State.ATTACHED and silent_ms >= PREPARE_AFTER_MS:
            self.state = State.SUSPICIOUS
            return self._prepare_next(now_ms)
        if self.state is State.SUSPICIOUS:
            return self._suspicious(silent_ms, now_ms)
        if self.state is State.MOVING and now_ms - self._sent_ms >= TAKE_PATIENCE_MS:
            self.state = State.TAKING
        if self.state is State.TAKING:
            if now_ms - self._lost_ms >= GIVE_UP_AFTER_MS:
                self.state = State.OVER
                return [GiveUp()]
            if not self._asked and now_ms - self._sent_ms >= TAKE_PATIENCE_MS:
                return self._take_next("refused", now_ms)
        return []

    def _suspicious(self, silent_ms: float, now_ms: float) -> list[Action]:
        """1. A standby has answered: take it. 2. Too late. 3. Own network: another round. 4. The standby keeps us waiting."""
        if silent_ms >= TAKE_AFTER_MS and self._answered:
            return self._take("silent", now_ms)
        if silent_ms >= GIVE_UP_AFTER_MS:
            self.state = State.OVER
            return [GiveUp()]
        if silent_ms >= OWN_NETWORK_AFTER_MS and (not self._retries or now_ms >= self._retry_ms):
            pause_ms = RETRY_AFTER_MS[min(self._retries, len(RETRY_AFTER_MS) - 1)]
            self._retry_ms = now_ms + pause_ms * (1 - self._draw() / 4)
            self._retries += 1
            round_over = self._prepared is None
            if round_over:
                self._passed.clear()
            return [Retry(self.epoch), *(self._prepare_next(now_ms) if round_over else ())]
        waited_ms = now_ms - self._prepared_ms
        if self._prepared is not None and not self._answered and waited_ms > PREPARE_PATIENCE_MS:
            return [LetGo(self._prepared), *self._prepare_next(now_ms)]
        return []

    def _prepare_next(self, now_ms: float) -> list[Action]:
        if self._prepared is not None:
            self._passed.add(self._prepared)
        self._prepared, self._answered, self._prepared_ms = self._next(), False, now_ms
        return [Prepare(self._prepared)] if self._prepared is not None else []

    def _take(self, reason: str, now_ms: float) -> list[Action]:
        self.state = State.TAKING
        self.left_for = reason
        self._lost_ms = now_ms
        prepared, answered = self._prepared, self._answered
        self._prepared, self._answered = None, False
        if prepared is not None and answered:
            self._sent_ms = now_ms
            self._highest_tried = prepared
            return [Take(prepared, reason)]
        return self._take_next(reason, now_ms)

    def _take_next(self, reason: str, now_ms: float) -> list[Action]:
        self._sent_ms = now_ms
        following = self._next() or self._next(passed=True)
        if following is None:
            if self._asked:
                return []
            self._asked = True
            return [AskTicket()]
        self._highest_tried = following
        return [Take(following, reason)]

    def _next(self, *, passed: bool = False) -> int | None:
        """The next grant above everything tried, of the newest ticket that has one; with `passed`, one that failed to prepare is
        better than none."""
        return next(
            (e for e in self._epochs if e > self._highest_tried and (passed or e not in self._passed)), None
        )

    def _let_go(self) -> list[Action]:
        prepared, self._prepared, self._answered = self._prepared, None, False
        self._passed.clear()
        return [LetGo(prepared)] if prepared is not None else []
