"""The list of a project's calls: what can be asked for, and the statements that find a page of it. Pure.

Each filter has a way through the list: an index in which the calls that pass stand in the list's order (migrations: call_list). One
filter is its way's beginning. Of several

1. it is measured how far back the same number of candidates reaches on each way (`reach_statement`),
2. the way that reaches furthest is gone, the others being asked of each candidate (`look_statement`),
3. until the page is full, the way has ended, or the time is up: filters that are each common and hardly ever together would else be
   looked for in all of the project. Then the page holds what was found, perhaps nothing, and says from where to look on.

No statistics decide: a value that was common once, or among the oldest alone, is as any other. A name and value of the metadata
are found by their label, a hash, and looked at in the call itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from app.calls.machine import FINAL
from app.calls.policy import normalised
from app.errors import FieldError, Invalid
from app.times import EPOCH, read_time

ALONG_ITS_ORDER = """
set local plan_cache_mode = force_custom_plan; set local jit = off; set local enable_seqscan = off; set local enable_bitmapscan = off;
set local enable_sort = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
set local max_parallel_workers_per_gather = 0
"""
"""A page is the beginning of something long that stands in its order: whatever reads all of it first is a bad plan."""
WEEKS = """
select vx.first_uuid_at(min(w)) as first, vx.first_uuid_at(max(w) + interval '7 days') as end
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
 cross join lateral (select to_timestamp(right(c.relname, 7), 'IYYY"w"IW')::timestamp at time zone 'UTC' as w) w
 where i.inhparent = 'vx.calls'::regclass and c.relname ~ '^calls_\\d{4}w\\d{2}$'
"""
WEEK = 7 * 86_400_000 << 80
Part = tuple[UUID | None, UUID | None]
"""From an id on, before another."""
FIRST_PARTS = 6
"""The default's and the weeks ahead, which are empty, this week and one or two before."""
APART_MAX = 20
"""So many weeks are looked at one by one, those before together: each costs its share of planning."""
LOOK_S = 0.012
"""So long a page that several filters make is looked for."""
MEASURED = 1_000
"""Candidates of each way, to tell which is the rarer here. Their index entries are read, less than a millisecond."""
LAST_MS = (1 << 48) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """`created_after` is within, `created_before` is not; `caller_from` and `caller_to` in the form in which they are stored."""

    state: str | None = None
    region: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    caller_from: str | None = None
    caller_to: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Tells a cursor of these filters from one of others. A hash, so that a cursor is short however long they are."""
        given = (self.state, self.region, sorted(self.metadata.items()))
        times = (self.created_after, self.created_before)
        return sha256(repr((*given, *times, self.caller_from, self.caller_to)).encode()).hexdigest()[:16]


def filters_of(
    *,
    state: str | None,
    region: str | None,
    created_after: str | None,
    created_before: str | None,
    caller_from: str | None,
    caller_to: str | None,
    metadata: dict[str, str],
) -> Filters:
    """Raises `Invalid` with every fault."""
    faults: list[FieldError] = []
    times: list[datetime | None] = []
    for name, given in (("/created_after", created_after), ("/created_before", created_before)):
        at, wrong = read_time(name, given) if given is not None else (None, [])
        times.append(at)
        faults += wrong
    numbers: list[str | None] = []
    for name, given in (("/from", caller_from), ("/to", caller_to)):
        # in a query a plus that is not written as %2B is a space
        found = normalised("+" + given[1:] if given.startswith(" ") else given) if given is not None else None
        numbers.append(found)
        if given is not None and found is None:
            faults.append(FieldError(pointer=name, detail="expected an E.164 number, a tel: or a sip: URI"))
    after, before = times
    if not faults and after is not None and before is not None and before <= after:
        faults.append(FieldError(pointer="/created_before", detail="is not after created_after"))
    if faults:
        raise Invalid("The calls cannot be listed so.", code="bad_filter", errors=faults)
    return Filters(
        state=state,
        region=region,
        created_after=after,
        created_before=before,
        caller_from=numbers[0],
        caller_to=numbers[1],
        metadata=metadata,
    )


@dataclass(frozen=True, slots=True)
class Weeks:
    """The weeks that have partitions of their own: their calls' ids are from `first` on, before `end`. What clocks far off have made
    stands in one for all other times. Old bounds cost time and hide nothing."""

    first: UUID
    end: UUID

    def parts(self, lower: UUID | None, upper: UUID | None) -> list[Part]:
        """Newest first. So partitions are read one after the other, each when it is its turn: a scan over all of them, the one for
        other times among them, looks in every one for a first that passes before it gives any."""
        cuts = [self.end]
        while len(cuts) < APART_MAX and cuts[-1].int - WEEK > self.first.int:
            cuts.append(UUID(int=cuts[-1].int - WEEK))
        cuts.append(self.first)
        found = zip([*cuts, None], [None, *cuts], strict=True)
        return [
            (from_, before)
            for from_, before in found
            if (upper is None or from_ is None or from_ < upper)
            and (lower is None or before is None or before > lower)
        ]


@dataclass(frozen=True, slots=True)
class Way:
    """One filter's: its condition, of the call `c`, or of the label `l` where `label` is set. `state`: that a live call has to have,
    which no index says."""

    condition: str
    label: bool = False
    state: str | None = None


@dataclass(slots=True)
class Statement:
    """Values in the order in which its text names them; the first is the project."""

    values: list[Any]
    text: str = ""

    def given(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def is_search(asked: Filters) -> bool:
    """Whether there are several ways."""
    return len(_ways(Statement([]), asked)) > 1


def reach_statement(project_id: UUID, asked: Filters, below: UUID | None, weeks: Weeks) -> Statement:
    """One row with a column for each way: the last of `MEASURED` candidates, null where there are fewer."""
    made = Statement([project_id])
    upper, lower = _span(asked, below)
    # within the weeks, whose partitions are in order: see `Weeks`
    bounds = _bounds(made, max(lower or weeks.first, weeks.first), min(upper or weeks.end, weeks.end))
    skipped = made.given(MEASURED - 1)
    columns = [f"({_candidates(way, bounds)} offset {skipped} limit 1)" for way in _ways(made, asked)]
    made.text = f"select {', '.join(columns)}"  # sql: names only
    return made


def furthest(reached: Sequence[UUID | None]) -> int:
    """The way on which the candidates are the fewest: those of None are all that there are."""
    return min(range(len(reached)), key=lambda n: -1 if (at := reached[n]) is None else at.int)


def looks(asked: Filters, below: UUID | None, weeks: Weeks) -> list[list[Part]]:
    """What a statement each looks at: most pages are in the first, whose plan is a third of the whole."""
    upper, lower = _span(asked, below)
    parts = [
        (
            max((at for at in (lower, from_) if at), default=None),
            min((at for at in (upper, before) if at), default=None),
        )
        for from_, before in weeks.parts(lower, upper)
    ]
    return [some for some in (parts[:FIRST_PARTS], parts[FIRST_PARTS:]) if some]


def look_statement(
    project_id: UUID,
    asked: Filters,
    parts: list[Part],
    *,
    along: int,
    limit: int,
    look_s: float,
) -> Statement:
    """Along the way of that number. Ids, newest first, so many at most: of calls that pass, and once the time is up of all. Where
    there are fewer the way has no more in these parts. All down to the last has been looked at."""
    made = Statement([project_id])
    ways, most = _ways(made, asked), made.given(limit)
    way = ways.pop(along)
    late = f"clock_timestamp() >= statement_timestamp() + {made.given(timedelta(seconds=look_s))}"
    arms = []
    for lower, upper in parts:
        bounds = _bounds(made, lower, upper)
        passes = _passes(made, way, ways, bounds)
        arms.append(f"({_candidates(way, bounds, f'({passes} or {late})')} limit {most})")
    made.text = f"select id from ({' union all '.join(arms)}) p limit {most}"  # sql: names only
    return made


def read_statement(columns: str, project_id: UUID, asked: Filters, looked: Sequence[UUID]) -> Statement:
    """Those of them that pass, in no order: what was given when the time was up may not, nor what shares its label's hash."""
    made = Statement([project_id, looked])
    ways = _ways(made, asked, labels=False)
    wanted = ["c.project_id = $1", "c.id = any($2::uuid[])", *(way.condition for way in ways)]
    wanted += [f"c.state = {made.given(way.state)}" for way in ways if way.state is not None]
    if asked.metadata:
        wanted.append(f"c.metadata @> {made.given(_json(asked.metadata))}::jsonb")
    made.text = f"select {columns} from vx.calls c where {' and '.join(wanted)}"  # sql: names only
    return made


def _ways(made: Statement, asked: Filters, *, labels: bool = True) -> list[Way]:
    """One for each filter but the times, which bound them all; that of the whole list where there is none."""
    found = []
    if asked.state in FINAL:
        found.append(Way(f"c.ended_at is not null and c.ended_as = {made.given(asked.state)}"))
    elif asked.state is not None:
        found.append(Way("c.ended_at is null", state=asked.state))
    for column, wanted in (
        ("caller_to", asked.caller_to),
        ("caller_from", asked.caller_from),
        ("region", asked.region),
    ):
        found += [Way(f"c.{column} = {made.given(wanted)}")] if wanted is not None else []
    for name, value in sorted(asked.metadata.items()) if labels else ():
        label = f"vx.label_of($1, {made.given(name)}, {made.given(value)})"
        found.append(Way(f"l.label = {label}", label=True))
    return found or [Way("true")]


def _span(asked: Filters, below: UUID | None) -> tuple[UUID | None, UUID | None]:
    """Before which id, and from which on. A call's id says when it was created, to the millisecond as `created_at` does, and is the
    order of the list."""
    upper = min((u for u in (below, _first_at(asked.created_before)) if u is not None), default=None)
    return upper, _first_at(asked.created_after)


def _bounds(made: Statement, lower: UUID | None, upper: UUID | None) -> list[str]:
    return [f"{{id}} {sign} {made.given(at)}" for sign, at in (("<", upper), (">=", lower)) if at is not None]


def _candidates(way: Way, bounds: list[str], wanted: str = "true") -> str:
    """What of a way's is wanted, newest first."""
    source, name = ("vx.call_labels l", "l.call_id") if way.label else ("vx.calls c", "c.id")
    where = " and ".join(
        [
            "l.project_id = $1" if way.label else "c.project_id = $1",
            way.condition,
            *(b.format(id=name) for b in bounds),
            wanted,
        ]
    )
    return f"select {name} as id from {source} where {where} order by {name} desc"  # sql: names only


def _passes(made: Statement, way: Way, others: list[Way], bounds: list[str]) -> str:
    """Whether a candidate is what the others ask for. Subqueries of one value: an `exists` may be read whole. The bounds are true of
    the candidate anyway, and leave one partition to look in."""
    own = [w.condition for w in others if not w.label]
    own += [f"c.state = {made.given(w.state)}" for w in (way, *others) if w.state is not None]
    labels = [w.condition.replace("l.", "o.", 1) for w in others if w.label]
    name, found = "l.call_id" if way.label else "c.id", []
    if way.label and own:
        asked = " and ".join([f"c.id = {name}", *(b.format(id="c.id") for b in bounds)])
        found.append(f"(select {' and '.join(own)} from vx.calls c where {asked})")  # sql: names only
    else:
        found += own
    within = "".join(f" and {b.format(id='o.call_id')}" for b in bounds)
    found += [
        f"(select true from vx.call_labels o where {label} and o.call_id = {name}{within})"
        for label in labels
    ]
    return f"({' and '.join(found)})" if found else "true"


def _json(metadata: dict[str, str]) -> str:
    return msgspec.json.encode(metadata).decode()


def _first_at(at: datetime | None) -> UUID | None:
    """The first id that a call created then could have."""
    if at is None:
        return None
    ms = -((EPOCH - at) // timedelta(milliseconds=1))
    return UUID(int=min(max(ms, 0), LAST_MS) << 80)
