"""Between what the caller speaks (PCM16 or mu-law at its rate) and what runs inside (mu-law, 8 kHz, ITU-T G.711)."""

from __future__ import annotations

import audioop

RATE_HZ = 8_000
FRAME_SAMPLES = 160
FRAME_MS = 20
SILENCE = b"\xff" * FRAME_SAMPLES


class Transcoder:
    """One call's two directions; resampling keeps its state between frames, so that no click marks their edges."""

    __slots__ = ("_down", "_rate_hz", "_rest", "_ulaw", "_up")

    def __init__(self, encoding: str, sample_rate_hz: int) -> None:
        self._ulaw = encoding == "mulaw"
        self._rate_hz = sample_rate_hz
        self._down: object = None
        self._up: object = None
        self._rest = b""

    def to_agent(self, samples: bytes) -> bytes:
        """The caller's samples as mu-law at 8 kHz. A PCM frame that ends within a sample is completed by the next one."""
        if self._ulaw and self._rate_hz == RATE_HZ:
            return samples
        if self._ulaw:
            pcm = audioop.ulaw2lin(samples, 2)
        else:
            pcm = self._rest + samples
            if len(pcm) % 2:
                pcm, self._rest = pcm[:-1], pcm[-1:]
            else:
                self._rest = b""
        if self._rate_hz != RATE_HZ:
            pcm, self._down = audioop.ratecv(pcm, 2, 1, self._rate_hz, RATE_HZ, self._down)  # type: ignore[arg-type]
        return audioop.lin2ulaw(pcm, 2)

    def to_caller(self, ulaw: bytes) -> bytes:
        if self._ulaw and self._rate_hz == RATE_HZ:
            return ulaw
        pcm = audioop.ulaw2lin(ulaw, 2)
        if self._rate_hz != RATE_HZ:
            pcm, self._up = audioop.ratecv(pcm, 2, 1, RATE_HZ, self._rate_hz, self._up)  # type: ignore[arg-type]
        return audioop.lin2ulaw(pcm, 2) if self._ulaw else pcm


def to_pcm(ulaw: bytes) -> bytes:
    return audioop.ulaw2lin(ulaw, 2)
