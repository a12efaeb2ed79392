"""Speech from text, offline: espeak-ng from a wheel, through ctypes. Gives audio and the place of every word in it.

espeak-ng is one per process and not thread-safe: one lock. As a program it writes a WAV file:

    python synthesis.py "where is my order" out.wav --voice en-gb --rate 16000
"""

from __future__ import annotations

import argparse
import ctypes
import threading
import warnings
import wave
from dataclasses import dataclass, field

import espeakng_loader

with warnings.catch_warnings():
    # from Python 3.13 on it comes from a package of its own, `audioop-lts`
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SYNCHRONOUS = 2
CHARS_UTF8 = 1
POS_CHARACTER = 1
PARAMETER_RATE, PARAMETER_GAP = 1, 7
EVENT_LIST_TERMINATED, EVENT_WORD = 0, 1
WORDS_PER_MINUTE = 165


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(slots=True)
class Speech:
    """`pcm`: PCM16 mono at `rate_hz`. `words`: (word, offset in ms)."""

    pcm: bytes
    rate_hz: int
    words: list[tuple[str, int]] = field(default_factory=list)


class Synthesizer:
    """Loads the library once; `speak` may be called from any thread."""

    _lock = threading.Lock()

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        data = str(espeakng_loader.get_data_path()).encode()
        self._rate_hz = self._library.espeak_Initialize(SYNCHRONOUS, 200, data, 0)
        if self._rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start: its data folder is missing")
        self._audio = bytearray()
        self._events: list[tuple[int, int, int]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count, events) -> int:
        if samples and count > 0:
            self._audio += ctypes.string_at(samples, count * 2)
        i = 0
        while events and events[i].type != EVENT_LIST_TERMINATED:
            if events[i].type == EVENT_WORD:
                self._events.append((events[i].text_position, events[i].length, events[i].audio_position))
            i += 1
        return 0

    def speak(
        self,
        text: str,
        *,
        voice: str = "en-us",
        rate_hz: int = 8000,
        words_per_minute: int = WORDS_PER_MINUTE,
    ) -> Speech:
        with self._lock:
            self._audio, self._events = bytearray(), []
            self._library.espeak_SetVoiceByName(voice.encode())
            self._library.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0)
            encoded = text.encode() + b"\0"
            self._library.espeak_Synth(encoded, len(encoded), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
            pcm, events = bytes(self._audio), self._events
        resampled, _ = audioop.ratecv(pcm, 2, 1, self._rate_hz, rate_hz, None)
        words = [(text[at - 1 : at - 1 + length], offset_ms) for at, length, offset_ms in events]
        return Speech(resampled, rate_hz, words)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write speech to a WAV file.")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--voice", default="en-us")
    parser.add_argument("--rate", type=int, default=16000)
    given = parser.parse_args()
    speech = Synthesizer().speak(given.text, voice=given.voice, rate_hz=given.rate)
    with wave.open(given.out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(given.rate)
        file.writeframes(speech.pcm)


if __name__ == "__main__":
    main()
