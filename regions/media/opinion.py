"""What two detectors make of a voice together: a quick one that hears too much, and a sure one that needs some windows. Pure.

    ┌────────┐  the gate opens   ┌──────────┐   sure    ┌──────┐
    │ ASLEEP │ ────────────────► │ TRUSTING │ ────────► │ SURE │ ◄──┐
    └────────┘                   └──────────┘           └──────┘    │ sure
        ▲                             │ TRUST_WINDOWS      │ not any │ more
        │ shut for SHUT_FRAMES        ▼ and no            ▼         │
        └─────── of all but SURE    ┌────────┐ ◄───────────┘        │
                                    │ UNSURE │ ─────────────────────┘
                                    └────────┘

The gate is WebRTC's detector behind an energy floor; a *window* is 32 ms, which Silero answers with a probability. The cases:

1. Asleep: nothing is a voice, and Silero is not asked. A silent line costs the gate alone.
2. Trusting: what the gate lets through is a voice. A consonant comes up to 150 ms before Silero is sure of it, and the agent should
   fall silent before that; a hold can be taken back.
3. Silero has not been sure for `TRUST_WINDOWS` windows with the gate open: it is noise, and no click. For `DISTRUST_FRAMES` the
   gate is not trusted any more.
4. Sure, until the probability falls under `OFF`: it is a voice, whatever the gate says.
5. Unsure: nothing is, until it is sure again; or the gate has been shut for `AGAIN_FRAMES` and opens, and is trusted.
6. Silero has not answered for `ANSWER_FRAMES`: the gate alone is listened to, as in case 2.
"""

from __future__ import annotations

from enum import Enum

from regions.media.voice_activity import PROBABILITY

ON, OFF = 0.5, 0.35
TRUST_WINDOWS = 6
SHUT_FRAMES = 15
DISTRUST_FRAMES = 50
ANSWER_FRAMES = 20
AGAIN_FRAMES = 3
LATE_FRAMES = 2
"""An answer is to what was heard about so long ago."""


class State(Enum):
    ASLEEP = "asleep"
    TRUSTING = "trusting"
    SURE = "sure"
    UNSURE = "unsure"


class Opinion:
    __slots__ = ("_distrust", "_probability", "_shut", "_unanswered", "_windows", "state")

    def __init__(self) -> None:
        self.state = State.ASLEEP
        self._probability = 0.0
        self._windows = 0
        self._shut = self._unanswered = 0
        self._distrust = 0

    @property
    def awake(self) -> bool:
        """Silero is to be asked."""
        return self.state is not State.ASLEEP

    def gate(self, open_: bool) -> None:
        """Once a frame, before it is looked at."""
        self._distrust -= self._distrust > 0
        reopened = open_ and self._shut >= AGAIN_FRAMES
        self._shut = 0 if open_ else self._shut + 1
        if not self.awake:
            if open_:
                self.state = State.UNSURE if self._distrust else State.TRUSTING
                self._windows, self._probability, self._unanswered = 0, 0.0, 0
            return
        self._unanswered += 1
        again = reopened and self.state is State.UNSURE and not self._distrust
        if again or self._unanswered >= ANSWER_FRAMES:
            self.state, self._windows, self._unanswered = State.TRUSTING, 0, 0
        if self._shut >= SHUT_FRAMES and self.state is not State.SURE:
            self.state = State.ASLEEP

    def window(self, probability: float) -> None:
        """Silero's answer, to the next window since it was woken."""
        if not self.awake:
            return
        self._windows += self._shut <= LATE_FRAMES
        self._unanswered = 0
        self._probability = probability
        if probability >= ON:
            self.state, self._distrust = State.SURE, 0
        elif self.state is State.SURE and probability < OFF:
            self.state = State.UNSURE
        elif self.state is State.TRUSTING and self._windows >= TRUST_WINDOWS:
            self.state, self._distrust = State.UNSURE, DISTRUST_FRAMES

    def voice(self, open_: bool) -> tuple[bool, float]:
        """Whether this frame is one, and how sure that is."""
        by_gate = max(self._probability, PROBABILITY) if open_ else self._probability
        match self.state:
            case State.TRUSTING:
                return open_, by_gate
            case State.SURE:
                return True, by_gate
            case _:
                return False, self._probability
