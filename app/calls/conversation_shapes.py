"""The conversation on the wire of the REST API: a window of it, what a project may write into it, a tool's result."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from regions.wire.conversation import KEY_FORM

TEXT_CHARS_MAX = 5_000
NAME_CHARS_MAX = 256

EntryKey = Annotated[
    str, Meta(pattern=f"^{KEY_FORM}$", description="1 to 128 letters, digits and `._:@=+,-`; begins with a letter or digit.")
]  # fmt: skip
ShortName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class TurnView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. `role`: ``caller``, ``agent`` or ``tool``. A tool's has `id`, `name`, `arguments`, its `key` where it was given
    one, and `done` and `result` once there is a result. `by`: ``project`` where it was written through the API. `truncated`:
    part of it is left out."""

    seq: int
    role: str
    at: str
    text: str = ""
    interrupted: bool = False
    by: str = ""
    id: str | None = None
    key: str | None = None
    name: str | None = None
    arguments: Any = None
    done: bool = False
    result: Any = None
    truncated: bool = False


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A window of the fold of the call's durable events up to `seq`, oldest first. `tokens`: an estimate for these turns.
    `next_before_seq`: ask with it as `before_seq` for what was said before; null at the beginning."""

    call_id: str
    seq: int
    turns: list[TurnView]
    tokens: int
    next_before_seq: int | None


class WriteEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/calls/{id}/conversation``.

    `turn` has `role` and `text`; `tool.called` has `name` and may have `arguments` and `id`; `tool.result` has `result` and
    may have `id`. `key` makes the entry unique within the call and its type, and for a tool is where its result is found
    again; where it is left out, the `Idempotency-Key` is the key.
    """

    type: Literal["turn", "tool.called", "tool.result"]
    key: EntryKey | None = None
    role: Literal["caller", "agent"] | None = None
    text: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)] | None = None
    id: ShortName | None = None
    name: ShortName | None = None
    arguments: Any = None
    result: Any = None


class ToolView(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool. `done`: there is a result; `truncated`: it was too long to be kept, and is null."""

    call_id: str
    key: str
    id: str
    name: str
    arguments: Any
    done: bool
    result: Any
    truncated: bool
    seq: int
    at: str


class WrittenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`seq`: where the entry stands; it is durable. `tool`: of a tool that has its result already, which was not called again."""

    call_id: str
    type: str
    key: str
    seq: int
    tool: ToolView | None = None
