"""Whether 20 ms of the caller's are a voice: the port, and WebRTC's detector behind it. No I/O.

What speaks for how long, and what follows from it, is decided in `turns`.
"""

from __future__ import annotations

import audioop
from typing import Protocol

import webrtcvad

from regions.media.codecs import RATE_HZ
from regions.media.level import BOUND_MIN
from regions.media.turns import Sound

AGGRESSIVENESS = 2
"""Of 0 to 3. At 3 it takes up to 60 ms longer to hear that a voice has begun, and Silero is there for what is none."""
PROBABILITY = 0.7
"""What its word counts for."""


class VoiceDetector(Protocol):
    """One call's. `feed` takes the frames of its audio in order, each once, 20 ms of PCM16 at 8 kHz, and answers at once; what it
    knows may be some milliseconds old. `close`: nothing is fed any more; may be said twice."""

    def feed(self, pcm: bytes) -> Sound: ...
    def close(self) -> None: ...


class VoiceGate:
    """WebRTC's detector, behind an energy floor. It says yes or no, and is never quite sure."""

    __slots__ = ("_vad",)

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(AGGRESSIVENESS)

    def feed(self, pcm: bytes) -> Sound:
        rms = audioop.rms(pcm, 2)
        voice = rms >= BOUND_MIN and self._vad.is_speech(pcm, RATE_HZ)
        return Sound(voice, PROBABILITY if voice else 0.0, rms)

    def close(self) -> None:
        return
