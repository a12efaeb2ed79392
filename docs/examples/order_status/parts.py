"""The offline backend's parts for the agent kit: pocketsphinx behind `SpeechToText`, the small dialogue behind `LanguageModel`,
espeak-ng behind `TextToSpeech`, and the look-up as a `Tool`. None of them knows of the others, or of the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeGuard

import speech_to_text
from dialogue import Memory, after_tool, look_up, memory_from, respond
from pocketsphinx import Decoder
from speech_to_text import END_FRAMES, Recognizer, make_decoder
from synthesis import Synthesizer

from voxplane.agent import (
    Entry,
    Final,
    Frame,
    Heard,
    Partial,
    Said,
    Speech,
    SpeechStarted,
    Tool,
    ToolCall,
    ToolUse,
    Word,
    sentences,
)

FRAME_MS = 20
DECODERS_KEPT = 2
NOT_FOUND = {"status": "not been looked up", "arrives": "an unknown day", "depot": "an unknown place"}


class GrammarEar:
    """A `SpeechToText`: hears the sentences of the grammar."""

    sample_rate = 16_000

    def __init__(self) -> None:
        # They take a while to load: a few are kept for the next call.
        self._free: list[Decoder] = [make_decoder()]

    async def listen(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Heard]:
        decoder = self._free.pop() if self._free else make_decoder()
        recognizer = Recognizer(decoder, self.sample_rate)
        try:
            async for frame in frames:
                for happened in recognizer.end() if frame.turn_ended else recognizer.hear(frame.pcm):
                    match happened:
                        case speech_to_text.Started():
                            yield SpeechStarted()
                        case speech_to_text.Partial(text):
                            yield Partial(text)
                        case speech_to_text.Final(text) if frame.turn_ended:
                            yield Final(text)
                        case speech_to_text.Final(text):
                            yield Final(text, ended_ms=frame.at_ms - END_FRAMES * FRAME_MS)
        finally:
            recognizer.close()
            if len(self._free) < DECODERS_KEPT:
                self._free.append(decoder)


class OrderDialogue:
    """A `LanguageModel` of rules. It keeps nothing: what it knows is in the conversation that it is given."""

    async def answer(
        self, conversation: Sequence[Entry], tools: Sequence[Tool]
    ) -> AsyncIterator[str | ToolCall]:
        memory = memory_from([_turn(entry) for entry in conversation])
        newest = conversation[-1]
        if isinstance(newest, ToolUse):
            yield _found(memory, newest.result)
            return
        reply = respond(memory, newest.text)
        if reply.tool is not None:
            yield ToolCall(reply.tool.name, reply.tool.arguments)
        for sentence in re.split(r"(?<=\. )", reply.text):
            yield sentence


class EspeakVoice:
    """A `TextToSpeech`: speaks a sentence as soon as it is complete."""

    sample_rate = 16_000

    def __init__(self) -> None:
        self._synthesizer = Synthesizer()
        self._synthesizer.speak("ready")

    async def speak(self, text: AsyncIterator[str]) -> AsyncIterator[Speech]:
        at_ms = 0
        async for sentence in sentences(text):
            spoken = await asyncio.to_thread(self._synthesizer.speak, sentence, rate_hz=self.sample_rate)
            yield Speech(spoken.pcm, tuple(Word(word, at_ms + offset) for word, offset in spoken.words))
            at_ms += len(spoken.pcm) * 1000 // (2 * self.sample_rate)


async def _look_up(arguments: dict[str, Any]) -> dict[str, str]:
    return look_up(str(arguments.get("order", "")))


LOOK_UP = Tool(
    name="lookup_order",
    description="The status of an order by its number.",
    parameters={
        "type": "object",
        "properties": {"order": {"type": "string", "description": "three digits"}},
        "required": ["order"],
    },
    run=_look_up,
    key=lambda arguments: f"lookup_order:{arguments.get('order')}",
)


def _turn(entry: Entry) -> dict[str, Any]:
    """As Voxplane keeps it, and as the dialogue reads it."""
    match entry:
        case Said(role, text):
            return {"role": role, "text": text}
        case ToolUse(_, name, arguments, result):
            known = result if _is_found(result) else None
            return {"role": "tool", "name": name, "arguments": dict(arguments), "result": known}


def _found(memory: Memory, result: object) -> str:
    return after_tool(memory, result if _is_found(result) else NOT_FOUND).text


def _is_found(result: object) -> TypeGuard[dict[str, str]]:
    return isinstance(result, dict) and "status" in result
