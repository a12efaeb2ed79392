"""Hears when the caller starts and stops to speak: WebRTC's detector behind an energy floor, with a short memory. No I/O."""

from __future__ import annotations

import audioop

import webrtcvad

from regions.media.codecs import FRAME_MS, RATE_HZ

FLOOR_RMS = 220
AGGRESSIVENESS = 3


class VoiceGate:
    """`feed` one 20 ms frame of PCM16 at 8 kHz; it answers ``started`` after `start_ms` of voice, ``stopped`` after
    `stop_ms` without. A frame counts as voice when both the energy and the detector say so."""

    __slots__ = ("_quiet", "_start", "_stop", "_vad", "_voiced", "speaking")

    def __init__(self, *, start_ms: int = 60, stop_ms: int = 300) -> None:
        self._vad = webrtcvad.Vad(AGGRESSIVENESS)
        self._start = max(1, start_ms // FRAME_MS)
        self._stop = max(1, stop_ms // FRAME_MS)
        self._voiced = 0
        self._quiet = 0
        self.speaking = False

    def feed(self, pcm: bytes) -> str | None:
        if audioop.rms(pcm, 2) >= FLOOR_RMS and self._vad.is_speech(pcm, RATE_HZ):
            self._voiced += 1
            self._quiet = 0
        else:
            self._quiet += 1
            if self._quiet > 1:
                self._voiced = 0
        if not self.speaking and self._voiced >= self._start:
            self.speaking = True
            return "started"
        if self.speaking and self._quiet >= self._stop:
            self.speaking = False
            return "stopped"
        return None
