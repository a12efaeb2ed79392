"""Sound between what the parts work with and what the edge speaks: mu-law (G.711), and other sample rates. Pure, without numpy.

PCM16, little-endian, mono throughout. A filter of windowed sinc, so that what a lower rate cannot carry is left out and does not
come back as noise; about two hundredths of a core for one call and direction.
"""

from __future__ import annotations

import array
import math
import sys
from functools import lru_cache
from operator import mul

FRAME_MS = 20
RATE_HZ_MAX = 192_000
LOBES = 8
"""Of the sinc, on each side."""
ROLL_OFF = 0.92
BIAS, CLIP = 0x84, 32_635


def _decoded(code: int) -> int:
    code = ~code & 0xFF
    value = (((code & 0x0F) << 3) + BIAS << (code >> 4 & 0x07)) - BIAS
    return -value if code & 0x80 else value


def _encoded(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    value = min(abs(sample), CLIP) + BIAS
    exponent = value.bit_length() - 8
    return ~(sign | exponent << 4 | value >> exponent + 3 & 0x0F) & 0xFF


_LOW = bytes(_decoded(code) & 0xFF for code in range(256))
_HIGH = bytes(_decoded(code) >> 8 & 0xFF for code in range(256))
_ULAW = bytes(_encoded(word - 0x10000 if word >= 0x8000 else word) for word in range(0x10000))


def from_ulaw(ulaw: bytes) -> bytes:
    pcm = bytearray(2 * len(ulaw))
    pcm[0::2] = ulaw.translate(_LOW)
    pcm[1::2] = ulaw.translate(_HIGH)
    return bytes(pcm)


def to_ulaw(pcm: bytes) -> bytes:
    """Of whole samples."""
    return bytes(map(_ULAW.__getitem__, _words(pcm, "H")))


def length_ms(pcm_bytes: int, rate_hz: int) -> int:
    return pcm_bytes * 1000 // (2 * rate_hz)


class Resampler:
    """One stream from one rate to another, of pieces of any length, odd ones too. `feed` gives what can be said by now, `flush`
    the rest. Raises `ValueError` for a rate that is none."""

    __slots__ = ("_bank", "_half", "_odd", "_phase", "_samples", "_step_in", "_step_out", "same")

    def __init__(self, from_hz: int, to_hz: int) -> None:
        if not (0 < from_hz <= RATE_HZ_MAX and 0 < to_hz <= RATE_HZ_MAX):
            raise ValueError(f"no sample rate: {from_hz} to {to_hz} Hz")
        common = math.gcd(from_hz, to_hz)
        self.same = from_hz == to_hz
        self._step_in, self._step_out = from_hz // common, to_hz // common
        self._bank, self._half = _filters(self._step_in, self._step_out)
        self._samples: list[int] = [0] * (self._half - 1)
        self._phase = 0
        self._odd = b""

    def feed(self, pcm: bytes) -> bytes:
        data = self._odd + pcm
        whole = len(data) & ~1
        self._odd = data[whole:]
        if self.same:
            return data[:whole]
        self._samples += _words(data[:whole], "h")
        return self._made()

    def flush(self) -> bytes:
        """The end of the stream; it may begin again afterwards."""
        self._odd = b""
        if self.same:
            return b""
        self._samples += [0] * self._half
        last = self._made()
        self._samples, self._phase = [0] * (self._half - 1), 0
        return last

    def _made(self) -> bytes:
        samples, bank, width = self._samples, self._bank, 2 * self._half
        step_in, step_out, phase = self._step_in, self._step_out, self._phase
        at, out = 0, array.array("h")
        while at + width <= len(samples):
            value = sum(map(mul, bank[phase], samples[at : at + width]))
            out.append(max(-32_768, min(32_767, round(value))))
            phase += step_in
            at += phase // step_out
            phase %= step_out
        self._phase = phase
        del samples[:at]
        return _bytes(out)


@lru_cache(maxsize=32)
def _filters(step_in: int, step_out: int) -> tuple[list[list[float]], int]:
    """One filter for each place between two samples where one is wanted, and half of its length."""
    cut = ROLL_OFF * min(1.0, step_out / step_in)
    half = math.ceil(LOBES / min(1.0, step_out / step_in))
    bank = []
    for phase in range(step_out):
        taps = []
        for i in range(2 * half):
            x = i - (half - 1) - phase / step_out
            window = 0.5 + 0.5 * math.cos(math.pi * x / half) if abs(x) < half else 0.0
            taps.append(window * (cut if x == 0 else math.sin(math.pi * cut * x) / (math.pi * x)))
        gain = sum(taps)
        bank.append([tap / gain for tap in taps])
    return bank, half


def _words(pcm: bytes, kind: str) -> array.array[int]:
    words = array.array(kind, pcm)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _bytes(words: array.array[int]) -> bytes:
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()
