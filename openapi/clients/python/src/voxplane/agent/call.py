"""One socket of one call: who listens, who answers, what an interruption does, what the next socket of the call goes on with.

Decides when the agent speaks and when it is silenced. Runs on the event loop: what comes from the edge is taken without waiting
(`take`), what the parts do runs in tasks that are contained, each to its turn.

Who interrupts: the edge, which hears the caller first and stops the playback by itself (`playback.interrupted`), and the first word
that the speech-to-text understands. A voice without words only stops an answer that is not heard yet: it may have been a cough, and
then the answer is begun again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from voxplane.agent import wires
from voxplane.agent.answer import Answer
from voxplane.agent.audio import length_ms
from voxplane.agent.history import History
from voxplane.agent.ledger import Ledger, Outcome, Utterance
from voxplane.agent.line import Line
from voxplane.agent.listening import Listening
from voxplane.agent.parts import Final, Heard, Partial, SpeechStarted
from voxplane.agent.pipeline import PartFailed, Pipeline
from voxplane.agent.recordings import Recordings
from voxplane.agent.timing import Stopwatch, TurnReport
from voxplane.agent.tool_desk import ToolDesk

CLEANUP_S = 2.0
"""So long a part that was cancelled is waited for."""


class Call:
    """`run` it beside whoever reads the socket and gives what was read to `take`; `close` it when the socket is gone."""

    def __init__(self, pipeline: Pipeline, start: wires.Start, line: Line, recordings: Recordings) -> None:
        self.pipeline = pipeline
        self.start = start
        self.call = start.call
        self.line = line
        self.recordings = recordings
        self.history = History()
        self.history.recall(start.turns)
        self.ledger = Ledger()
        self.desk = ToolDesk(
            pipeline.tools,
            self.history,
            line,
            self._spawn,
            lambda tool, error: self._tell(PartFailed(self.call, "tool", error, tool)),
            first=not start.resumed,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._answer: Answer | None = None
        self._answering: asyncio.Task[None] | None = None
        self._listening = Listening(pipeline.stt, line.rate_hz, self._heard, self.failed, line.give_up)

    # ------------------------------------------------------------------------------------------------ the socket

    def begin(self) -> None:
        """Says what there is to say when a socket opens."""
        self.line.open(discard_silence=self.pipeline.discard_silence)
        self._spawn(self._listening.run())
        if self.pipeline.on_start is not None:
            self.pipeline.on_start(self)
        if self._goes_on():
            return
        if not self.start.resumed:
            self.say(self.pipeline.greeting)
        elif self.history.unanswered:
            self._think()
        else:
            self.say(self.pipeline.welcome_back)

    def take(self, incoming: wires.Incoming) -> None:
        """Of the edge. Never waits."""
        match incoming:
            case wires.Heard(pcm):
                self.ledger.believe()
                self._listening.feed(pcm)
            case wires.Marked(name):
                if (outcome := self.ledger.marked(name)) is not None:
                    self._came_out(outcome)
            case wires.Told(type_, data):
                self._told(type_, data)
            case wires.Pressed(digit) if digit and self.pipeline.on_dtmf is not None:
                self.pipeline.on_dtmf(self, digit)
            case wires.Stopped():
                self.recordings.forget(self.call)

    def supersede(self) -> None:
        """Another socket speaks for the call: this one falls silent, and waits for its edge to close it."""
        self.line.mute = True
        self._stop_answering()
        self._listening.close()

    async def close(self) -> None:
        """The socket is gone. Tools that have begun are let end, within their own limits."""
        self.line.mute = True
        self._stop_answering()
        self._listening.close()
        await self.desk.idle()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEANUP_S)

    # ------------------------------------------------------------------------------------------------ the handle

    def say(self, text: str) -> None:
        if text:
            self._speak(text)

    def heard(self, text: str) -> None:
        if text:
            self._caller_said(text)

    def hang_up(self, reason: str = "") -> None:
        self.line.hang_up(reason)

    # ------------------------------------------------------------------------------------------------ the caller

    def _heard(self, heard: Heard) -> None:
        match heard:
            case SpeechStarted():
                if (answer := self._answer) is not None and answer.thinks and not answer.audible:
                    self._stop_answering()
            case Partial(text):
                self.line.text("transcript.partial", {"role": "caller", "text": text})
                if text.strip():
                    self._interrupt()
            case Final(text, ended_ms) if text.strip():
                self._caller_said(text.strip(), self._listening.voice_ended_s(ended_ms))
            case Final():
                if self._answer is None and self.history.unanswered:
                    self._think(wait_for_tools=True)

    def _caller_said(self, text: str, voice_ended_s: float | None = None) -> None:
        self._interrupt()
        self.line.text("transcript.final", {"role": "caller", "text": text})
        self.line.text("turn.ended", {"role": "caller", "text": text})
        self.history.caller(text)
        self._think(voice_ended_s)

    def _told(self, type_: str, data: dict[str, Any]) -> None:
        match type_:
            case "playback.interrupted":
                self._cut_by_edge(data)
            case "ack" | "tool.cached" | "refused":
                self.desk.told(type_, data)
            case "silence":
                self.ledger.believe()
                self._listening.skip(data.get("ms"))
            case "speech.started":
                self._listening.voice_started()
            case "speech.stopped":
                self._listening.voice_stopped()
            case "turn.ended" if data.get("role", "caller") == "caller":
                self._listening.turn_ended()

    # ------------------------------------------------------------------------------------------------- the agent

    def _think(self, voice_ended_s: float | None = None, *, wait_for_tools: bool = False) -> None:
        answer = self._new_answer(voice_ended_s, thinks=True)
        self._see_through(answer, lambda: answer.run(wait_for_tools=wait_for_tools))

    def _speak(self, text: str) -> None:
        self._interrupt()
        answer = self._new_answer()
        self._see_through(answer, lambda: answer.speak(text))

    def _new_answer(self, voice_ended_s: float | None = None, *, thinks: bool = False) -> Answer:
        self._stop_answering()
        watch = Stopwatch(time.monotonic(), voice_ended_s)
        return Answer(self, watch, self.history.turns if thinks else 0, thinks=thinks)

    def _see_through(self, answer: Answer, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def through() -> None:
            try:
                await work()
                await self.line.written()
            finally:
                self._report(answer)
                if self._answer is answer:
                    self._answer = self._answering = None
            if answer.live and answer.hang_up is not None:
                self.hang_up(answer.hang_up.reason)

        self._answer = answer
        self._answering = self._spawn(through())

    def _report(self, answer: Answer) -> None:
        stages = answer.watch.stages
        if self.pipeline.on_turn is not None:
            self.pipeline.on_turn(
                TurnReport(self.call, answer.turn, stages, answer.said, not answer.live, answer.failed)
            )

    def _stop_answering(self) -> None:
        answer, task = self._answer, self._answering
        self._answer = self._answering = None
        if answer is not None:
            answer.cut()
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _interrupt(self) -> None:
        """The agent falls silent, if it speaks or is about to."""
        self._stop_answering()
        if self.ledger.unheard:
            self.line.clear()
            self._came_out(*self.ledger.clear(time.monotonic()))

    def _cut_by_edge(self, data: dict[str, Any]) -> None:
        """It has cut and cleared already; what has not left yet must not follow."""
        self._stop_answering()
        self.line.take_back()
        offset_ms, heard, id_ = data.get("offset_ms"), data.get("text"), data.get("id")
        offset_ms = round(offset_ms) if isinstance(offset_ms, int | float) else 0
        outcomes = self.ledger.told(str(heard or ""), offset_ms, str(id_ or ""), time.monotonic())
        self._came_out(*outcomes)

    def _came_out(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self.history.agent(outcome.id, outcome.heard, interrupted=outcome.interrupted)

    def _goes_on(self) -> bool:
        """An utterance that a failure has cut, and that this process still has, is sent again from where it was heard."""
        cut = self.start.cut
        if cut is None or not self.line.resumes:
            return False
        recording = self.recordings.of(self.call, cut.id, self.line.rate_hz)
        rest = recording.rest(cut.offset_ms) if recording is not None else b""
        if recording is None or not rest:
            return False
        before = recording.utterance
        utterance = Utterance(before.id, before.text, before.words, from_ms=cut.offset_ms, sent=True)
        self.history.whole(utterance.id, utterance.text)
        self.ledger.begin(utterance)
        self.line.utterance(utterance.id, utterance, cut.offset_ms)
        self.line.audio(utterance, rest)
        self.ledger.audio(utterance, length_ms(len(rest), self.line.rate_hz), time.monotonic())
        self.line.mark(utterance.id, utterance)
        self.line.text("turn.ended", {"role": "agent"}, utterance)
        return True

    # ------------------------------------------------------------------------------------------------- the tasks

    def failed(self, stage: str, error: Exception) -> None:
        self._tell(PartFailed(self.call, stage, error))

    def _tell(self, failed: PartFailed) -> None:
        if self.pipeline.on_error is not None:
            self.pipeline.on_error(failed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
