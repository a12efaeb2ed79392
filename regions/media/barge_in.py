"""What the caller's voice does to the agent's: hold it, cancel it, or let it go on. Pure; times are milliseconds of any clock.

             over the agent             enough, a word
    ┌──────┐   (HOLD)      ┌──────┐       (CANCEL)
    │ FREE │ ────────────► │ HELD │ ─────────────────────► FREE
    └──────┘               └──────┘
        ▲      forgotten      │  ▲
        │   ┌───────────┐     │  │ over the agent (HOLD)
        └── │ IN DOUBT  │ ◄───┘  │
            └───────────┘ ───────┘      quiet, or held for too long: RESUME
                  └── a word (CANCEL) ──► FREE

The cases, in the order in which they are looked at:

1. The caller begins to speak and the agent is not heard, or `barge_in` is ``off``: nothing.
2. ``immediate``, or the caller has pressed its button: CANCEL. What is held is cancelled as well.
3. ``two_step``: HOLD. Nothing more of the agent is heard, and nothing of it is lost.
4. Held, and the caller has spoken for `barge_in_ms` in all: CANCEL.
5. Held, and a partial transcript has a word: CANCEL. So too for `WORD_WITHIN_MS` after the hold began, when it has been let go on
   since: a short word is understood after it has been said.
6. Held, and the caller has fallen quiet before: RESUME. It was no interruption.
7. Held for `HELD_MS_MAX` without any of that (no audio comes): RESUME.
8. The backend clears, or the call goes another way: whatever was held is not any more.
"""

from __future__ import annotations

from enum import Enum

from regions.wire.ticket import Turns

HELD_MS_MAX = 1_000
WORD_WITHIN_MS = 1_000


class Does(Enum):
    HOLD = "hold"
    CANCEL = "cancel"
    RESUME = "resume"


class State(Enum):
    FREE = "free"
    HELD = "held"
    DOUBT = "in doubt"


class Input(Enum):
    OVER_AGENT = "over the agent"
    CANCELLED = "cancelled"
    FELL_QUIET = "fell quiet"
    FORGOTTEN = "forgotten"
    CLEARED = "cleared"


TABLE: dict[tuple[State, Input], State] = {
    (State.FREE, Input.OVER_AGENT): State.HELD,
    (State.DOUBT, Input.OVER_AGENT): State.HELD,
    (State.FREE, Input.CANCELLED): State.FREE,
    (State.HELD, Input.CANCELLED): State.FREE,
    (State.DOUBT, Input.CANCELLED): State.FREE,
    (State.HELD, Input.FELL_QUIET): State.DOUBT,
    (State.DOUBT, Input.FORGOTTEN): State.FREE,
    (State.FREE, Input.CLEARED): State.FREE,
    (State.HELD, Input.CLEARED): State.FREE,
    (State.DOUBT, Input.CLEARED): State.FREE,
}


class BargeIn:
    __slots__ = ("_began_ms", "_spoken_ms", "_turns", "state")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._began_ms = 0
        self._spoken_ms = 0
        self.state = State.FREE

    @property
    def held(self) -> bool:
        return self.state is State.HELD

    @property
    def spoken_ms(self) -> int:
        """Of the caller's voice, in the interruption that is held or was let go on."""
        return self._spoken_ms

    def held_ms(self, now_ms: int) -> int:
        return now_ms - self._began_ms

    def started(self, now_ms: int, *, agent: bool, sure: bool) -> Does | None:
        """The caller has begun to speak. `sure`: by its button."""
        if not agent or self._turns.barge_in == "off":
            return None
        if sure or self._turns.barge_in == "immediate":
            return self._cancel()
        if self.held:
            return None
        self._step(Input.OVER_AGENT)
        self._began_ms, self._spoken_ms = now_ms, 0
        return Does.HOLD

    def spoken(self, voiced_ms: int) -> Does | None:
        """The caller has spoken for so long since it began."""
        if not self.held:
            return None
        self._spoken_ms = voiced_ms
        return self._cancel() if self._spoken_ms >= self._turns.barge_in_ms else None

    def word(self, now_ms: int, *, agent: bool) -> Does | None:
        """The backend has understood a word of the caller's."""
        if self.held or (self.state is State.DOUBT and agent and now_ms - self._began_ms <= WORD_WITHIN_MS):
            return self._cancel()
        return None

    def quiet(self) -> Does | None:
        """The caller has fallen quiet."""
        if not self.held:
            return None
        self._step(Input.FELL_QUIET)
        return Does.RESUME

    def tick(self, now_ms: int) -> Does | None:
        if self.held and now_ms - self._began_ms >= HELD_MS_MAX:
            return self.quiet()
        if self.state is State.DOUBT and now_ms - self._began_ms > WORD_WITHIN_MS:
            self._step(Input.FORGOTTEN)
        return None

    def cleared(self) -> None:
        """The playout was emptied for another reason."""
        self._step(Input.CLEARED)

    def _cancel(self) -> Does:
        self._step(Input.CANCELLED)
        return Does.CANCEL

    def _step(self, input_: Input) -> None:
        self.state = TABLE[self.state, input_]
