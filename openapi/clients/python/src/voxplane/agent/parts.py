"""What a backend is made of: speech-to-text, a language model, text-to-speech and tools, each a stream, each replaceable alone.

A part is shared by all calls of a `Pipeline`; every call of one of its methods gives a stream of its own, and what belongs to one
call lives in that stream. The kit is the only one that calls these methods, on one event loop.

**Cancelling.** A stream is given up at any await: it is cancelled, or closed (`aclose`) where it is not waiting. It then stops
spending money and time as soon as it can, and lets `CancelledError` and `GeneratorExit` pass. What it still gives is dropped.

**Failing.** Whatever a stream raises ends that stream and no more: see each part. Nothing is tried again by the kit but listening.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of the caller. `pcm`: PCM16, little-endian, mono, at the `sample_rate` of whoever listens. `at_ms`: where it begins,
    since the socket was opened. `turn_ended`: the edge takes the caller's turn for over; such a frame holds no audio."""

    pcm: bytes
    at_ms: int
    turn_ended: bool = False


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller has begun to speak; no word is known yet."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What has been understood of the turn so far, all of it; the next one may be another text."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The caller's turn is over. `text` is empty where nothing was understood. `ended_ms`: where in the frames the voice ended,
    if that is known; only the timing of the turn depends on it."""

    text: str
    ended_ms: int | None = None


Heard = SpeechStarted | Partial | Final


class SpeechToText(Protocol):
    """`sample_rate`: in Hz, what `listen` wants to hear; the kit converts."""

    @property
    def sample_rate(self) -> int: ...

    def listen(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Heard]:
        """Once for each socket, for as long as it lives. Frames come in order, one in 20 ms, and without holes unless the pipeline
        has `discard_silence`; after a reconnect up to 5 s come faster, so time is taken from `at_ms` and not from a clock.

        Of each turn: `SpeechStarted` if it can be told, any number of `Partial`, one `Final`. Where the turn ends is decided
        here; `turn_ended` is advice, to be followed by whoever has no opinion of its own.

        Reads without pause: of frames that wait for more than ten seconds the oldest are dropped. Ends when the frames end. If it
        raises, or ends before they do, it is called again, after a growing pause; the fifth time without a `Final` in between the
        socket is given up, and the edge dials the backend anew."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """A turn that was spoken. An agent's holds what the caller has heard of it: `interrupted` where that is not all."""

    role: Literal["caller", "agent"]
    text: str
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that was called. `done`: `result` is its result, or ``{"error": …}``. Not done: it still runs, or the backend that
    has called it was lost, and nobody knows whether it ran."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    result: Json = None
    done: bool = False


Entry = Said | ToolUse


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish. `id`: the model's own name for it, of any form, at most 256 characters; empty: the kit makes one."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The agent ends the call once what it has said was heard. `reason`: at most 64 characters, for the final event; only the
    native dialect carries it."""

    reason: str = ""


class LanguageModel(Protocol):
    def answer(
        self, conversation: Sequence[Entry], tools: Sequence[Tool]
    ) -> AsyncIterator[str | ToolCall | HangUp]:
        """The agent's next turn. `conversation`: oldest first, at most 200 entries, holding nothing that the caller has not
        heard; mostly it ends with what the caller said, or with the results of tools. Never changed afterwards.

        A `str` is the next piece of the text, blanks included, spoken as soon as it comes. After a stream with `ToolCall`s the
        tools run, side by side, and `answer` is called again, at most eight times a turn. `HangUp` comes last.

        Cancelled when the caller interrupts. If it raises, or gives nothing for too long (`Limits`), what was said so far stands;
        if that is nothing, the pipeline's `apology` is said."""
        ...


@dataclass(frozen=True, slots=True)
class Word:
    """`offset_ms`: where it begins in the audio of the utterance."""

    word: str
    offset_ms: int


@dataclass(frozen=True, slots=True)
class Speech:
    """The next piece of an utterance's audio, PCM16, little-endian, mono, at the `sample_rate` of whoever speaks, of any length;
    and the words that are known by now, with offsets since the utterance's beginning."""

    pcm: bytes
    words: tuple[Word, ...] = ()


class TextToSpeech(Protocol):
    """`sample_rate`: in Hz, what `speak` gives; the kit converts."""

    @property
    def sample_rate(self) -> int: ...

    def speak(self, text: AsyncIterator[str]) -> AsyncIterator[Speech]:
        """Once for each utterance. `text` comes in the model's pieces, while it is being thought of: begin before it has ended,
        at the first sentence's end at the latest (`sentences` cuts). Ends when all has been said. Words in order; an utterance
        that is cut is then cut in the log at the word.

        As fast as it can: the edge plays in real time. Cancelled when the caller interrupts. If it raises, or gives nothing for too
        long, what was said so far stands."""
        ...


class ToolFailed(Exception):
    """For a tool to raise that had no effect: the text is told to the model as it is, and the tool may be called again. Of any
    other error the model learns no more than that there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`parameters`: a JSON schema of the arguments, an object; the kit does not check them. `run`: gets the arguments, gives
    something that JSON can say, at most 32 KiB of it.

    `key`: of the arguments, under which the tool has its effect once in a call, whatever socket or process asks again: the result
    that is known is given instead (1 to 128 letters, digits and ``._:@=+,-``, the first a letter or digit).

    `effect`: it changes something. Then it runs only once its intent is durable in the call's log, and not at all where that
    cannot be had in time; without an effect it runs at once.

    `repeatable`: it may run though an earlier try with the same key, whose end nobody knows, may have run.

    `interruptible`: it is cancelled when the caller interrupts. Otherwise it ends what it has begun, and its result stands in the
    conversation; one that has not begun is not begun.

    `run` may raise, or take longer than `timeout_s`: the model is told ``{"error": …}``. With a `key` the log then has no result:
    called again, it runs where it is `repeatable` or had raised `ToolFailed`."""

    name: str
    description: str
    run: Callable[[dict[str, Any]], Awaitable[Json]]
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    key: Callable[[Mapping[str, Any]], str] | None = None
    effect: bool = True
    repeatable: bool = False
    interruptible: bool = False
    timeout_s: float = 10.0
