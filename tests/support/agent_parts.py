"""Parts of a backend that do what a test says, and an edge's end of the line without an edge."""

from __future__ import annotations

import array
import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tests.support.edges import until
from voxplane.agent import (
    Entry,
    Final,
    Frame,
    HangUp,
    Heard,
    PartFailed,
    Pipeline,
    Speech,
    SpeechStarted,
    Tool,
    ToolCall,
    TurnReport,
    Word,
)
from voxplane.agent.call import Call
from voxplane.agent.line import Line
from voxplane.agent.recordings import Recordings
from voxplane.agent.wires import Message, NativeWire, Start, Told

RATE_HZ = 16_000
WORD_MS = 200


def tone(ms: int, rate_hz: int = RATE_HZ, hz: int = 400) -> bytes:
    samples = [round(8_000 * math.sin(2 * math.pi * hz * i / rate_hz)) for i in range(rate_hz * ms // 1000)]
    return array.array("h", samples).tobytes()


class Ear:
    """A speech-to-text that hears what the test puts into it. An exception is raised; None ends the stream."""

    sample_rate = RATE_HZ

    def __init__(self) -> None:
        self.listened = 0
        self.taken = 0
        self.frames: list[Frame] = []
        self._next: asyncio.Queue[Heard | Exception | None] = asyncio.Queue()

    def hears(self, *heard: Heard | Exception | None) -> None:
        for one in heard:
            self._next.put_nowait(one)

    async def listen(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Heard]:
        self.listened += 1
        reading = asyncio.create_task(self._read(frames))
        try:
            while (heard := await self._next.get()) is not None:
                if isinstance(heard, Exception):
                    raise heard
                yield heard
                self.taken += 1
        finally:
            reading.cancel()

    async def _read(self, frames: AsyncIterator[Frame]) -> None:
        async for frame in frames:
            self.frames.append(frame)


Thought = str | ToolCall | HangUp | Exception | asyncio.Event


class Mind:
    """A model with a script: one list for each time it is asked. An event is waited for, an exception is raised."""

    def __init__(self, *script: Sequence[Thought]) -> None:
        self.script = [list(thoughts) for thoughts in script]
        self.asked: list[list[Entry]] = []
        self.tools: list[list[str]] = []
        self.stopped = 0
        """How often it was cancelled or closed before its end."""

    async def answer(
        self, conversation: Sequence[Entry], tools: Sequence[Tool]
    ) -> AsyncIterator[str | ToolCall | HangUp]:
        self.asked.append(list(conversation))
        self.tools.append([tool.name for tool in tools])
        thoughts = self.script.pop(0) if self.script else []
        done = False
        try:
            for thought in thoughts:
                if isinstance(thought, asyncio.Event):
                    await thought.wait()
                elif isinstance(thought, Exception):
                    done = True
                    raise thought
                else:
                    yield thought
            done = True
        finally:
            self.stopped += not done


class Voice:
    """A text-to-speech of 200 ms of tone a word, with the words' places. `before`: awaited before each word. `fails_at`: which word
    it raises at, of all that it says."""

    sample_rate = RATE_HZ

    def __init__(
        self, *, words: bool = True, before: Callable[[str], Awaitable[object]] | None = None
    ) -> None:
        self.spoken: list[str] = []
        self.stopped = 0
        self.fails_at: int | None = None
        self._words = words
        self._before = before

    async def speak(self, text: AsyncIterator[str]) -> AsyncIterator[Speech]:
        rest, at_ms, done = "", 0, False
        try:
            async for piece in text:
                *whole, rest = (rest + piece).split(" ")
                for word in whole:
                    yield await self._say(word, at_ms)
                    at_ms += WORD_MS
            if rest:
                yield await self._say(rest, at_ms)
            done = True
        finally:
            self.stopped += not done

    async def _say(self, word: str, at_ms: int) -> Speech:
        if self._before is not None:
            await self._before(word)
        if len(self.spoken) == self.fails_at:
            raise RuntimeError("hoarse")
        self.spoken.append(word)
        return Speech(tone(WORD_MS), (Word(word, at_ms),) if self._words else ())


class Edge:
    """The other end of a call's line: keeps what the backend says. Acknowledges tools at once where `acks`."""

    def __init__(
        self,
        pipeline: Pipeline,
        start: Start | None = None,
        *,
        acks: bool = True,
        recordings: Recordings | None = None,
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self.audio = bytearray()
        self.closed: list[int] = []
        self.again: set[str] = set()
        self.reads = asyncio.Event()
        self.reads.set()
        """Not set: it takes in nothing."""
        self._acks = acks
        self._line = Line(self, NativeWire(RATE_HZ))
        recordings = Recordings() if recordings is None else recordings
        self.call = Call(pipeline, start or Start(call="call_1"), self._line, recordings)

    async def __aenter__(self) -> Edge:
        self._writing = asyncio.create_task(self._line.run())
        self.call.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.call.close()
        self._writing.cancel()

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        await self.reads.wait()
        if isinstance(message, bytes):
            self.audio += message
            self.said.append({"type": "audio", "ms": len(message) * 1000 // (2 * RATE_HZ)})
            return
        said = json.loads(message)
        self.said.append(said)
        if said["type"] == "tool.called" and self._acks:
            again = {"again": True} if said["data"].get("key") in self.again else {}
            self.tell("ack", type="tool.called", id=said["data"]["id"], seq=1, **again)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed.append(code)

    def tell(self, type_: str, **data: Any) -> None:
        self.call.take(Told(type_, data))

    def of(self, type_: str) -> list[Any]:
        """What was said of one type: its data, or all of it."""
        return [said.get("data", said) for said in self.said if said["type"] == type_]

    @property
    def types(self) -> list[str]:
        """In order, audio once where it follows audio, without what is measured."""
        found: list[str] = []
        for said in self.said:
            if said["type"] not in found[-1:] and said["type"] != "turn.timing":
                found.append(said["type"])
        return found

    async def until(self, type_: str, count: int = 1) -> Any:
        """The newest of them, once there are so many."""
        await until(lambda: len(self.of(type_)) >= count, f"{count} of {type_}, of {self.types}")
        return self.of(type_)[count - 1]


class Watcher:
    """What the pipeline reports."""

    def __init__(self) -> None:
        self.turns: list[TurnReport] = []
        self.errors: list[PartFailed] = []

    def pipeline(self, ear: Ear | LoudEar, mind: Mind, voice: Voice, **more: Any) -> Pipeline:
        return Pipeline(
            stt=ear, llm=mind, tts=voice, on_turn=self.turns.append, on_error=self.errors.append, **more
        )


def asks(text: str = "where is it") -> Final:
    return Final(text)


class LoudEar:
    """A speech-to-text of real frames: what is loud is speech, and 200 ms of quiet end a turn. Turn number n is the nth of `says`."""

    sample_rate = RATE_HZ

    def __init__(self, *says: str) -> None:
        self._says = list(says)

    async def listen(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Heard]:
        speaking, quiet = False, 0
        async for frame in frames:
            loud = max(map(abs, array.array("h", frame.pcm)), default=0) > 2_000
            quiet = 0 if loud else quiet + 1
            if loud and not speaking:
                speaking = True
                yield SpeechStarted()
            elif speaking and quiet >= 10:
                speaking = False
                yield Final(self._says.pop(0) if self._says else "", ended_ms=frame.at_ms - 200)
