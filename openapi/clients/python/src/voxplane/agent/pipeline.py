"""The parts of a backend put together, and what it says by itself. Swapping a part is one line: nothing else knows which it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from voxplane.agent.parts import LanguageModel, SpeechToText, TextToSpeech, Tool
from voxplane.agent.timing import TurnReport
from voxplane.agent.wires import Start
from voxplane.errors import VoxplaneError

APOLOGY = "Sorry, something went wrong. Please say that again."


class PartFailed(VoxplaneError):
    """A part, or a tool, has failed, and what that has cost was contained. `stage`: ``stt``, ``llm``, ``tts`` or ``tool``; `tool`:
    its name. The error itself is the `__cause__`."""

    def __init__(self, call: str, stage: str, error: BaseException, tool: str = "") -> None:
        super().__init__(f"{call}: {stage}{f' {tool}' if tool else ''}: {type(error).__name__}: {error}")
        self.call = call
        self.stage = stage
        self.tool = tool
        self.__cause__ = error


class Handle(Protocol):
    """A call that is going on, for whoever wants to act in it. To be used on the event loop that serves it; of a call that is over
    everything is ignored."""

    @property
    def start(self) -> Start: ...

    def say(self, text: str) -> None:
        """The agent says this, after what it says now is cut."""
        ...

    def heard(self, text: str) -> None:
        """As if the caller had said it: the agent answers."""
        ...

    def hang_up(self, reason: str = "") -> None:
        """Once what was said is heard."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to wait for a part's first item and for each one after it; the longest answer, in characters of text and in seconds of
    audio (an edge holds ten minutes)."""

    llm_first_s: float = 15.0
    llm_next_s: float = 10.0
    tts_first_s: float = 10.0
    tts_next_s: float = 10.0
    answer_chars: int = 8_000
    utterance_s: float = 300.0
    tool_rounds: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """`greeting`: said when a call begins. `welcome_back`: said on a resumed socket where neither a turn of the caller's waits for an
    answer nor an utterance was cut; empty, nothing is. `apology`: said where the model fails before its first word.

    `discard_silence`: while the caller is quiet, the edge sends no frames, and `stt` is given none; `at_ms` goes on. For one that is
    paid by the second, and ends its turns by `turn_ended`, not by silent frames. Native dialect alone; over Twilio's all frames come.

    `on_turn` and `on_error` are told of every turn of the agent and of every error; `on_start` of every socket, once it is known
    which call it is, and `on_dtmf` of every key that the caller presses. They return at once and do not raise."""

    stt: SpeechToText
    llm: LanguageModel
    tts: TextToSpeech
    tools: Sequence[Tool] = ()
    greeting: str = ""
    welcome_back: str = ""
    apology: str = APOLOGY
    limits: Limits = field(default_factory=Limits)
    discard_silence: bool = False
    on_turn: Callable[[TurnReport], None] | None = None
    on_error: Callable[[PartFailed], None] | None = None
    on_start: Callable[[Handle], None] | None = None
    on_dtmf: Callable[[Handle, str], None] | None = None
