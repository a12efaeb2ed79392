"""The agent kit: a backend from parts. Speech-to-text, a language model, text-to-speech and tools, each behind an interface of its
own; the kit runs them as streams, speaks with the edge and survives what happens to the call."""

from voxplane.agent.chat_completions import ChatCompletions, ChatError
from voxplane.agent.parts import (
    Entry,
    Final,
    Frame,
    HangUp,
    Heard,
    Json,
    LanguageModel,
    Partial,
    Said,
    Speech,
    SpeechStarted,
    SpeechToText,
    TextToSpeech,
    Tool,
    ToolCall,
    ToolFailed,
    ToolUse,
    Word,
)
from voxplane.agent.pipeline import Handle, Limits, PartFailed, Pipeline
from voxplane.agent.server import AgentServer, serve
from voxplane.agent.streams import TooSlow, sentences
from voxplane.agent.timing import Stages, TurnReport
from voxplane.agent.wires import Start

__all__ = [
    "AgentServer",
    "ChatCompletions",
    "ChatError",
    "Entry",
    "Final",
    "Frame",
    "Handle",
    "HangUp",
    "Heard",
    "Json",
    "LanguageModel",
    "Limits",
    "PartFailed",
    "Partial",
    "Pipeline",
    "Said",
    "Speech",
    "SpeechStarted",
    "SpeechToText",
    "Stages",
    "Start",
    "TextToSpeech",
    "TooSlow",
    "Tool",
    "ToolCall",
    "ToolFailed",
    "ToolUse",
    "TurnReport",
    "Word",
    "sentences",
    "serve",
]
