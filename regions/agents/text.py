"""The text extension: what a backend says beside its audio, read and made fit for the log. Pure.

Everything a customer's backend sends ends up in one frame with the events of other calls, and later in other people's
decoders: so it is read whole here, written again, and bounded. What cannot be read is refused (`Unreadable`); what is too
long is cut, and says so with `truncated`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from regions.wire.events import DATA_BYTES_MAX
from regions.wire.snapshot import Word

T = TypeVar("T")

TEXT_CHARS_MAX = 5_000
NAME_CHARS_MAX = 256
WORDS_MAX = 1_000
STAGES_MAX = 32
VOLATILE_BYTES_MAX = 8 * 1024
DEPTH_MAX = 64
"""Of objects and lists in each other. What is read here is read and written again by many, each on a stack of its own."""
OFFSET_MS_MAX = 24 * 3_600_000
_NUL, _ESCAPED_NUL, _INSTEAD = "\0", "\\u0000", "\ufffd"


class Unreadable(Exception):
    """Not a JSON object, or one whose fields have another type than the extension's."""


class _Word(msgspec.Struct):
    word: str = ""
    offset_ms: float = 0


class _Said(msgspec.Struct):
    role: str = ""
    text: str = ""
    words: list[_Word] = []


class _Tool(msgspec.Struct):
    id: str = ""
    key: str | None = None


class _Asked(msgspec.Struct):
    id: str = ""
    turns: int = 0
    tokens: int = 0
    min_seq: int = 0


class Said(msgspec.Struct, frozen=True):
    """`transcript.final` and `turn.ended`. `words`: where each one begins in the utterance's audio."""

    role: str
    text: str
    words: list[Word]


class _Timing(msgspec.Struct):
    stages: dict[str, float] = {}


class ToolAsked(msgspec.Struct, frozen=True):
    """`tool.called` and `tool.result`. `key`: under which the tool's result is found again, where the backend gave one."""

    id: str
    key: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """`conversation.get`. `turns` and `tokens` 0: not limited by them. `id` comes back with the answer."""

    id: str
    turns: int
    tokens: int
    min_seq: int


_said = msgspec.json.Decoder(_Said)
_asked = msgspec.json.Decoder(_Asked)
_tool = msgspec.json.Decoder(_Tool)
_timing = msgspec.json.Decoder(_Timing)


def said(data: bytes) -> Said:
    """Raises `Unreadable`."""
    read = _read(_said, data)
    words = [Word(_plain(w.word[:NAME_CHARS_MAX]), _offset_ms(w)) for w in read.words[:WORDS_MAX]]
    return Said(read.role, _plain(read.text[:TEXT_CHARS_MAX]), words)


def timing(data: bytes) -> dict[str, float]:
    """`turn.timing`: milliseconds by stage, such as `stt_ms`; the names without their unit. Raises `Unreadable`."""
    read = _read(_timing, data)
    return {name.removesuffix("_ms"): ms for name, ms in list(read.stages.items())[:STAGES_MAX]}


def tool_asked(data: bytes) -> ToolAsked:
    """Raises `Unreadable`."""
    read = _read(_tool, data)
    return ToolAsked(_plain(read.id[:NAME_CHARS_MAX]), read.key)


def asked(data: bytes) -> Asked:
    """Raises `Unreadable`."""
    read = _read(_asked, data)
    return Asked(
        _plain(read.id[:NAME_CHARS_MAX]), max(read.turns, 0), max(read.tokens, 0), max(read.min_seq, 0)
    )


def written(data: bytes) -> bytes:
    """The object in `data` as JSON of at most `DATA_BYTES_MAX` bytes and `DEPTH_MAX` levels, without NUL. Raises `Unreadable`."""
    try:
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            raise Unreadable("not an object")
        if _too_deep(value):
            value = _cut(value)
        encoded = msgspec.json.encode(value)
        if _ESCAPED_NUL.encode() in encoded:
            value = _without_nul(value)
            encoded = msgspec.json.encode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from None
    return encoded if len(encoded) <= DATA_BYTES_MAX else fitted(msgspec.json.encode(_cut(value)))


def fitted(data: bytes) -> bytes:
    """An event's data, a JSON object, as the log takes it: as it is, or without NUL and with its texts cut until it fits.

    What the log refuses is refused with the whole frame, and would be sent again for ever: nobody's words may come so far.
    """
    if len(data) <= DATA_BYTES_MAX and _ESCAPED_NUL.encode() not in data:
        return data
    value = _mapped(msgspec.json.decode(data), _plain)
    chars = TEXT_CHARS_MAX
    while len(encoded := msgspec.json.encode(value)) > DATA_BYTES_MAX:
        if chars < NAME_CHARS_MAX:
            return msgspec.json.encode({"truncated": True})
        value = _mapped(value, lambda text, chars=chars: text[:chars]) | {"truncated": True}  # type: ignore[misc]
        chars //= 2
    return encoded


def fits_volatile(data: bytes) -> bool:
    """Whether a live-only message can be passed on as it is."""
    if len(data) > VOLATILE_BYTES_MAX:
        return False
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return isinstance(value, dict) and not _too_deep(value)


def _read(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from None


def _offset_ms(word: _Word) -> int:
    return round(min(max(word.offset_ms, 0), OFFSET_MS_MAX))


def _too_deep(value: Any) -> bool:
    """By the level, for a stack would be as deep as what it looks at."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in level)


def _plain(text: str) -> str:
    return text.replace(_NUL, _INSTEAD)


def _without_nul(value: Any) -> Any:
    return _mapped(value, lambda text: _plain(text).replace(_ESCAPED_NUL, _INSTEAD))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every text in it, names too, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(v, change) for v in value]
    if isinstance(value, dict):
        return {change(k): _mapped(v, change) for k, v in value.items()}
    return value


def _cut(value: dict[str, Any]) -> dict[str, Any]:
    """What the fold needs to know of it, and no more."""
    kept: dict[str, Any] = {"truncated": True}
    limits = {
        "role": NAME_CHARS_MAX,
        "id": NAME_CHARS_MAX,
        "key": NAME_CHARS_MAX,
        "name": NAME_CHARS_MAX,
        "text": TEXT_CHARS_MAX,
    }
    for name, chars_max in limits.items():
        if isinstance(value.get(name), str):
            kept[name] = value[name][:chars_max]
    for name in ("arguments", "result"):
        if name in value:
            kept[name] = None
    return kept
