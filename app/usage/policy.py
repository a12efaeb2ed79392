"""How usage is summed, priced and asked for. Pure: sums of the database come in, rows of the report go out.

Nothing is a floating-point number. A cost is an exact fraction until it is shown: then it is rounded, half up, to a millionth of the
currency. So the total, rounded once, may differ from the sum of n rows by n/2 millionths, and is the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import msgspec

from app.errors import FieldError, Invalid
from app.usage.shapes import Counters, GroupBy, Prices, PriceVersion, UsageRow

DAYS_MAX = 400
DAYS_DEFAULT = 30
INTEGER_MAX = 2**63 - 1
MINUTE_MS, GB = 60_000, 10**9
SUMMED = (
    "calls", "owners", "incomplete", "caller_ms", "agent_ms", "caller_in_bytes", "caller_out_bytes", "agent_in_bytes",
    "agent_out_bytes", "caller_saved_bytes", "agent_saved_bytes", "turns", "failovers", "moves",
)  # fmt: skip
OF_SIDE = {
    side: (f"{side}_ms", f"{side}_in_bytes", f"{side}_out_bytes", f"{side}_saved_bytes")
    for side in ("caller", "agent")
}
KEYS: dict[GroupBy, tuple[str, ...]] = {
    "day": ("day",),
    "region": ("region",),
    "transport": ("transport",),
    "side": (),
    "region_pair": ("region", "caller_to", "agent_to"),
}
"""By what the database sums, besides the version of the prices."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one group and one version of the prices. `counts` has what `SUMMED` names; `rtc_ms`: of `caller_ms`, over WebRTC;
    `caller_far`, `agent_far`: of the bytes that left, those for somebody nearest to another region than the edge's."""

    key: tuple[Any, ...]
    priced_from: date | None
    counts: dict[str, int]
    rtc_ms: int
    caller_far: int
    agent_far: int


def window(from_: str | None, to: str | None, today: date) -> tuple[date, date]:
    """Days, the second not included; what is left out: the last thirty, today's with them. Raises `Invalid`."""
    faults: list[FieldError] = []
    last = _day("/to", to, faults) if to is not None else today + timedelta(days=1)
    first = _day("/from", from_, faults) if from_ is not None else None
    if faults or last is None:
        raise Invalid("The days cannot be read.", errors=faults, fix="Write days as 2026-01-31.")
    if first is None:
        first = last - timedelta(days=min(DAYS_DEFAULT, (last - date.min).days))
    if last <= first:
        faults.append(FieldError(pointer="/to", detail="is not after from; it is the day after the last one"))
    elif (last - first).days > DAYS_MAX:
        faults.append(FieldError(pointer="/from", detail=f"is more than {DAYS_MAX} days before to"))
    if faults:
        raise Invalid("These are no days to sum up.", errors=faults, fix=f"Ask for 1 to {DAYS_MAX} days.")
    return first, last


def _day(pointer: str, text: str, faults: list[FieldError]) -> date | None:
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
    except ValueError:
        pass
    faults.append(FieldError(pointer=pointer, detail="expected a day such as 2026-01-31, in UTC"))
    return None


def price_at(versions: Iterable[PriceVersion], day: date) -> Prices | None:
    """The version that holds on that day."""
    held = [v for v in versions if v.valid_from <= day]
    return max(held, key=lambda v: v.valid_from).prices if held else None


def cost_of(
    sums: Sums, prices: Prices, sides: tuple[str, ...] = ("caller", "agent"), *, whole: bool = True
) -> Fraction:
    """`whole`: with what belongs to no side."""
    c, cost = sums.counts, Fraction(0)
    if "caller" in sides:
        cost += Fraction(
            (c["caller_ms"] - sums.rtc_ms) * prices.websocket_minute + sums.rtc_ms * prices.webrtc_minute,
            MINUTE_MS,
        )
        cost += _egress(c["caller_out_bytes"], sums.caller_far, prices)
    if "agent" in sides:
        cost += Fraction(c["agent_ms"] * prices.agent_minute, MINUTE_MS)
        cost += _egress(c["agent_out_bytes"], sums.agent_far, prices)
    return cost + (c["calls"] * prices.call + c["turns"] * prices.turn if whole else 0)


def _egress(sent: int, far: int, prices: Prices) -> Fraction:
    return Fraction((sent - far) * prices.egress_gb + far * prices.egress_far_gb, GB)


def rounded(cost: Fraction) -> int:
    """Half up. Raises `Invalid` where it is beyond what can be told."""
    whole = (2 * cost.numerator + cost.denominator) // (2 * cost.denominator)
    return _told(whole)


def _told(value: int) -> int:
    if value > INTEGER_MAX:
        raise Invalid(
            "A sum is greater than can be told.",
            code="overflow",
            fix="Ask for fewer days, or lower the prices.",
        )
    return value


Part = tuple[tuple[tuple[str, Any], ...], dict[str, int], Fraction | None]
"""What names a row, and what goes into it."""


class _Group:
    """Sums on their way into a row. `cost` None: nothing has had a price."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*SUMMED, "egress_far_bytes"), 0)
        self.cost: Fraction | None = None

    def add(self, counts: dict[str, int], cost: Fraction | None) -> None:
        for name, n in counts.items():
            self.counts[name] += n
        if cost is not None:
            self.cost = (self.cost or Fraction(0)) + cost

    def told(self) -> dict[str, Any]:
        cost = None if self.cost is None else rounded(self.cost)
        return {name: _told(n) for name, n in self.counts.items()} | {"cost_micros": cost}


def report(
    found: Iterable[Sums], group_by: GroupBy, versions: list[PriceVersion], *, billed: bool
) -> tuple[list[UsageRow], Counters]:
    """The rows, in the order of their groups, and the total. What a region without a name stands for is not known."""
    priced = {v.valid_from: v.prices for v in versions} if billed else {}
    groups: dict[tuple[tuple[str, Any], ...], _Group] = {}
    total = _Group()
    for sums in found:
        prices = priced.get(sums.priced_from) if sums.priced_from is not None else None
        cost = cost_of(sums, prices) if prices is not None else None
        total.add(sums.counts | {"egress_far_bytes": sums.caller_far + sums.agent_far}, cost)
        for names, counts, part in _parts(sums, group_by, prices):
            groups.setdefault(names, _Group()).add(counts, part)
    rows = [
        UsageRow(**dict(names), **group.told())
        for names, group in sorted(groups.items(), key=lambda g: [str(value) for _, value in g[0]])
    ]
    return rows, Counters(**total.told())


def _parts(sums: Sums, group_by: GroupBy, prices: Prices | None) -> list[Part]:
    """Into which rows these sums go, and with what of them."""
    if group_by == "side":
        return [
            (
                (("side", side),),
                {name: sums.counts[name] for name in OF_SIDE[side]} | {"egress_far_bytes": far},
                cost_of(sums, prices, (side,), whole=False) if prices is not None else None,
            )
            for side, far in (("caller", sums.caller_far), ("agent", sums.agent_far))
        ]
    if group_by == "region_pair":
        region, caller_to, agent_to = sums.key
        parts: list[Part] = []
        for side, to, far in (("caller", caller_to, sums.caller_far), ("agent", agent_to, sums.agent_far)):
            name = f"{side}_out_bytes"
            cost = _egress(sums.counts[name], far, prices) if prices is not None else None
            counts = {name: sums.counts[name], "egress_far_bytes": far}
            parts.append(((("from_region", region), ("to_region", to)), counts, cost))
        return parts
    (value,) = sums.key
    cost = cost_of(sums, prices) if prices is not None else None
    return [
        (((group_by, value),), sums.counts | {"egress_far_bytes": sums.caller_far + sums.agent_far}, cost)
    ]


def csv(rows: list[UsageRow], group_by: GroupBy) -> str:
    """RFC 4180, with a line of names; no value needs quotes."""
    names = {"region_pair": ["from_region", "to_region"]}.get(group_by, [group_by])
    columns = [*names, *Counters.__struct_fields__]
    lines = [",".join(columns)]
    for row in rows:
        values = (getattr(row, column) for column in columns)
        lines.append(",".join("" if value is None else str(value) for value in values))
    return "\r\n".join(lines) + "\r\n"


def checked(version: PriceVersion, known: list[PriceVersion]) -> PriceVersion:
    """Raises `Invalid`: a bill has one currency."""
    others = {v.currency for v in known if v.valid_from != version.valid_from}
    if others - {version.currency}:
        raise Invalid(
            f"This project is billed in {min(others)}.",
            errors=[FieldError(pointer="/currency", detail=f"is {min(others)} in the other versions")],
        )
    return version


PRICES = msgspec.json.Decoder(Prices)
