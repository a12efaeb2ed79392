"""The conversation as a new backend is told it, cut to what its dialect has room for. Pure."""

from __future__ import annotations

import msgspec

from regions.wire.snapshot import Turn

CONVERSATION_BYTES_MAX = 4_096
TURN_CHARS_MAX = 160


def conversation_parameter(turns: list[Turn], bytes_max: int = CONVERSATION_BYTES_MAX) -> str:
    """JSON of at most `bytes_max`, a turn of it at most a quarter; the oldest turns are the first to be left out, and it says so."""
    kept: list[bytes] = []
    size = len(b'{"turns":[],"truncated":true}')
    truncated = False
    for turn in reversed(turns):
        encoded = _turn_json(turn)
        if len(encoded) > bytes_max // 4:
            encoded, truncated = _turn_json(_cut(turn)), True
        if size + len(encoded) + 1 > bytes_max:
            truncated = True
            break
        size += len(encoded) + 1
        kept.append(encoded)
    kept.reverse()
    return (b'{"turns":[' + b",".join(kept) + (b'],"truncated":true}' if truncated else b"]}")).decode()


def _cut(turn: Turn) -> Turn:
    """The end of what was said; of a tool, that it was called."""
    if turn.role != "tool":
        return msgspec.structs.replace(turn, text="…" + turn.text[-TURN_CHARS_MAX:])
    name, number = (turn.name or "")[:TURN_CHARS_MAX], (turn.id or "")[:TURN_CHARS_MAX]
    return msgspec.structs.replace(turn, name=name, id=number, arguments=None, result=None)


def _turn_json(turn: Turn) -> bytes:
    if turn.role == "tool":
        tool: dict[str, object] = {
            "role": "tool",
            "id": turn.id,
            "name": turn.name,
            "arguments": turn.arguments,
            "result": turn.result,
        }
        if turn.key is not None:
            tool["key"] = turn.key
        if turn.done:
            tool["done"] = True
        return msgspec.json.encode(tool)
    said: dict[str, object] = {"role": turn.role, "text": turn.text}
    if turn.interrupted:
        said["interrupted"] = True
    return msgspec.json.encode(said)
