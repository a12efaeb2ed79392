"""When the caller speaks, and when its turn is over. Pure: one frame of 20 ms comes in, facts go out; `offset_ms` is a parameter.

                 voice                    quiet for GAP_MS               quiet for STOP_MS
    ┌───────┐  (Started)   ┌──────────┐ ─────────────────► ┌─────────┐   (Stopped)   ┌─────────┐
    │ QUIET │ ───────────► │ SPEAKING │                    │ PAUSING │ ────────────► │ STOPPED │
    └───────┘              └──────────┘ ◄───────────────── └─────────┘               └─────────┘
        ▲  ▲                  │    ▲          voice                        voice        │   │
        │  └── talk released ─┘    └──────────────────────(Started)─────────────────────┘   │
        └─────────────────────── quiet for as long as a turn's end takes (Ended) ───────────┘

A turn lasts from the first `Started` to `Ended`, whatever pauses are in it. The cases:

1. *Voice* is `start_ms` of voiced frames, of which no two neighbours are missing. So a click or a cough that is shorter starts
   nothing, and ends no pause either: the pause goes on through it. `Started` has the offset of the first of these frames.
2. A frame is voiced when the detector says so and it stands out of the line's noise (`Level`). While the agent is heard, the
   detector has to be surer: what comes back of the agent's voice is no caller.
3. While frames begin to be voiced nothing stops or ends: within `start_ms` and a little it is voice, or it was nothing.
4. `Stopped` comes after `STOP_MS` without voice, with the offset at which the voice ended.
5. `Ended` comes after the *hangover*: `end_ms`, or longer for a speaker who pauses for longer within a turn (`Pauses`), up to
   `end_ms_max`. A partial transcript that looks unfinished doubles it, one that looks finished cuts it to `FINISHED_SHARE`, until
   `STALE_VOICE_MS` more have been spoken.
6. A voice that comes back after an `Ended`, before the agent has answered and within `end_ms_max`, may show that the end came too
   early: that pause counts as one within the turn.
7. No frame for a while (`LATE_FRAMES`: until then it is jitter) is quiet as well: who sends nothing says nothing.
8. `push_to_talk`: the turn lasts while the caller holds its button, whatever is heard, and `TALK_MS_MAX` at most. `off`: nothing is
   ever found.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from regions.media.codecs import FRAME_MS
from regions.media.level import Level
from regions.media.phrases import Look, look
from regions.wire.ticket import Turns

GAP_MS = 40
STOP_MS = 200
LATE_FRAMES = 5
FINISHED_SHARE = 0.7
UNFINISHED_FACTOR = 2.0
STALE_VOICE_MS = 400
OVER_AGENT = 0.6
TALK_MS_MAX = 120_000


@dataclass(frozen=True, slots=True)
class Sound:
    """A frame as it was heard: whether the detector takes it for a voice, how sure it is (0 to 1), how loud it is (PCM16 rms)."""

    voice: bool
    probability: float
    rms: int


@dataclass(frozen=True, slots=True)
class Started:
    """The caller speaks, since `at_ms`. `over_agent`: while the agent did."""

    at_ms: int
    over_agent: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The caller's voice ended at `at_ms`."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over. It began at `started_ms`, its voice ended at `stopped_ms`, and it took `waited_ms` more to be sure."""

    started_ms: int
    stopped_ms: int
    waited_ms: int
    by: str = "silence"
    """``silence`` or ``talk`` (the button was let go)."""


Fact = Started | Stopped | Ended


class Phase(Enum):
    QUIET = "quiet"
    SPEAKING = "speaking"
    PAUSING = "pausing"
    STOPPED = "stopped"


class Input(Enum):
    VOICE = "voice"
    PAUSE = "pause"
    STOP = "stop"
    END = "end"
    RELEASE = "release"


TABLE: dict[tuple[Phase, Input], Phase] = {
    (Phase.QUIET, Input.VOICE): Phase.SPEAKING,
    (Phase.SPEAKING, Input.PAUSE): Phase.PAUSING,
    (Phase.PAUSING, Input.VOICE): Phase.SPEAKING,
    (Phase.PAUSING, Input.STOP): Phase.STOPPED,
    (Phase.STOPPED, Input.VOICE): Phase.SPEAKING,
    (Phase.STOPPED, Input.END): Phase.QUIET,
    (Phase.SPEAKING, Input.RELEASE): Phase.QUIET,
}


class BadInput(Exception):
    """An input that its phase does not know: a fault of this module."""


class Pauses:
    """How long this speaker pauses within a turn: the second longest of the newest `KEPT` pauses counts, with a margin, so that one
    odd pause changes nothing."""

    KEPT = 8
    SHORTEST_MS = 100
    MARGIN_MS = 20

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: deque[int] = deque(maxlen=self.KEPT)

    def add(self, pause_ms: int) -> None:
        if pause_ms >= self.SHORTEST_MS:
            self._newest.append(pause_ms)

    @property
    def needed_ms(self) -> int:
        """What a hangover must be, so as not to split this speaker's turns; 0 where too little is known."""
        return sorted(self._newest)[-2] + self.MARGIN_MS if len(self._newest) > 1 else 0


@dataclass(slots=True)
class _Run:
    """Frames that may become a voice. `frames`: since the first; `missing`: how many at the end are not voiced."""

    frames: int = 0
    voiced: int = 0
    missing: int = 0

    def add(self, voiced: bool) -> None:
        if voiced or self.frames:
            self.frames += 1
            self.voiced += voiced
            self.missing = 0 if voiced else self.missing + 1
        if self.missing > 1:
            self.clear()

    def clear(self) -> None:
        self.frames = self.voiced = self.missing = 0


@dataclass(slots=True)
class TurnDetector:
    """`turns`: what the call asked for. `voiced_ms`: of the speech that began last."""

    turns: Turns
    phase: Phase = Phase.QUIET
    voiced_ms: int = 0
    _level: Level = field(default_factory=Level)
    _pauses: Pauses = field(default_factory=Pauses)
    _run: _Run = field(default_factory=_Run)
    _quiet_ms: int = 0
    _started_ms: int = 0
    _late: int = 0
    _look: Look = Look.NOTHING
    _voiced_since_look_ms: int = 0
    _ended_ms: int | None = None
    """Since the voice of the last turn ended, where the agent has not spoken since."""

    @property
    def open(self) -> bool:
        """A turn has begun, and is not over."""
        return self.phase is not Phase.QUIET

    @property
    def hangover_ms(self) -> int:
        """How long after the voice has ended the turn does. See case 5."""
        turns = self.turns
        wanted = float(max(turns.end_ms, self._pauses.needed_ms))
        if self._look is Look.UNFINISHED:
            wanted *= UNFINISHED_FACTOR
        elif self._look is Look.FINISHED:
            wanted = turns.end_ms * FINISHED_SHARE
        return max(STOP_MS, min(round(wanted), max(turns.end_ms_max, turns.end_ms)))

    def hear(self, sound: Sound, *, offset_ms: int, agent: bool) -> list[Fact]:
        """One frame, which ends at `offset_ms`. `agent`: something of the agent's is being played."""
        if self.turns.mode != "auto":
            return self._held_for_too_long(offset_ms)
        self._late = 0
        loud = self._level.loud(sound.rms, voice=sound.voice, probability=sound.probability)
        sure = not agent or sound.probability >= OVER_AGENT
        return self._frame(sound.voice and loud and sure, offset_ms, agent)

    def missed(self, *, offset_ms: int, agent: bool) -> list[Fact]:
        """Twenty milliseconds have passed, and no frame has come."""
        if self.turns.mode != "auto":
            return self._held_for_too_long(offset_ms)
        self._late += 1
        return self._frame(False, offset_ms, agent) if self._late > LATE_FRAMES else []

    def hint(self, text: str) -> None:
        """What the backend has understood of this turn up to now."""
        if self.open:
            self._look, self._voiced_since_look_ms = look(text), 0

    def talk(self, on: bool, *, offset_ms: int, agent: bool) -> list[Fact]:
        """The caller's button, in the mode `push_to_talk`; without effect in others, or where it is said twice."""
        if self.turns.mode != "push_to_talk" or on is self.open:
            return []
        if on:
            self._step(Input.VOICE)
            self._started_ms = offset_ms
            return [Started(offset_ms, agent)]
        self._step(Input.RELEASE)
        return [Stopped(offset_ms), Ended(self._started_ms, offset_ms, 0, "talk")]

    def void(self) -> None:
        """What has begun is no turn: nothing more is said of it."""
        self.phase = Phase.QUIET
        self._run.clear()
        self._look = Look.NOTHING
        self._ended_ms = None

    # ------------------------------------------------------------------------------------------------------ a frame

    def _frame(self, voiced: bool, offset_ms: int, agent: bool) -> list[Fact]:
        self._quiet_ms += FRAME_MS
        if self._ended_ms is not None:
            self._ended_ms = None if agent else self._ended_ms + FRAME_MS
        if self.phase is Phase.SPEAKING and voiced:
            self._spoken(FRAME_MS)
            return []
        self._run.add(voiced)
        if self._run.voiced * FRAME_MS >= self.turns.start_ms:
            return self._voice(offset_ms, agent)
        if self.phase is Phase.SPEAKING and self._quiet_ms > GAP_MS:
            self._step(Input.PAUSE)
        if self._run.frames:
            return []
        facts: list[Fact] = []
        if self.phase is Phase.PAUSING and self._quiet_ms >= STOP_MS:
            self._step(Input.STOP)
            facts.append(Stopped(self._voice_ended_ms(offset_ms)))
        if self.phase is Phase.STOPPED and self._quiet_ms >= self.hangover_ms:
            self._step(Input.END)
            facts.append(Ended(self._started_ms, self._voice_ended_ms(offset_ms), self._quiet_ms))
            self._look, self._ended_ms = Look.NOTHING, self._quiet_ms
        return facts

    def _voice(self, offset_ms: int, agent: bool) -> list[Fact]:
        """The run has become a voice."""
        run_ms = self._run.frames * FRAME_MS
        before = self.phase
        pause_ms = self._quiet_ms - run_ms
        if before in (Phase.PAUSING, Phase.STOPPED):
            self._pauses.add(pause_ms)
        elif self._ended_ms is not None and self._ended_ms - run_ms <= self.turns.end_ms_max:
            self._pauses.add(self._ended_ms - run_ms)
        self._ended_ms = None
        voiced_ms = self._run.voiced * FRAME_MS
        self._step(Input.VOICE)
        if before in (Phase.QUIET, Phase.STOPPED):
            self.voiced_ms = 0
        self._spoken(voiced_ms)
        if before is Phase.PAUSING:
            return []
        # what was on its way when the call was answered is longer than the call: nothing began before that
        began_ms = max(0, offset_ms - run_ms)
        if before is Phase.QUIET:
            self._started_ms = began_ms
        return [Started(began_ms, agent)]

    def _voice_ended_ms(self, offset_ms: int) -> int:
        return max(self._started_ms, offset_ms - self._quiet_ms)

    def _spoken(self, voiced_ms: int) -> None:
        self.voiced_ms += voiced_ms
        self._quiet_ms = 0
        self._run.clear()
        self._voiced_since_look_ms += voiced_ms
        if self._voiced_since_look_ms > STALE_VOICE_MS:
            self._look = Look.NOTHING

    def _held_for_too_long(self, offset_ms: int) -> list[Fact]:
        if self.open and offset_ms - self._started_ms > TALK_MS_MAX:
            return self.talk(False, offset_ms=offset_ms, agent=False)
        return []

    def _step(self, input_: Input) -> None:
        following = TABLE.get((self.phase, input_))
        if following is None:
            raise BadInput(f"{input_} in {self.phase}")
        self.phase = following
