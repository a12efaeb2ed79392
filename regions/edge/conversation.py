"""What a backend may ask of the conversation on its own socket: a window of it, and whether a tool has run already. Pure.

Decides the answers from what this edge has in memory. A tool whose key has its result is not called again: the result is
answered at once, and nothing is written. A window is never older than the reader demands: `seq` says up to where this edge
knows of everything in the log, and what it cannot vouch for it refuses, naming the API.
"""

from __future__ import annotations

from typing import Any

from regions.agents.text import Asked, ToolAsked
from regions.edge.journal import Journal
from regions.wire.conversation import good_key, tool_of, window
from regions.wire.snapshot import Turn

ANSWER_BYTES_MAX = 48 * 1024
TURNS_DEFAULT = 64
ASKED_EVERY_MS = 100

Answer = tuple[str, dict[str, Any]]
"""The type of a message to the backend, and its data."""


class Conversation:
    def __init__(self, journal: Journal, call: str) -> None:
        self._journal = journal
        self._call = call
        self._asked_at_ms: int | None = None
        self._again: set[str] = set()

    def forget(self) -> None:
        """Another backend asks from now on."""
        self._asked_at_ms = None
        self._again.clear()

    def knows(self, asked: Asked) -> bool:
        return asked.min_seq <= self._journal.known_seq

    def too_often(self, asked: Asked, now_ms: int) -> Answer | None:
        """`refused` where the backend has asked a moment ago: an answer takes the time of all calls of this edge."""
        if self._asked_at_ms is not None and now_ms - self._asked_at_ms < ASKED_EVERY_MS:
            return self._refused(
                "conversation.get", asked.id, "too_often", f"ask at most once in {ASKED_EVERY_MS} ms"
            )
        self._asked_at_ms = now_ms
        return None

    def get(self, asked: Asked) -> Answer:
        """`conversation`, or `refused` as ``not_yet`` where this edge does not know up to `min_seq`."""
        journal = self._journal
        if not self.knows(asked):
            fix = f"GET /v1/calls/{self._call}/conversation?min_seq={asked.min_seq}"
            kind, refused = self._refused("conversation.get", asked.id, "not_yet", fix)
            return kind, refused | {"seq": journal.known_seq}
        cut = window(
            journal.turns,
            turns_max=asked.turns or TURNS_DEFAULT,
            tokens_max=asked.tokens or None,
            bytes_max=ANSWER_BYTES_MAX,
        )
        data: dict[str, Any] = {
            "turns": [turn_data(t) for t in cut.turns],
            "tokens": cut.tokens,
            "truncated": cut.cut,
        }
        data |= {"seq": journal.known_seq} if journal.known_seq else {}
        return "conversation", {"id": asked.id} | data if asked.id else data

    def tool(self, asked: ToolAsked) -> Answer | None:
        """None: the call is to be written, and acknowledged once it is durable."""
        if asked.key is None:
            return None
        if not good_key(asked.key):
            return self._refused(
                "tool.called", asked.id, "bad_key", "1 to 128 letters, digits and ._:@=+,- make a key"
            )
        known = tool_of(self._journal.turns, asked.key)
        if known is None:
            return None
        if not known.done:
            self._again.add(asked.id)
            return None
        data: dict[str, Any] = {"id": asked.id, "key": asked.key, "result": known.result}
        if known.truncated:
            data |= {"truncated": True, "fix": f"GET /v1/calls/{self._call}/tools/{asked.key}"}
        if known.seq > 0:
            data["seq"] = known.seq
        return "tool.cached", data

    def ack(self, tool_id: str, seq: int) -> dict[str, Any]:
        """`again`: the tool of this key was called before, and no result came: whether it ran is for the backend to find out."""
        data: dict[str, Any] = {"type": "tool.called", "id": tool_id, "seq": seq}
        if tool_id in self._again:
            self._again.discard(tool_id)
            data["again"] = True
        return data

    def _refused(self, type_: str, id_: str, code: str, fix: str) -> Answer:
        return "refused", {"type": type_, "id": id_, "code": code, "fix": fix}


def turn_data(turn: Turn) -> dict[str, Any]:
    """A turn as a backend sees it: what is not so is left out, and so is a place in the log that is not known."""
    data: dict[str, Any] = {"role": turn.role}
    if turn.role == "tool":
        data |= {"id": turn.id, "name": turn.name, "arguments": turn.arguments, "result": turn.result}
        data |= {"key": turn.key} if turn.key else {}
        data |= {"done": True} if turn.done else {}
    else:
        data["text"] = turn.text
        data |= {"interrupted": True} if turn.interrupted else {}
    data |= {"truncated": True} if turn.truncated else {}
    return data | {"seq": turn.seq} if turn.seq > 0 else data
