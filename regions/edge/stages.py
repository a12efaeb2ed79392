"""How long the caller waited for an answer, and where the time went: one turn's stages. Pure; times in milliseconds of one clock.

The stages, in their order; together they are the time from the caller's last sound to the first sound of the answer in its ear:

| stage | from → to | known by |
|---|---|---|
| ``capture`` | the sound → the caller's frame of it is complete | 20, a frame |
| ``uplink`` | the frame is sent → it is here | half of the caller's round trip |
| ``jitter`` | it is here → it is heard | what waited in the caller's buffer |
| ``end_of_turn`` | the last voice is heard → the turn is taken to be over | measured |
| ``stt``, ``llm``, ``tts`` | within the backend | what the backend reports (`turn.timing`) |
| ``backend`` | the turn is over → the first audio of the answer is here, less what is reported | measured |
| ``pacing`` | the first audio is here → it is sent | measured |
| ``downlink`` | it is sent → it is played | half of the round trip |

The budget is the customer's: `total_ms`, and one for each stage that has one. An answer that took longer says which were exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CAPTURE_MS = 20
REPORTED = ("stt", "llm", "tts")
STAGES = ("capture", "uplink", "jitter", "end_of_turn", *REPORTED, "backend", "pacing", "downlink")
REPORTED_MS_MAX = 60_000


@dataclass(frozen=True, slots=True)
class Answered:
    """`exceeded`: stages over their budget, and ``total``."""

    stages: dict[str, int]
    total_ms: int
    exceeded: list[str] = field(default_factory=list)


class TurnStages:
    """One call's. Of each caller's turn the first answer counts; one that is interrupted before a sound is none."""

    __slots__ = ("_audio_ms", "_budget", "_jitter_ms", "_over_ms", "_reported", "_voice_ms")

    def __init__(self, budget: Mapping[str, float] | None = None) -> None:
        """`budget`: by stage, and ``total``."""
        self._budget = {name: ms for name, ms in (budget or {}).items() if ms > 0}
        self._forget()

    def _forget(self) -> None:
        self._voice_ms: int | None = None
        self._over_ms: int | None = None
        self._audio_ms: int | None = None
        self._jitter_ms = 0
        self._reported: dict[str, int] = {}

    def begun(self) -> None:
        """The caller speaks: what has come of an answer to what it said before is none any more."""
        self._forget()

    def voice(self, now_ms: int, waited_ms: int) -> None:
        """The newest of the caller's voice. `waited_ms`: for how long its audio lies in the caller's buffer."""
        self._forget()
        self._voice_ms, self._jitter_ms = now_ms, waited_ms

    def turn_over(self, now_ms: int) -> None:
        """It is taken to have finished."""
        if self._voice_ms is not None and self._over_ms is None:
            self._over_ms = now_ms

    def reported(self, stages: Mapping[str, float]) -> None:
        """What the backend says of its own stages in this turn."""
        for name in REPORTED:
            ms = stages.get(name, -1.0)
            if 0 <= ms <= REPORTED_MS_MAX:
                self._reported[name] = round(ms)

    def audio(self, now_ms: int) -> None:
        """Audio of the backend's has come."""
        if self._voice_ms is not None and self._audio_ms is None:
            self._audio_ms = now_ms

    def played(self, now_ms: int, rtt_ms: float) -> Answered | None:
        """The first frame of an utterance goes to the caller. None where it answers nothing."""
        voice_ms, audio_ms = self._voice_ms, self._audio_ms
        if voice_ms is None or audio_ms is None:
            return None
        # an answer that came before the turn was found to be over has cost no such time
        over_ms = min(self._over_ms if self._over_ms is not None else audio_ms, audio_ms)
        within = audio_ms - over_ms
        stages = {
            "capture": CAPTURE_MS,
            "uplink": round(rtt_ms / 2),
            "jitter": self._jitter_ms,
            "end_of_turn": over_ms - voice_ms,
        }
        left = within
        for name, ms in self._reported.items():
            stages[name] = min(ms, left)
            left -= stages[name]
        stages |= {"backend": left, "pacing": now_ms - audio_ms, "downlink": round(rtt_ms / 2)}
        self._forget()
        total_ms = sum(stages.values())
        known = stages | {"total": total_ms}
        exceeded = [name for name, ms in self._budget.items() if known.get(name, 0) > ms]
        return Answered(stages, total_ms, exceeded)
