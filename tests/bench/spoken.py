"""Speech for benchmarks: recorded where there is some, else synthesised; cut at its pauses, from its first sound to its last.

`VOXPLANE_SPEECH` names a folder of WAV files (16 bit, mono). Without it, ``../shared/data/speech`` beside the project is looked
for, and then espeak-ng of the example backend speaks.
"""

from __future__ import annotations

import audioop
import os
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RATE_HZ = 8_000
STEP_MS = 5
SHARE, LEVEL_MIN = 0.1, 200
"""Sound is what is louder than this share of the recording's loudest 5 ms, and than this."""
PAUSE_MS, WORD_MS_MIN = 120, 250
LINES = (
    "where is my order one five eight please", "no stop I have another question", "when will it arrive at the depot",
    "can you tell me that again slowly", "it was not the one that I had asked for", "thank you goodbye",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clip:
    """PCM16 at 8 kHz, from its first sound to its last."""

    pcm: bytes

    @property
    def ms(self) -> int:
        return len(self.pcm) * 1000 // (2 * RATE_HZ)


def clips() -> tuple[str, list[Clip]]:
    """What they are, and pieces of speech without a pause that matters."""
    named = os.environ.get("VOXPLANE_SPEECH", "")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "speech"
    files = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if files:
        return "recorded speech", [clip for file in files for clip in cut(read(file))]
    with tempfile.TemporaryDirectory() as temporary:
        spoken = [
            clip for i, line in enumerate(LINES) for clip in cut(say(line, Path(temporary) / f"{i}.wav"))
        ]
    return "synthesised speech", spoken


def read(file: Path) -> bytes:
    with wave.open(str(file)) as wav:
        if (wav.getnchannels(), wav.getsampwidth()) != (1, 2):
            raise RuntimeError(f"{file.name} is not 16 bit and mono")
        pcm = wav.readframes(wav.getnframes())
        pcm, _ = audioop.ratecv(pcm, 2, 1, wav.getframerate(), RATE_HZ, None)
    return pcm


def say(line: str, file: Path) -> bytes:
    program = ROOT / "docs" / "examples" / "order_status" / "synthesis.py"
    subprocess.run(
        [sys.executable, "-W", "ignore", str(program), line, str(file), "--rate", "16000"], check=True
    )
    return read(file)


def cut(pcm: bytes) -> list[Clip]:
    step = STEP_MS * RATE_HZ // 1000 * 2
    levels = [audioop.rms(pcm[i : i + step], 2) for i in range(0, len(pcm) - step + 1, step)]
    bound = max(LEVEL_MIN, max(levels) * SHARE)
    found: list[tuple[int, int]] = []
    for i, level in enumerate(levels):
        if level < bound:
            continue
        if found and (i - found[-1][1]) * STEP_MS <= PAUSE_MS:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return [Clip(pcm[a * step : b * step]) for a, b in found if (b - a) * STEP_MS >= WORD_MS_MIN]
