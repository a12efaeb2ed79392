"""What was said in a call and which tools ran, as the model is to know it: nothing that the caller has not heard. Pure.

Begins with what Voxplane kept of the call, where the socket is not its first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from voxplane.agent.parts import Entry, Json, Said, ToolUse

ENTRIES_MAX = 200
EMPTY: dict[str, Any] = {}


class History:
    """Entries have names, under which they are changed while they come true: a sentence that is being spoken, a tool that runs."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._made = 0
        self.turns = 0
        """Of the caller."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    @property
    def unanswered(self) -> bool:
        """The caller has said something, or a tool was called, and the agent has not been heard since."""
        newest = next(reversed(self._entries.values()), None)
        return newest is not None and not (isinstance(newest, Said) and newest.role == "agent")

    def caller(self, text: str) -> None:
        self.turns += 1
        self._put(Said("caller", text))

    def agent(self, name: str, text: str, *, interrupted: bool = False) -> None:
        """What of an utterance is heard, or will be if nobody interrupts. None of it: there was no such turn."""
        if text:
            self._put(Said("agent", text, interrupted), name)
        else:
            self._entries.pop(name, None)

    def tool(self, use: ToolUse) -> None:
        self._put(use, f"tool {use.id}")

    def done(self, id_: str, result: Json) -> None:
        use = self._entries.get(f"tool {id_}")
        if isinstance(use, ToolUse):
            self._put(replace(use, result=result, done=True), f"tool {id_}")

    def recall(self, turns: object) -> None:
        """The conversation as an edge gives it. What has another form is passed over."""
        for turn in turns if isinstance(turns, list) else []:
            if not isinstance(turn, Mapping):
                continue
            text = turn.get("text")
            match turn.get("role"):
                case "caller" if isinstance(text, str):
                    self.caller(text)
                case "agent" if isinstance(text, str) and text:
                    self._put(Said("agent", text, turn.get("interrupted") is True))
                case "tool":
                    self._recall_tool(turn)

    def _recall_tool(self, turn: Mapping[str, Any]) -> None:
        arguments = turn.get("arguments")
        self._put(
            ToolUse(
                str(turn.get("id", "")),
                str(turn.get("name", "")),
                arguments if isinstance(arguments, dict) else EMPTY,
                turn.get("result"),
                turn.get("done") is True,
            )
        )

    def whole(self, name: str, text: str) -> None:
        """The utterance that was cut last goes on, and will be heard after all: it takes the cut one's place."""
        newest = next(reversed(self._entries), None)
        if newest is not None and isinstance(said := self._entries[newest], Said) and said.role == "agent":
            del self._entries[newest]
        self._put(Said("agent", text), name)

    def _put(self, entry: Entry, name: str = "") -> None:
        self._made += 1
        self._entries[name or f"entry {self._made}"] = entry
        while len(self._entries) > ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]
