"""Usage and prices on the wire of the REST API. Numbers are integers: milliseconds, bytes, and millionths of a currency."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

GroupBy = Literal["day", "region", "transport", "side", "region_pair"]
Micros = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In millionths of the currency: for a minute that a caller is attached (by its transport), a minute that a backend is connected,
    a GB (10^9 bytes) that leaves an edge for somebody nearest to its own region, or to another one, a call and a turn."""

    websocket_minute: Micros = 0
    webrtc_minute: Micros = 0
    agent_minute: Micros = 0
    egress_gb: Micros = 0
    egress_far_gb: Micros = 0
    call: Micros = 0
    turn: Micros = 0


class PriceVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds from the beginning of the day `valid_from` (UTC) until the next version does. A project has one currency."""

    valid_from: date
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.", examples=["USD"])]
    prices: Prices


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest first. `version`: its ETag; 0 while there is none."""

    project_id: str
    data: list[PriceVersion]
    version: int


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """`owners`: of calls, each edge that carried one; `incomplete`: of them, those that died without a last word, counted up to the
    newest that the log knows. `egress_far_bytes`: of what left, to somebody nearest to another region. `cost_micros`: null where
    nothing is billed or there is no price."""

    calls: int = 0
    owners: int = 0
    incomplete: int = 0
    caller_ms: int = 0
    agent_ms: int = 0
    caller_in_bytes: int = 0
    caller_out_bytes: int = 0
    agent_in_bytes: int = 0
    agent_out_bytes: int = 0
    caller_saved_bytes: int = 0
    agent_saved_bytes: int = 0
    egress_far_bytes: int = 0
    turns: int = 0
    failovers: int = 0
    moves: int = 0
    cost_micros: int | None = None


class UsageRow(Counters, frozen=True, kw_only=True, omit_defaults=True):
    """Sums of one group, which the fields that are named say; what is 0 is left out."""

    day: date | None = None
    region: str | None = None
    transport: str | None = None
    side: str | None = None
    from_region: str | None = None
    to_region: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Of calls that ended on the days from `from` until before `to`, in UTC. `billed`: false for a test project. `pending`: calls
    that have ended and are not in it yet; more than seconds old, none."""

    project_id: str
    mode: str
    billed: bool
    currency: str | None
    from_: date = msgspec.field(name="from")
    to: date
    group_by: GroupBy
    pending: int
    data: list[UsageRow]
    total: Counters


class OwnerUsage(Counters, frozen=True, kw_only=True):
    """Of one owner of a call. `complete`: it has said its last word. `caller_to`, `agent_to`: the regions nearest to the caller
    and to the backend as the placement saw them; empty: not known."""

    epoch: int
    region: str
    transport: str
    caller_to: str
    agent_to: str
    complete: bool


class CallUsage(msgspec.Struct, frozen=True, kw_only=True):
    """`final`: the call has ended. Before that it is what its owners have said so far."""

    call_id: str
    day: date
    final: bool
    billed: bool
    currency: str | None
    owners: list[OwnerUsage]
    total: Counters


class Refolded(msgspec.Struct, frozen=True, kw_only=True):
    """So many calls will be folded anew."""

    calls: int
