"""Text from speech, offline and as it comes: a voice detector for where a turn begins and ends, pocketsphinx with a grammar
for what was said. One `Recognizer` per call; decoders are made ready ahead and used again."""

from __future__ import annotations

import audioop
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import webrtcvad
from pocketsphinx import Decoder

GRAMMAR = Path(__file__).with_name("grammar.jsgf")
FRAME_BYTES = 160
FLOOR_RMS = 220
START_FRAMES = 3
END_FRAMES = 16
PRE_ROLL_FRAMES = 15
NOISE_PEAK, DEAD_NOISE_PEAK = 12, 160
"""A line without any noise of its own, such as one that carries what a computer speaks, is understood badly: it gets some. Much of
it would drown the short first words of a person."""
DEAD_RMS = 4
LEAD_FRAMES = 3
"""So many before the first voice tell what the line is like; where there are not as many, the voice began with
the call: what a computer speaks does, a person does not."""
LEVELS = "40,3,-1,0,0,0,0,0,0,0,0,0,0"
"""The means that a decoder begins with. One that is used again has those of the caller before, and understands the next by them."""
_random = random.Random(7)


def _noise(peak: int) -> bytes:
    return b"".join(_random.randint(-peak, peak).to_bytes(2, "little", signed=True) for _ in range(320))


COMFORT_NOISE, DEAD_LINE_NOISE = _noise(NOISE_PEAK), _noise(DEAD_NOISE_PEAK)


@dataclass(frozen=True, slots=True)
class Started:
    """The caller has begun to speak."""


@dataclass(frozen=True, slots=True)
class Partial:
    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The turn is over; `text` is empty where nothing of the grammar was heard."""

    text: str


def make_decoder() -> Decoder:
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False, samprate=16000)
    decoder.add_jsgf_file("orders", str(GRAMMAR))
    decoder.activate_search("orders")
    return decoder


class Recognizer:
    """Feed it mu-law at 8 kHz in any pieces, or let it `hear` PCM16 at `rate_hz` (8000 or 16000), 20 ms at a time. It answers with
    what happened."""

    def __init__(self, decoder: Decoder, rate_hz: int = 8_000) -> None:
        decoder.set_cmn(LEVELS)
        self._decoder = decoder
        self._rate_hz = rate_hz
        self._vad = webrtcvad.Vad(2)
        self._rest = b""
        self._resampling: object = None
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL_FRAMES)
        self._noise = COMFORT_NOISE
        self._voiced = self._quiet = 0
        self._partial = ""
        self.speaking = False

    def feed(self, ulaw: bytes) -> list[Started | Partial | Final]:
        happened: list[Started | Partial | Final] = []
        data = self._rest + ulaw
        whole = len(data) // FRAME_BYTES * FRAME_BYTES
        self._rest = data[whole:]
        for i in range(0, whole, FRAME_BYTES):
            happened += self.hear(audioop.ulaw2lin(data[i : i + FRAME_BYTES], 2))
        return happened

    def end(self) -> list[Started | Partial | Final]:
        """Somebody else knows that the turn is over."""
        if not self.speaking:
            return []
        self.speaking = False
        self._decoder.end_utt()
        return [Final(self._text())]

    def close(self) -> None:
        if self.speaking:
            self.speaking = False
            self._decoder.end_utt()

    def hear(self, pcm: bytes) -> list[Started | Partial | Final]:
        loud = audioop.rms(pcm, 2) >= FLOOR_RMS and self._vad.is_speech(pcm, self._rate_hz)
        self._voiced = self._voiced + 1 if loud else 0
        self._quiet = 0 if loud else self._quiet + 1
        wide = pcm
        if self._rate_hz == 8_000:
            wide, self._resampling = audioop.ratecv(pcm, 2, 1, 8_000, 16_000, self._resampling)
        if not self.speaking:
            self._before.append(wide)
            if self._voiced < START_FRAMES:
                return []
            self.speaking = True
            self._partial = ""
            lead = list(self._before)[-START_FRAMES - LEAD_FRAMES : -START_FRAMES]
            dead = len(lead) < LEAD_FRAMES or any(audioop.rms(frame, 2) < DEAD_RMS for frame in lead)
            self._noise = DEAD_LINE_NOISE if dead else COMFORT_NOISE
            self._decoder.start_utt()
            for earlier in self._before:
                self._listen(earlier)
            self._before.clear()
            return [Started()]
        self._listen(wide)
        if self._quiet < END_FRAMES:
            text = self._text()
            if text and text != self._partial:
                self._partial = text
                return [Partial(text)]
            return []
        return self.end()

    def _listen(self, wide: bytes) -> None:
        noise = self._noise[: len(wide)].ljust(len(wide), b"\0")
        self._decoder.process_raw(audioop.add(wide, noise, 2), False, False)

    def _text(self) -> str:
        found = self._decoder.hyp()
        return found.hypstr.strip() if found is not None else ""
