"""The timeline of a call on the wire: one ordered list of what happened to it, and why it is where it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.calls.shapes import PlacementView


class TimelineOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Who has had the call from here on. `why`: ``created`` (nobody has attached yet), ``attached`` (the caller came to this edge
    first), or the reason of the takeover: ``planned``, ``silent``, ``closed``, ``refused``."""

    epoch: int
    edge: str
    region: str | None
    why: str


class TimelineMove(msgspec.Struct, frozen=True, kw_only=True):
    """The call was asked to leave its edge. `by`: ``project`` (``POST …/move``) or ``drain``. `epoch`: the first that was granted
    for it. `outcome`: ``moved``, ``ended``, ``failed``, ``canceled``; null while it is under way."""

    by: Literal["project", "drain"]
    epoch: int
    from_edge: str
    to_edge: str
    force_at: str
    outcome: str | None
    done_at: str | None


class TimelineDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to send one event to a webhook. `status`: of the answer; null where there was none, and `error` says why."""

    webhook_id: str
    event_type: str | None
    event_seq: int
    attempt: int
    status: int | None
    error: str | None
    duration_ms: int


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `kind`: ``event``, ``move`` or ``delivery``, and what goes with it.

    Of an event: `seq`, `type`, `epoch`, `region`, its `data`, and where it changed them the `state` and the `owner` after it.
    `at`: of an event by the clock of whoever saw it, else by ours; the order of the list is the log's.
    """

    kind: Literal["event", "move", "delivery"]
    at: str
    seq: int | UnsetType = UNSET
    type: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    region: str | UnsetType | None = UNSET
    data: dict[str, Any] | UnsetType = UNSET
    state: str | UnsetType = UNSET
    owner: TimelineOwner | UnsetType = UNSET
    move: TimelineMove | UnsetType = UNSET
    delivery: TimelineDelivery | UnsetType = UNSET


class LateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge wrote after another had taken the call, or after its end: kept, and without effect. `epoch` and `n`: as that edge
    numbered it."""

    at: str
    type: str
    epoch: int
    n: int
    edge: str
    region: str | None
    stored_at: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """`entries`: in the order in which the log has them; events of the call itself, of its backend, of the log and of
    how long answers took, stage by stage (`call.*`, `agent.*`, `events.lost`, `turn.answered`, `turn.budget_exceeded`), without what
    was said. `deliveries`: whether attempts of webhooks are among them: for keys that may
    read webhooks."""

    call_id: str
    state: str
    created_at: str
    answered_at: str | None
    ended_at: str | None
    end_reason: str | None
    placement: PlacementView
    entries: list[TimelineEntry]
    late: list[LateEvent]
    deliveries: bool
    incomplete: Annotated[
        list[str],
        Meta(
            description="What there is more of than is shown: `events`, `moves`, `deliveries`, `late` (the oldest are shown); "
            "`events_expired`: they are kept no longer."
        ),
    ]
