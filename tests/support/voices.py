"""A voice that is nobody's: a vowel in syllables, and a room's noise between. For whatever must be taken for speech, or must not."""

from __future__ import annotations

import array
import audioop
import math
import random

PITCH_HZ, TOP_HZ = 130, 3_300
NOISE = 40


def vowel(ms: int, rate_hz: int = 8_000, *, loudness: float = 1_500.0) -> bytes:
    """PCM16, at full strength from its first sample on; WebRTC's detector and Silero's both take it for a voice."""
    partials = [
        (f, 1 / (1 + abs(f - 500) / 200) + 0.5 / (1 + abs(f - 1_500) / 300))
        for f in range(PITCH_HZ, min(TOP_HZ, rate_hz // 2), PITCH_HZ)
    ]
    samples = array.array("h")
    for i in range(ms * rate_hz // 1000):
        turn = 2 * math.pi * i / rate_hz
        swell = loudness * (0.7 + 0.3 * math.cos(3 * turn))
        samples.append(round(swell * sum(weight * math.sin(f * turn) for f, weight in partials)))
    return samples.tobytes()


def room(ms: int, rate_hz: int = 8_000, *, seed: int = 7) -> bytes:
    """PCM16: quiet."""
    draw = random.Random(seed)
    return array.array("h", (draw.randint(-NOISE, NOISE) for _ in range(ms * rate_hz // 1000))).tobytes()


def mulaw_frames(pcm: bytes) -> list[bytes]:
    """Twenty milliseconds each, of PCM16 at 8 kHz; the last one whole."""
    ulaw = audioop.lin2ulaw(pcm, 2)
    return [ulaw[i : i + 160].ljust(160, b"\xff") for i in range(0, len(ulaw), 160)]
