"""How long a caller waits for an answer, and whether it was understood: human speech, in real time, against the offline backend.

The backend is the example's ear and voice (pocketsphinx with a grammar of the sentences, espeak-ng), in a process of its own; instead
of the order dialogue it says back what it has heard. The caller is the client library's. *Voice to voice* is from the last sound that
was sent to the first that was heard. The words are the log's: what the call's conversation has as the caller's.

Run as a program, ``python -m tests.bench.media_words <grammar>``, it is the backend.
"""

from __future__ import annotations

import asyncio
import audioop
import json
import os
import re
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.bench.report import Figure
from tests.bench.spoken import LINES, ROOT, say
from tests.bench.support import deployed, generator, quantile
from voxplane import AsyncCaller, AsyncClient
from voxplane.agent import AgentServer, Entry, Pipeline, Said, Tool, ToolCall

RATE_HZ, FRAME_BYTES, FRAME_S = 16_000, 640, 0.02
LOUD = 300
QUIET_S, ANSWER_WITHIN_S = 0.6, 15.0
CALLERS = 2
T = TypeVar("T")
_LINE = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((.+)\)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """PCM16 at 16 kHz. `sound_frames`: up to its last sound."""

    text: str
    pcm: bytes
    sound_frames: int


async def measure() -> list[Figure]:
    what, sentences = spoken()
    with tempfile.TemporaryDirectory() as folder:
        grammar = Path(folder) / "listed.jsgf"
        grammar.write_text(grammar_of([s.text for s in sentences]))
        async with (
            deployed(regions=1) as deployment,
            generator("tests.bench.media_words", str(grammar)) as backend,
        ):
            url = (await backend.answer())["listening"]
            _, key = await deployment.create_project("bench")
            async with AsyncClient(deployment.api_urls, key) as client:
                talks = [_talk(client, url, sentences, i) for i in range(CALLERS)]
                found = await asyncio.gather(*talks)
    waits = [ms for _, ms_of in found for ms in ms_of]
    understood = [list(said) for said, _ in found]
    wanted = [s.text for s in sentences]
    exact = sum(_rotated(wanted, i) == said for i, said in enumerate(understood))
    words_wrong = sum(
        a != b for i, said in enumerate(understood) for a, b in zip(_rotated(wanted, i), said, strict=False)
    )
    print("  voice to voice, ms: " + " ".join(f"{ms:.0f}" for ms in sorted(waits)), flush=True)
    how = f"{what}, {len(waits)} answers; p95 {quantile(waits, 0.95):.0f}"
    how += (
        "; every word right"
        if exact == CALLERS
        else f"; {words_wrong} SENTENCES NOT UNDERSTOOD: {understood}"
    )
    return [
        Figure(family="media", name="media.voice_to_voice_p50_ms", value=quantile(waits, 0.5), unit="ms", how=how,
               target=600.0, at_most=True),
    ]  # fmt: skip


async def _talk(
    client: AsyncClient, url: str, sentences: list[Sentence], first: int
) -> tuple[list[str], list[float]]:
    """What was understood, and how long each answer was waited for."""
    call = await client.create_call({"url": url, "dialect": "native"})
    waits: list[float] = []
    async with AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller:
        line = _Line(caller)
        async with line:
            waits += [await line.ask(sentence) for sentence in _rotated(sentences, first)]
            await caller.hangup()
    async with asyncio.timeout(ANSWER_WITHIN_S):
        while True:
            turns = (await client.conversation(call["id"]))["turns"]
            if (await client.get_call(call["id"]))["state"] == "completed":
                break
            await asyncio.sleep(0.1)
    return _turns_of(turns, len(sentences)), waits


def _turns_of(turns: list[dict[str, str]], count: int) -> list[str]:
    """By sentence: a turn that was cut at a pause is put together, for each is answered once all of it is said."""
    said = [t["text"] for t in turns if t["role"] == "caller" and t["text"]]
    return said if len(said) == count else [" ".join(said)]


class _Line:
    """Sends without a pause, silence where nothing is to be said, and notes when the agent is heard."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller
        self._queue: list[bytes] = []
        self._sent_s = 0.0
        self._heard_s: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Line:
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._hear())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ask(self, sentence: Sentence) -> float:
        """Milliseconds from its last sound to the first of the answer; returns when that is over."""
        before = len(self._heard_s)
        frames = [sentence.pcm[i : i + FRAME_BYTES] for i in range(0, len(sentence.pcm), FRAME_BYTES)]
        self._queue = [f.ljust(FRAME_BYTES, b"\0") for f in frames[: sentence.sound_frames]]
        async with asyncio.timeout(len(frames) * FRAME_S + ANSWER_WITHIN_S):
            while self._queue:
                await asyncio.sleep(FRAME_S / 4)
            last_s = self._sent_s
            while len(self._heard_s) == before or self._heard_s[-1] < last_s:
                await asyncio.sleep(FRAME_S / 4)
            first_s = next(s for s in self._heard_s[before:] if s >= last_s)
            while time.monotonic() - self._heard_s[-1] < QUIET_S:
                await asyncio.sleep(FRAME_S)
        return (first_s - last_s) * 1000

    async def _send(self) -> None:
        due_s = time.monotonic()
        while True:
            frame = self._queue.pop(0) if self._queue else b"\0" * FRAME_BYTES
            await self._caller.send(frame)
            self._sent_s = time.monotonic()
            due_s += FRAME_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _hear(self) -> None:
        async for frame in self._caller.frames():
            if audioop.rms(frame.samples[: len(frame.samples) // 2 * 2], 2) > LOUD:
                self._heard_s.append(time.monotonic())


def spoken() -> tuple[str, list[Sentence]]:
    """Recordings with their words, where there are some; else the bench's own lines, synthesised."""
    named = os.environ.get("VOXPLANE_SPEECH", "")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "speech"
    texts = {
        m[2]: m[1].lower()
        for file in (sorted(folder.glob("*transcription")) if folder.is_dir() else [])
        for m in _LINE.finditer(file.read_text())
    }
    found = [
        _sentence(texts[file.stem], _read(file))
        for file in sorted(folder.glob("*.wav"))
        if file.stem in texts
    ]
    if found:
        return "recorded human speech", found
    with tempfile.TemporaryDirectory() as temporary:
        made = []
        for i, line in enumerate(LINES):
            file = Path(temporary) / f"{i}.wav"
            say(line, file)
            made.append(_sentence(line.lower(), _read(file)))
    return "synthesised speech", made


def _sentence(text: str, pcm: bytes) -> Sentence:
    """Set to a level that a microphone has; recordings are of any."""
    peak = audioop.max(pcm, 2)
    pcm = audioop.mul(pcm, 2, min(8.0, 16_000 / peak)) if peak else pcm
    levels = [
        audioop.rms(pcm[i : i + FRAME_BYTES], 2) for i in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)
    ]
    bound = max(LOUD, max(levels) * 0.1)
    return Sentence(text, pcm, max(i for i, level in enumerate(levels) if level >= bound) + 1)


def _read(file: Path) -> bytes:
    with wave.open(str(file)) as wav:
        pcm = wav.readframes(wav.getnframes())
        return audioop.ratecv(pcm, 2, 1, wav.getframerate(), RATE_HZ, None)[0]


def grammar_of(texts: Sequence[str]) -> str:
    return "#JSGF V1.0;\ngrammar listed;\npublic <said> = " + " | ".join(dict.fromkeys(texts)) + ";\n"


def _rotated(values: Sequence[T], first: int) -> list[T]:
    at = first * len(values) // CALLERS
    return [*values[at:], *values[:at]]


class _SaysItBack:
    """A `LanguageModel`."""

    async def answer(
        self, conversation: Sequence[Entry], tools: Sequence[Tool]
    ) -> AsyncIterator[str | ToolCall]:
        newest = conversation[-1]
        yield f"You said {newest.text}." if isinstance(newest, Said) and newest.text else "Pardon?"


async def serve(grammar: str) -> None:
    sys.path.insert(0, str(ROOT / "docs" / "examples" / "order_status"))
    import parts
    import speech_to_text

    speech_to_text.GRAMMAR = Path(grammar)
    made = Pipeline(stt=parts.GrammarEar(), llm=_SaysItBack(), tts=parts.EspeakVoice())
    async with AgentServer(made, host="127.0.0.1", port=0) as server:
        print(json.dumps({"listening": server.url}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
