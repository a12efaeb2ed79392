"""One turn of the agent: the model thinks, the voice speaks while it does, tools run in between.

Decides when an utterance begins and what is announced of it. It never interrupts itself: whoever does calls `cut`, after which
nothing that a part still gives leaves.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from voxplane.agent.audio import Resampler, length_ms
from voxplane.agent.history import History
from voxplane.agent.ledger import Ledger, Utterance
from voxplane.agent.line import Line
from voxplane.agent.parts import HangUp, Speech, Tool, ToolCall, Word
from voxplane.agent.pipeline import Pipeline
from voxplane.agent.recordings import Recordings
from voxplane.agent.streams import Feed, Sentences, Watched
from voxplane.agent.timing import Stopwatch
from voxplane.agent.tool_desk import ToolDesk, Use

PIECES_MAX = 100_000
SLICE_MS = 200


class Stage(Protocol):
    """What an answer needs of its call."""

    pipeline: Pipeline
    history: History
    line: Line
    ledger: Ledger
    desk: ToolDesk
    recordings: Recordings
    call: str

    def failed(self, stage: str, error: Exception) -> None: ...


class Speaking:
    """One utterance: text in, audio out to the edge. `broken`: the voice has failed."""

    def __init__(
        self, stage: Stage, watch: Stopwatch, live: Callable[[], bool], heralded: Callable[[], None]
    ) -> None:
        """`heralded` is called right before the first audio is said."""
        self._stage = stage
        self._watch = watch
        self._heralded = heralded
        self._live = live
        self._text: Feed[str] = Feed(PIECES_MAX)
        self._sentences = Sentences()
        self._unsaid: list[str] = []
        self._words: list[Word] = []
        self._resampler = Resampler(stage.pipeline.tts.sample_rate, stage.line.rate_hz)
        self._pieces: Watched[Speech] | None = None
        self._task = asyncio.create_task(self._run())
        self.utterance = Utterance(f"u-{secrets.token_hex(8)}")
        self.audible = False
        self.broken = False

    def feed(self, piece: str) -> None:
        self._text.put(piece)
        if self._pieces is not None:
            self._pieces.pulse()
        self._unsaid += self._sentences.feed(piece)
        self._announce()

    async def end(self) -> None:
        """All of the text is there; returns once all of the audio was sent."""
        self._text.close()
        if rest := self._sentences.flush():
            self._unsaid.append(rest)
        self._announce()
        await self._task

    def stop(self) -> asyncio.Task[None]:
        self._text.close()
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        limits = self._stage.pipeline.limits
        try:
            stream = self._stage.pipeline.tts.speak(self._text)
            self._pieces = Watched(stream, limits.tts_first_s, limits.tts_next_s)
            async with aclosing(self._pieces):
                async for piece in self._pieces:
                    if not self._live():
                        return
                    await self._take(piece)
                    if self.utterance.audio_ms > limits.utterance_s * 1000:
                        break
        except Exception as error:  # noqa: BLE001  a part's own code, contained to the turn
            self.broken = True
            if self._live():
                self._stage.failed("tts", error)
        if self._live():
            self._finish()

    async def _take(self, piece: Speech) -> None:
        """In slices, for other calls have to be served as well."""
        self._words += piece.words
        slice_bytes = 2 * self._stage.pipeline.tts.sample_rate * SLICE_MS // 1000
        for i in range(0, max(1, len(piece.pcm)), slice_bytes):
            self._say(self._resampler.feed(piece.pcm[i : i + slice_bytes]))
            await asyncio.sleep(0)
            await self._stage.line.room()

    def _say(self, pcm: bytes) -> None:
        stage, utterance = self._stage, self.utterance
        if pcm:
            now_s = time.monotonic()
            self._watch.audio(now_s)
            if not self.audible:
                self.audible = True
                self._heralded()
                stage.ledger.begin(utterance)
                stage.recordings.begin(stage.call, utterance, stage.line.rate_hz)
                stage.line.utterance(utterance.id, self)
            self._announce()
            stage.line.audio(self, pcm, self._left)
            stage.ledger.audio(utterance, length_ms(len(pcm), stage.line.rate_hz), now_s)
            stage.recordings.add(stage.call, utterance, pcm)
        self._announce()

    def _left(self) -> None:
        self._watch.sent(time.monotonic())

    def _announce(self) -> None:
        """What is said stands before its audio, and nothing does before there is some: a text that is never heard is never told."""
        if not self.audible or not (self._unsaid or self._words) or not self._live():
            return
        text = " ".join(self._unsaid)
        words = [{"word": w.word, "offset_ms": w.offset_ms} for w in self._words]
        data = {"role": "agent", "text": text}
        self._stage.line.text("transcript.final", data | ({"words": words} if words else {}), self)
        self.utterance.text = f"{self.utterance.text} {text}".strip()
        self.utterance.words += self._words
        self._unsaid, self._words = [], []
        self._stage.history.agent(self.utterance.id, self.utterance.text)

    def _finish(self) -> None:
        self._say(self._resampler.flush())
        if self.audible:
            self.utterance.sent = True
            self._stage.line.mark(self.utterance.id, self)
            self._stage.line.text("turn.ended", {"role": "agent"}, self)


class Answer:
    """`said`: what was given to be spoken. `audible`: some of it has been sent. `failed`: the stage that did. `hang_up`: the model
    wants the call to end after it. `thinks`: a model answers, and could be asked again."""

    def __init__(self, stage: Stage, watch: Stopwatch, turn: int, *, thinks: bool) -> None:
        self._stage = stage
        self._live = True
        self._speaking: Speaking | None = None
        self._uses: list[Use] = []
        self._audible = False
        self.watch = watch
        self.turn = turn
        self.thinks = thinks
        self.said = ""
        self.failed: str | None = None
        self.hang_up: HangUp | None = None

    @property
    def live(self) -> bool:
        return self._live

    @property
    def audible(self) -> bool:
        return self._audible or (self._speaking is not None and self._speaking.audible)

    def cut(self) -> None:
        """From here on nothing of it leaves. What the parts do is stopped by cancelling whoever awaits `run`."""
        self._live = False
        if self._speaking is not None:
            self._speaking.stop()
        for use in self._uses:
            self._stage.desk.withdraw(use)

    async def run(self, *, wait_for_tools: bool = False) -> None:
        """Thinks and speaks until it has nothing more to say."""
        try:
            if wait_for_tools:
                await self._stage.desk.idle()
            rounds = self._stage.pipeline.limits.tool_rounds
            for left in range(rounds, -1, -1):
                if not await self._round(self._stage.pipeline.tools if left else ()) or not self._live:
                    break
        except Exception as error:  # noqa: BLE001  a part's own code, contained to the turn
            if not self._live:
                return
            self.failed = "llm"
            self._stage.failed("llm", error)
            await self._spoken()
            if not self.said and self._stage.pipeline.apology:
                await self.speak(self._stage.pipeline.apology)

    async def speak(self, text: str) -> None:
        """Says what is given, without a model."""
        self._feed(text)
        await self._spoken()

    async def _round(self, tools: Sequence[Tool]) -> bool:
        """Asks the model once. Whether it has called tools, and is to be asked again; the last time it is given none."""
        pipeline, limits = self._stage.pipeline, self._stage.pipeline.limits
        used: list[Use] = []
        called = False
        stream = pipeline.llm.answer(self._stage.history.entries, tools)
        async with aclosing(Watched(stream, limits.llm_first_s, limits.llm_next_s)) as thoughts:
            async for thought in thoughts:
                if not self._live:
                    return False
                match thought:
                    case str():
                        self._feed(thought)
                    case ToolCall():
                        called = True
                        if (use := self._stage.desk.call(thought)) is not None:
                            used.append(use)
                            self._uses.append(use)
                    case HangUp():
                        self.hang_up = thought
                if len(self.said) > limits.answer_chars:
                    break
        began_s = time.monotonic()
        await self._spoken()
        tasks = [use.task for use in used if use.task is not None]
        if tasks:
            await asyncio.wait(tasks)
            self.watch.tool(time.monotonic() - began_s)
        return called

    def _feed(self, piece: str) -> None:
        if not piece:
            return
        self.watch.text(time.monotonic())
        self.said += piece
        if self._speaking is None:
            self._speaking = Speaking(self._stage, self.watch, lambda: self._live, self._herald)
        self._speaking.feed(piece)

    def _herald(self) -> None:
        """Before the audio, for the edge reckons what the caller has waited for as soon as it plays."""
        if self.turn and not self._audible:
            stages = self.watch.stages.data()
            self._stage.line.text("turn.timing", {"turn": self.turn, "stages": stages}, self._speaking)

    async def _spoken(self) -> None:
        """The utterance is complete; what comes after a tool is another one."""
        if (speaking := self._speaking) is None:
            return
        try:
            await speaking.end()
        finally:
            self._speaking = None
            self._audible |= speaking.audible
            if speaking.broken:
                self.failed = "tts"
