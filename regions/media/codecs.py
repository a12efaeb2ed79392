"""Audio as it runs inside one call (`Format`), and between that and what the caller speaks (PCM16 or mu-law, ITU-T G.711).

A call runs in the format of its backend's dialect: mu-law at 8 kHz for telephone dialects, so that a frame costs no conversion
on that side, PCM16 at up to 48 kHz for those that can hear more.
"""

from __future__ import annotations

import audioop
from dataclasses import dataclass
from functools import cached_property

RATE_HZ = 8_000
"""At which voices are looked for."""
FRAME_MS = 20


@dataclass(frozen=True)
class Format:
    """Mono. `encoding`: ``mulaw``, or ``pcm16`` (16 bit, little-endian)."""

    encoding: str = "mulaw"
    rate_hz: int = RATE_HZ

    @cached_property
    def sample_bytes(self) -> int:
        return 1 if self.encoding == "mulaw" else 2

    @cached_property
    def bytes_per_ms(self) -> int:
        return self.rate_hz // 1_000 * self.sample_bytes

    @cached_property
    def frame_bytes(self) -> int:
        """Of 20 ms."""
        return self.bytes_per_ms * FRAME_MS

    @cached_property
    def silent_byte(self) -> bytes:
        return b"\xff" if self.encoding == "mulaw" else b"\0"

    @cached_property
    def silence(self) -> bytes:
        """20 ms."""
        return self.silent_byte * self.frame_bytes


ULAW_8K = Format()
FRAME_SAMPLES = ULAW_8K.frame_bytes
SILENCE = ULAW_8K.silence


class Converter:
    """From one format to another. The resampler keeps its state between frames, so that no click marks their edges; PCM that
    ends within a sample is completed by what comes next."""

    __slots__ = ("_from", "_rest", "_same", "_state", "_to")

    def __init__(self, from_: Format, to: Format) -> None:
        self._from, self._to = from_, to
        self._same = from_ == to
        self._state: object = None
        self._rest = b""

    def __call__(self, samples: bytes) -> bytes:
        source, target = self._from, self._to
        if source.sample_bytes == 2:
            samples = self._whole(samples)
        if self._same:
            return samples
        pcm = audioop.ulaw2lin(samples, 2) if source.sample_bytes == 1 else samples
        if source.rate_hz != target.rate_hz:
            pcm, self._state = audioop.ratecv(pcm, 2, 1, source.rate_hz, target.rate_hz, self._state)  # type: ignore[arg-type]
        return audioop.lin2ulaw(pcm, 2) if target.sample_bytes == 1 else pcm

    def _whole(self, samples: bytes) -> bytes:
        pcm = self._rest + samples if self._rest else samples
        if len(pcm) % 2:
            self._rest = pcm[-1:]
            return pcm[:-1]
        self._rest = b""
        return pcm


class Transcoder:
    """A caller's two directions. `inner`: the format that its call runs in."""

    __slots__ = ("fill", "to_agent", "to_caller")

    def __init__(self, encoding: str, sample_rate_hz: int, inner: Format = ULAW_8K) -> None:
        caller = Format(encoding, sample_rate_hz)
        self.to_agent = Converter(caller, inner)
        self.to_caller = Converter(inner, caller)
        self.fill = Converter(ULAW_8K, caller)
        """Of sounds that are the edge's own."""


class Ear:
    """What the voice detector listens to: PCM16 at 8 kHz, of a call that runs in `inner`."""

    __slots__ = ("_convert",)

    def __init__(self, inner: Format = ULAW_8K) -> None:
        self._convert = Converter(inner, Format("pcm16", RATE_HZ))

    def __call__(self, frame: bytes) -> bytes:
        """20 ms of 160 samples. A resampler's first frame is one short: that one is repeated."""
        pcm = self._convert(frame)
        missing = FRAME_SAMPLES * 2 - len(pcm)
        return pcm if missing <= 0 else pcm + pcm[-2:] * (missing // 2)
