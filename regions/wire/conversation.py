"""The conversation as a fold of a call's events: what was said, what was played of it, which tools ran.

Pure, and shared: an edge folds what it has just written, the control plane what the log has stored, and both must come
to the same turns. Only `turn.ended`, `turn.interrupted`, `tool.called` and `tool.result` change anything. Decides, too, what
a window of it is, by turns or by tokens, and which keys a tool may have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from regions.wire.snapshot import Turn

FOLDED_TYPES = frozenset({"turn.ended", "turn.interrupted", "tool.called", "tool.result"})
TOOL_TYPES = frozenset({"tool.called", "tool.result"})
BY_PROJECT = "project"

KEY_FORM = r"[A-Za-z0-9][A-Za-z0-9._:@=+,-]{0,127}"
"""A key stands in a path of the API, so it is written without escapes."""
_key = re.compile(KEY_FORM)

BYTES_PER_TOKEN = 4
WINDOW_TURNS_MAX = 200
WINDOW_TOKENS_MAX = 200_000


class _TurnData(msgspec.Struct):
    role: str = ""
    text: str = ""


class _ToolData(msgspec.Struct):
    id: str = ""
    key: str = ""
    name: str = ""
    arguments: Any = None
    result: Any = None
    truncated: bool = False


_turn = msgspec.json.Decoder(_TurnData)
_tool = msgspec.json.Decoder(_ToolData)


def good_key(key: str) -> bool:
    return _key.fullmatch(key) is not None


def fold(turns: list[Turn], type_: str, data: bytes, at_ms: int, *, seq: int = 0, by: str = "") -> None:
    """Adds what the event says to `turns`, in place. Data that cannot be read, or of another shape, add nothing:
    the log keeps them all the same. `seq` and `by`: see `Turn`."""
    try:
        match type_:
            case "turn.ended" | "turn.interrupted":
                said = _turn.decode(data)
                cut = type_ == "turn.interrupted"
                if said.role in ("caller", "agent") and (said.text or cut):
                    turns.append(
                        Turn(role=said.role, text=said.text, interrupted=cut, at_ms=at_ms, seq=seq, by=by)
                    )
            case "tool.called":
                _put_call(turns, _tool.decode(data), at_ms, seq, by)
            case "tool.result":
                _put_result(turns, _tool.decode(data))
            case _:
                return
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return


def _put_call(turns: list[Turn], tool: _ToolData, at_ms: int, seq: int, by: str) -> None:
    for i, turn in zip(range(len(turns) - 1, -1, -1), reversed(turns), strict=True):
        if turn.id == tool.id and turn.role == "tool":
            if not turn.done:
                turns[i] = msgspec.structs.replace(turn, closed=True)
            break
    turns.append(
        Turn(
            role="tool",
            id=tool.id,
            key=tool.key or None,
            name=tool.name,
            arguments=tool.arguments,
            at_ms=at_ms,
            seq=seq,
            by=by,
        )
    )


def _put_result(turns: list[Turn], tool: _ToolData) -> None:
    """A result belongs to the newest call of its key, or, without one, of its id; a second one changes nothing."""
    for i, turn in zip(range(len(turns) - 1, -1, -1), reversed(turns), strict=True):
        if turn.role == "tool" and (turn.key == tool.key if tool.key else turn.id == tool.id):
            if not turn.done and (tool.key or not turn.closed):
                turns[i] = msgspec.structs.replace(
                    turn, result=tool.result, done=True, truncated=tool.truncated
                )
            return


def tool_of(turns: list[Turn], key: str) -> Turn | None:
    """The newest call of `key` that has its result, else the newest call."""
    calls = [t for t in turns if t.role == "tool" and t.key == key]
    return next((t for t in reversed(calls) if t.done), calls[-1] if calls else None)


def with_project_writes(turns: list[Turn], tail: list[Turn]) -> list[Turn]:
    """`turns`, and what a project wrote through the API that only the tail knows: entries, by the time they were written,
    and results of tools that have none here."""
    known = {t.seq for t in turns if t.by == BY_PROJECT}
    results = {t.id: t for t in tail if t.done and t.id}
    merged = [
        msgspec.structs.replace(t, done=True, result=found.result, truncated=found.truncated)
        if t.role == "tool" and not t.done and (found := results.get(t.id or "")) is not None
        and (found.name, found.key) == (t.name, t.key)
        else t
        for t in turns
    ]  # fmt: skip
    for new in tail:
        if new.by == BY_PROJECT and not new.past and new.seq not in known:
            at = next((i for i in range(len(merged), 0, -1) if merged[i - 1].at_ms <= new.at_ms), 0)
            merged.insert(at, new)
    return merged


# --- windows ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """The newest turns that were asked for, in order. `tokens`: their estimate; `cut`: something older was left out, or the
    only turn was shortened."""

    turns: list[Turn]
    tokens: int
    cut: bool


def tokens_of(turn: Turn) -> int:
    """An estimate: a quarter of the bytes of what a model would read, rounded up. English comes near it; a prompt's own
    markup is not in it."""
    size = len(turn.text.encode())
    if turn.role == "tool":
        size += len((turn.name or "").encode())
        size += sum(len(msgspec.json.encode(v)) for v in (turn.arguments, turn.result) if v is not None)
    return max(1, -(-size // BYTES_PER_TOKEN))


def window(turns: list[Turn], *, turns_max: int, bytes_max: int, tokens_max: int | None = None) -> Window:
    """Never more than any of the limits. Where the newest turn alone is over `tokens_max` or `bytes_max`, it is shortened to
    the end of its text, or to the name of its tool, and says `truncated`."""
    whole = [t for t in turns if not t.past]
    tokens_left = WINDOW_TOKENS_MAX if tokens_max is None else tokens_max
    bytes_left = bytes_max
    kept: list[Turn] = []
    for turn in reversed(whole):
        tokens, size = tokens_of(turn), len(msgspec.json.encode(turn))
        if len(kept) >= turns_max:
            break
        if tokens > tokens_left or size > bytes_left:
            if not kept:
                short = _shortened(turn, min(tokens_left * BYTES_PER_TOKEN, bytes_left // 8))
                return Window([short], min(tokens_of(short), tokens_left), True)
            break
        kept.append(turn)
        tokens_left, bytes_left = tokens_left - tokens, bytes_left - size
    kept.reverse()
    return Window(kept, sum(map(tokens_of, kept)), len(kept) < len(whole) or len(whole) < len(turns))


def _shortened(turn: Turn, bytes_max: int) -> Turn:
    if turn.role == "tool":
        name = _tail_of(turn.name or "", bytes_max)
        return msgspec.structs.replace(turn, name=name, arguments=None, result=None, truncated=True)
    return msgspec.structs.replace(turn, text=_tail_of(turn.text, bytes_max), truncated=True)


def _tail_of(text: str, bytes_max: int) -> str:
    """The end of it in at most `bytes_max` bytes of UTF-8."""
    return text.encode()[-bytes_max:].decode(errors="ignore") if bytes_max > 0 else ""
