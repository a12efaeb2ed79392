"""The conversation as a fold of a call's events: what was said, what was played of it, which tools ran.

Pure, and shared: an edge folds what it has just written, the control plane what the log has stored, and both must come
to the same turns. Only `turn.ended`, `turn.interrupted`, `tool.called` and `tool.result` change anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from regions.wire.snapshot import Turn

FOLDED_TYPES = frozenset({"turn.ended", "turn.interrupted", "tool.called", "tool.result"})


class _TurnData(msgspec.Struct):
    role: str = ""
    text: str = ""


class _ToolData(msgspec.Struct):
    id: str = ""
    name: str = ""
    arguments: Any = None
    result: Any = None


_turn = msgspec.json.Decoder(_TurnData)
_tool = msgspec.json.Decoder(_ToolData)


def fold(turns: list[Turn], type_: str, data: bytes, at_ms: int) -> None:
    """Adds what the event says to `turns`, in place. Data that cannot be read, or of another shape, add nothing:
    the log keeps them all the same."""
    try:
        match type_:
            case "turn.ended" | "turn.interrupted":
                said = _turn.decode(data)
                interrupted = type_ == "turn.interrupted"
                if said.role in ("caller", "agent") and (said.text or interrupted):
                    turns.append(Turn(role=said.role, text=said.text, interrupted=interrupted, at_ms=at_ms))
            case "tool.called":
                tool = _tool.decode(data)
                turns.append(
                    Turn(role="tool", id=tool.id, name=tool.name, arguments=tool.arguments, at_ms=at_ms)
                )
            case "tool.result":
                tool = _tool.decode(data)
                _put_result(turns, tool)
            case _:
                return
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return


def _put_result(turns: list[Turn], tool: _ToolData) -> None:
    """A result belongs to the newest call of that id; a second result for the same call changes nothing."""
    for i in range(len(turns) - 1, -1, -1):
        turn = turns[i]
        if turn.role == "tool" and turn.id == tool.id:
            if turn.result is None:
                turns[i] = msgspec.structs.replace(turn, result=tool.result)
            return
