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
_noise = random.Random(7)
COMFORT_NOISE = b"".join(_noise.randint(-12, 12).to_bytes(2, "little", signed=True) for _ in range(320))


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
    """Feed it mu-law at 8 kHz in any pieces; it answers with what happened."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._vad = webrtcvad.Vad(2)
        self._rest = b""
        self._resampling: object = None
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL_FRAMES)
        self._voiced = self._quiet = 0
        self._partial = ""
        self.speaking = False

    def feed(self, ulaw: bytes) -> list[Started | Partial | Final]:
        happened: list[Started | Partial | Final] = []
        data = self._rest + ulaw
        whole = len(data) // FRAME_BYTES * FRAME_BYTES
        self._rest = data[whole:]
        for i in range(0, whole, FRAME_BYTES):
            happened += self._frame(audioop.ulaw2lin(data[i : i + FRAME_BYTES], 2))
        return happened

    def close(self) -> None:
        if self.speaking:
            self.speaking = False
            self._decoder.end_utt()

    def _frame(self, pcm: bytes) -> list[Started | Partial | Final]:
        loud = audioop.rms(pcm, 2) >= FLOOR_RMS and self._vad.is_speech(pcm, 8000)
        self._voiced = self._voiced + 1 if loud else 0
        self._quiet = 0 if loud else self._quiet + 1
        wide, self._resampling = audioop.ratecv(pcm, 2, 1, 8000, 16000, self._resampling)
        wide = audioop.add(wide, COMFORT_NOISE[: len(wide)].ljust(len(wide), b"\0"), 2)
        if not self.speaking:
            self._before.append(wide)
            if self._voiced < START_FRAMES:
                return []
            self.speaking = True
            self._partial = ""
            self._decoder.start_utt()
            for earlier in self._before:
                self._decoder.process_raw(earlier, False, False)
            self._before.clear()
            return [Started()]
        self._decoder.process_raw(wide, False, False)
        if self._quiet < END_FRAMES:
            text = self._text()
            if text and text != self._partial:
                self._partial = text
                return [Partial(text)]
            return []
        self.speaking = False
        self._decoder.end_utt()
        return [Final(self._text())]

    def _text(self) -> str:
        found = self._decoder.hyp()
        return found.hypstr.strip() if found is not None else ""
