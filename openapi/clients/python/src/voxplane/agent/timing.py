"""How long each stage of a turn took, from marks that are set as things happen. Pure: times are parameters, in seconds.

The stages follow each other, so their sum is what the caller waited for the backend::

    voice ends ──stt──► final ──tool──► ──llm──► first text ──tts──► first audio ──pacing──► on its way to the edge
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stages:
    """In milliseconds; None where there was no such stage, or nobody could tell.

    `stt_ms`: from the end of the caller's voice, as the speech-to-text or else the edge says, to the final text. `tool_ms`: tools
    that ran before the first word. `llm_ms`: from the final text to the model's first, without the tools. `tts_ms`: from there to
    the first audio. `pacing_ms`: from there until it was written to the socket."""

    stt_ms: int | None = None
    tool_ms: int | None = None
    llm_ms: int | None = None
    tts_ms: int | None = None
    pacing_ms: int | None = None

    def data(self) -> dict[str, int]:
        named = {
            "stt_ms": self.stt_ms,
            "tool_ms": self.tool_ms,
            "llm_ms": self.llm_ms,
            "tts_ms": self.tts_ms,
            "pacing_ms": self.pacing_ms,
        }
        return {name: ms for name, ms in named.items() if ms is not None}


@dataclass(frozen=True, slots=True)
class TurnReport:
    """One turn of the agent. `turn`: how many turns the caller has had in the conversation that this backend knows; 0 for a
    greeting. `said`: what was given to be spoken, heard or not. `failed`: the stage that did, ``llm`` or ``tts``."""

    call: str
    turn: int
    stages: Stages
    said: str
    interrupted: bool
    failed: str | None = None


class Stopwatch:
    """Of one turn. Only the first mark of each kind counts."""

    def __init__(self, began_s: float, voice_ended_s: float | None = None) -> None:
        self._began_s = began_s
        self._voice_ended_s = voice_ended_s
        self._text_s: float | None = None
        self._audio_s: float | None = None
        self._sent_s: float | None = None
        self._tool_s = 0.0

    def tool(self, took_s: float) -> None:
        if self._text_s is None:
            self._tool_s += took_s

    def text(self, now_s: float) -> None:
        self._text_s = now_s if self._text_s is None else self._text_s

    def audio(self, now_s: float) -> None:
        self._audio_s = now_s if self._audio_s is None else self._audio_s

    def sent(self, now_s: float) -> None:
        self._sent_s = now_s if self._sent_s is None else self._sent_s

    @property
    def stages(self) -> Stages:
        return Stages(
            stt_ms=_ms(self._voice_ended_s, self._began_s),
            tool_ms=round(self._tool_s * 1000) if self._tool_s else None,
            llm_ms=_ms(self._began_s + self._tool_s, self._text_s),
            tts_ms=_ms(self._text_s, self._audio_s),
            pacing_ms=_ms(self._audio_s, self._sent_s),
        )


def _ms(since_s: float | None, until_s: float | None) -> int | None:
    if since_s is None or until_s is None:
        return None
    return max(0, round((until_s - since_s) * 1000))
